"""Disk images of virtual machines, honest and hostile, small and made in a moment."""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

MIB = 1 << 20


def raw(file: Path, *, mib: int = 1) -> Path:
    """A disk with a boot record, and nothing to boot."""
    with file.open("wb") as stream:
        stream.write(b"\xeb\xfe")
        stream.seek(510)
        stream.write(b"\x55\xaa")
        stream.truncate(mib * MIB)
    return file


def qcow2(file: Path, *options: str, mib: int = 1) -> Path:
    """The same as qcow2; `options` for `qemu-img convert`."""
    plain = raw(file.with_suffix(".plain"), mib=mib)
    img("convert", "-f", "raw", "-O", "qcow2", *options, plain, file)
    plain.unlink()
    return file


def blank(file: Path, *options: str, size: str = "1M", kind: str = "qcow2") -> Path:
    """An empty image, by `qemu-img create`."""
    img("create", "-q", "-f", kind, *options, file, size)
    return file


def patched(file: Path, place: int, form: str, value: int) -> Path:
    """An honest qcow2 image with one field of its header changed."""
    qcow2(file)
    with file.open("r+b") as stream:
        stream.seek(place)
        stream.write(struct.pack(f">{form}", value))
    return file


def img(*words: str | Path) -> str:
    """`qemu-img`."""
    return subprocess.run(["qemu-img", *words], check=True, capture_output=True, text=True).stdout


@dataclass(frozen=True, slots=True)
class Hostile:
    """An image that no virtual machine may have, and what is said of it."""

    name: str
    said: str
    make: Callable[[Path], object]


@contextmanager
def running(disk: Path) -> Iterator[None]:
    """Somebody of QEMU's has a disk open, as long as this lasts."""
    command = ["qemu-io", "-f", "qcow2", str(disk)]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert holder.stdin is not None
        assert holder.stdout is not None
        holder.stdin.write(b"length\n")
        holder.stdin.flush()
        while b"MiB" not in holder.stdout.readline():
            pass
        yield
    finally:
        holder.kill()
        holder.communicate()


def _backed(by: str) -> Callable[[Path], object]:
    return lambda file: blank(file, "-u", "-b", by, "-F", "raw")


def _raw_with(head: bytes) -> Callable[[Path], object]:
    def make(file: Path) -> None:
        raw(file)
        with file.open("r+b") as stream:
            stream.write(head)

    return make


def _cut(clusters: int) -> Callable[[Path], object]:
    """An honest image of which only so many clusters are left: tables come first, data last."""

    def make(file: Path) -> None:
        qcow2(file, mib=4)
        with file.open("r+b") as stream:
            stream.truncate(clusters << 16)

    return make


def _damaged(file: Path) -> None:
    """The one cluster of data, the disk's first, is where the table of counts is as well."""
    qcow2(file)
    with file.open("r+b") as stream:
        stream.seek(40)
        (top,) = struct.unpack(">Q", stream.read(8))
        stream.seek(top)
        (table,) = struct.unpack(">Q", stream.read(8))
        stream.seek(table & ((1 << 56) - 1))
        stream.write(struct.pack(">Q", 1 << 63 | 1 << 16))


HOSTILE = (
    Hostile("backing=/etc/shadow", "has a backing file", _backed("/etc/shadow")),
    Hostile(
        "backing=json:",
        "has a backing file",
        _backed('json:{"driver":"file","filename":"/etc/shadow"}'),
    ),
    Hostile("backing=nbd:", "has a backing file", _backed("nbd:127.0.0.1:10809")),
    Hostile("nameless backing", "has a backing file", lambda file: patched(file, 8, "Q", 512)),
    Hostile(
        "data-file",
        "keeps its data in an external file",
        lambda file: blank(file, "-o", f"data_file={file}.data,data_file_raw=on"),
    ),
    Hostile("200 TiB", "storage.import.max_size", lambda file: blank(file, size="200T")),
    Hostile("nothing", "is empty", lambda file: file.touch()),
    Hostile("no disk", "is empty", lambda file: patched(file, 24, "Q", 0)),
    Hostile("QFI raw", "of version", _raw_with(b"QFI\xfb" + b"\x90" * 68)),
    Hostile("VMDK text", "VMDK", _raw_with(b"# Disk DescriptorFile\nversion=1\nRW 1 FLAT /etc/shadow 0\n")),
    Hostile("vmdk", "VMDK", lambda file: blank(file, kind="vmdk")),
    Hostile("vdi", "VDI", lambda file: blank(file, kind="vdi")),
    Hostile("vhd", "VHD", lambda file: blank(file, kind="vpc")),
    Hostile("vhdx", "VHDX", lambda file: blank(file, kind="vhdx", size="8M")),
    Hostile("gzip", "compressed with gzip", _raw_with(b"\x1f\x8b\x08")),
    Hostile("encryption", "is encrypted", lambda file: patched(file, 32, "I", 2)),
    Hostile("dirty", "not closed properly", lambda file: patched(file, 72, "Q", 1)),
    Hostile("corrupt", "marked as corrupt", lambda file: patched(file, 72, "Q", 2)),
    Hostile("the future", "not known here: 0x80", lambda file: patched(file, 72, "Q", 128)),
    Hostile("clusters", "no clusters of that size", lambda file: patched(file, 20, "I", 63)),
    Hostile("endless header", "no such length", lambda file: patched(file, 100, "I", 1 << 31)),
    Hostile("endless extension", "has no end", lambda file: patched(file, 108 + 8, "I", 1 << 31)),
    Hostile("cut in its data", "is damaged", _cut(5)),
    Hostile("cut in its tables", "is cut off", _cut(3)),
    Hostile("tables in a knot", "is damaged", _damaged),
    Hostile("no boot record", "no boot record", blank),
    Hostile("raw without boot record", "no boot record", _raw_with(bytes(512))),
    Hostile(
        "no boot code",
        "holds no code",
        _raw_with(bytes(510) + b"\x55\xaa"),
    ),
)
"""Every one made by `make(file)`."""
