"""Archives that no honest person packs, and what an import is to say about each."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

OUTSIDE = "/escaped-by-an-archive"
FILES, SIZE = 200, 64 << 20
"""Bounds under which the corpus is meant."""


@dataclass(frozen=True, slots=True)
class Hostile:
    """An archive, and a part of the line that refuses it."""

    name: str
    pack: Callable[[tarfile.TarFile], None]
    said: str


def member(name: str, kind: bytes = tarfile.REGTYPE, *, link: str = "", mode: int = 0o644) -> tarfile.TarInfo:
    """One member without content."""
    made = tarfile.TarInfo(name)
    made.type, made.linkname, made.mode = kind, link, mode
    return made


def pack(archive: Path, packing: Callable[[tarfile.TarFile], None]) -> Path:
    """Write an archive."""
    with tarfile.open(archive, "w", format=tarfile.GNU_FORMAT) as tar:
        packing(tar)
    return archive


def one(*members: tarfile.TarInfo) -> Callable[[tarfile.TarFile], None]:
    """An archive of these members."""

    def packing(tar: tarfile.TarFile) -> None:
        for info in members:
            tar.addfile(info)

    return packing


def device(name: str, kind: bytes, major: int, minor: int) -> tarfile.TarInfo:
    """A device node. (Numbers 0:0 are a whiteout, which everybody may make and nobody can open.)"""
    made = member(name, kind)
    made.devmajor, made.devminor = major, minor
    return made


def _many(tar: tarfile.TarFile) -> None:
    for number in range(FILES + 1):
        tar.addfile(member(f"f{number}"))


def _zeros(tar: tarfile.TarFile) -> None:
    big = member("zeros")
    big.size = SIZE
    tar.addfile(big, _Zeros())


def _claims_an_exabyte(tar: tarfile.TarFile) -> None:
    big = member("big")
    big.size = 1 << 60
    assert tar.fileobj is not None
    tar.fileobj.write(big.tobuf(tarfile.GNU_FORMAT))


def _sparse(tar: tarfile.TarFile) -> None:
    """A file of one exabyte that holds nothing: GNU's old sparse format."""
    block = bytearray(member("hole", tarfile.GNUTYPE_SPARSE).tobuf(tarfile.GNU_FORMAT))
    block[483:495] = b"\x80" + (1 << 60).to_bytes(11, "big")
    sign(block)
    assert tar.fileobj is not None
    tar.fileobj.write(bytes(block))


def _huge_pax_header(tar: tarfile.TarFile) -> None:
    record = b"a" * (4 << 20)
    header = member("pax", tarfile.XHDTYPE)
    header.size = len(record)
    tar.addfile(header, io.BytesIO(record))


def _negative_size(tar: tarfile.TarFile) -> None:
    block = bytearray(member("less").tobuf(tarfile.GNU_FORMAT))
    block[124:136] = b"\xff" * 12
    sign(block)
    assert tar.fileobj is not None
    tar.fileobj.write(bytes(block))


def _pax(tar: tarfile.TarFile, kind: bytes, record: bytes) -> None:
    header = member("pax", kind)
    header.size = len(record)
    tar.addfile(header, io.BytesIO(record))


def _size_of_all(tar: tarfile.TarFile) -> None:
    """tar takes the file for empty, and what it holds for members."""
    _pax(tar, tarfile.XGLTYPE, b"10 size=0\n")
    tar.addfile(member("x"))


def _two_headers(tar: tarfile.TarFile) -> None:
    """tar forgets the first."""
    _pax(tar, tarfile.XHDTYPE, b"12 size=512\n")
    _pax(tar, tarfile.XHDTYPE, b"10 path=x\n")
    tar.addfile(member("y"))


def _link_with_content(tar: tarfile.TarFile) -> None:
    link = member("x", tarfile.SYMTYPE, link="y")
    link.size = 512
    assert tar.fileobj is not None
    tar.fileobj.write(link.tobuf(tarfile.GNU_FORMAT))


