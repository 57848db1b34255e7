"""What an archive is by its first bytes, and how much room it will need, told before a byte moves."""

from __future__ import annotations

import os
import shutil
import struct
from dataclasses import dataclass
from pathlib import Path

from appliance.errors import ImageError, PoolFullError

MAGIC = (
    (0, b"\x1f\x8b", "gzip"),
    (0, b"BZh", "bzip2"),
    (0, b"\xfd7zXZ\x00", "xz"),
    (0, b"\x28\xb5\x2f\xfd", "zstd"),
    (257, b"ustar", ""),
)
ROOM_LEFT = 64 << 20
"""What an import leaves free on the pool, in bytes."""
GUESS = 3
"""How many times bigger an archive is assumed to be unpacked, if it does not say so itself."""
MOST = 20
"""Beyond so many times its size an archive is not believed: it is cut, or a bomb, and that shows later."""
GZIP_MODULO = 1 << 32
XZ_FOOTER, XZ_MAGIC = 12, b"YZ"
LONGEST_INDEX = 1 << 20


@dataclass(frozen=True, slots=True)
class Estimate:
    """What an archive unpacks to, in bytes, and who says so."""

    size: int
    source: str


def compression(head: bytes) -> str:
    """The program that unpacks an archive which begins like this; empty for a plain one.

    :raises ImageError: it is no archive that we know
    """
    for offset, magic, program in MAGIC:
        if head[offset : offset + len(magic)] == magic:
            return program
    raise ImageError(
        "it is not a tar archive, plain or compressed with gzip, bzip2, xz or zstd",
    )


def unpacked(archive: Path) -> Estimate:
    """What an archive unpacks to: as it says itself, or as is assumed.

    :raises OSError: it cannot be read
    :raises ImageError: it is no archive
    """
    size = archive.stat().st_size
    with archive.open("rb") as stream:
        head = stream.read(512)
        stream.seek(max(0, size - XZ_FOOTER))
        tail = stream.read(XZ_FOOTER)
        told: int | None = None
        match compression(head):
            case "":
                return Estimate(size, "it is not compressed")
            case "gzip":
                told = _gzip(tail, size)
            case "zstd":
                told = _zstd(head)
            case "xz" if tail[10:] == XZ_MAGIC:
                length = (struct.unpack_from("<I", tail, 4)[0] + 1) * 4
                if length <= min(LONGEST_INDEX, size - XZ_FOOTER):
                    stream.seek(size - XZ_FOOTER - length)
                    told = _xz(stream.read(length))
    if told is None or told > size * MOST:
        return Estimate(size * GUESS, f"assumed to be {GUESS} times the archive")
    return Estimate(told, "as the archive says")


def check(archive: Path, name: str, *, images: Path, bases: Path | None) -> None:
    """Whether an archive fits: its copy below `images`, and its files below `bases`, if it is unpacked.

    :raises PoolFullError: it does not, in numbers
    :raises OSError: it cannot be read
    :raises ImageError: it is no archive
    """
    size = archive.stat().st_size
    needs = {images: size}
    parts = [f"its copy needs {_mib(size)} MiB"]
    if bases is not None:
        estimate = unpacked(archive)
        parts.append(f"what it unpacks to {_mib(estimate.size)} MiB ({estimate.source})")
        if _file_system(images) == _file_system(bases):
            needs[images] += estimate.size
        else:
            needs[bases] = estimate.size
    for where, needed in needs.items():
        free = shutil.disk_usage(where).free
        if free < needed + ROOM_LEFT:
            raise PoolFullError(
                f"{name} does not fit: {', '.join(parts)}, {_mib(ROOM_LEFT)} MiB are to stay free, "
                f"and {where} has {free >> 20} MiB",
                hint="delete old images or enlarge the pool",
            )


def _mib(size: int) -> int:
    return -(-size >> 20)


def _file_system(path: Path) -> int:
    return os.statvfs(path).f_fsid


def _gzip(tail: bytes, size: int) -> int | None:
    """The trailer of the last member, which counts modulo 4 GiB."""
    told: int = struct.unpack("<I", tail[-4:])[0]
    while told < size // 2:
        told += GZIP_MODULO
    return told


def _zstd(head: bytes) -> int | None:
    """The content size of the first frame (RFC 8878, 3.1.1.1), if it says so."""
    described = head[4]
    kind, alone = described >> 6, bool(described & 0x20)
    length = (1 if alone else 0, 2, 4, 8)[kind]
    place = 5 + (0 if alone else 1) + (0, 1, 2, 4)[described & 3]
    if not length:
        return None
    return int.from_bytes(head[place : place + length], "little") + (256 if kind == 1 else 0)


def _xz(index: bytes) -> int | None:
    """The sum of the blocks in an index (xz file format, 4): it has one for each."""
    place, numbers = 1, []
    while place < len(index) - 4:
        value = shift = 0
        while place < len(index):
            byte = index[place]
            place += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        numbers.append(value)
        if numbers and len(numbers) == 1 + 2 * numbers[0]:
            return sum(numbers[2::2])
    return None