def _wrong_sum(tar: tarfile.TarFile) -> None:
    """tar skips the header, and looks for the next in what follows."""
    block = bytearray(member("x").tobuf(tarfile.GNU_FORMAT))
    block[0] = ord("y")
    assert tar.fileobj is not None
    tar.fileobj.write(bytes(block))


def sign(block: bytearray) -> None:
    """Put the right sum into a header."""
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block[:512])


class _Zeros(io.RawIOBase):
    def read(self, size: int = -1) -> bytes:
        return bytes(size)


LINK_OUT = member("etc", tarfile.SYMTYPE, link=OUTSIDE)
HOSTILE = (
    Hostile("traversal", one(member("../escaped")), "it holds ../escaped, which leads out of it"),
    Hostile("hidden-traversal", one(member("etc/../../x")), "it holds etc/../../x, which leads out of it"),
    Hostile("absolute", one(member(f"{OUTSIDE}/x")), "an absolute name"),
    Hostile(
        "symlink-then-write",
        one(LINK_OUT, member("etc/planted")),
        f"it holds etc/planted, whose way leads through the link etc to {OUTSIDE}",
    ),
    Hostile(
        "symlink-up-then-write",
        one(member("a", tarfile.SYMTYPE, link="../.."), member("./a//b/c")),
        "whose way leads through the link a to ../..",
    ),
    Hostile(
        "hard-link-out",
        one(member("passwd", tarfile.LNKTYPE, link="../../etc/passwd")),
        "it has a hard link passwd to ../../etc/passwd, which leads out of it",
    ),
    Hostile(
        "absolute-hard-link", one(member("passwd", tarfile.LNKTYPE, link="/etc/passwd")), "an absolute name"
    ),
    Hostile(
        "hard-link-through-symlink",
        one(LINK_OUT, member("passwd", tarfile.LNKTYPE, link="etc/passwd")),
        "whose way leads through the link etc",
    ),
    Hostile(
        "directory-then-link",
        one(member("etc", tarfile.DIRTYPE), LINK_OUT, member("etc/planted")),
        "whose way leads through the link etc",
    ),
    Hostile(
        "block-device", one(device("disk", tarfile.BLKTYPE, 254, 0)), "it holds disk, a block device outside"
    ),
    Hostile(
        "character-device", one(device("etc/mem", tarfile.CHRTYPE, 1, 1)), "a character device outside /dev"
    ),
    Hostile("too-many", _many, f"it holds more than {FILES} files"),
    Hostile("zeros", _zeros, f"it has more than {SIZE >> 20} MiB"),
    Hostile("exabyte", _claims_an_exabyte, f"its file big has {1 << 40} MiB"),
    Hostile("sparse", _sparse, f"its file hole has {1 << 40} MiB"),
    Hostile("pax-header", _huge_pax_header, "it says 4096 KiB about one of its members"),
    Hostile("negative", _negative_size, "a member has a negative size"),
    Hostile("long-name", one(member("x" * 300)), "a name that is too long"),
    Hostile("long-path", one(member("/".join(["x" * 200] * 30))), "a name that is too long"),
    Hostile("unnamed", one(member("")), "something without a name"),
    Hostile("line-feeds", one(member("../a\n\x1b[2Jb")), "it holds ../a??[2Jb, which leads out of it"),
    Hostile("not-text", one(member(os.fsdecode(b"/\xff"))), "it holds /?, an absolute name"),
    Hostile("size-of-all", _size_of_all, "it says size of all its members at once"),
    Hostile("two-headers", _two_headers, "a member has two extended headers of one kind"),
    Hostile("link-with-content", _link_with_content, "x is no file and has a content"),
    Hostile("wrong-sum", _wrong_sum, "the sum of a header is wrong"),
    Hostile("unknown-kind", one(member("x", b"W")), "of the unknown kind"),
)
