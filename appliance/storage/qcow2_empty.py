"""An empty disk as a qcow2 file, for which no program need be started. Pure.

The layout is the one that `qemu-img create` gives a file (version 3, clusters of 64 KiB, counts of 16 bits):

    cluster 0   header, and the name of the backing file
    cluster 1   table of the counts' clusters, which has one entry
    cluster 2   how often each cluster of the file is used: once
    cluster 3 … table of the tables that say where the data is: all zeros, for there is none
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from appliance.storage.qcow2_header import (
    BACKING_FORMAT,
    END,
    EXTENSION,
    FIELDS,
    MAGIC,
    SECTOR,
    DiskFormat,
)

CLUSTER_BITS = 16
CLUSTER = 1 << CLUSTER_BITS
TABLE_COVERS = CLUSTER // 8 * CLUSTER
"""Bytes of a disk for which one entry of the table of tables stands."""
COUNTS_AT, COUNTED_AT, TABLES_AT = CLUSTER, 2 * CLUSTER, 3 * CLUSTER
LARGEST = 1 << 46
"""Bytes of a disk: its table of tables and the rest then have far fewer clusters than one cluster counts."""
VERSION = 3
LENGTH = 112
REST = struct.Struct(">IQQQQIIB7x")
"""Snapshots and their place; features that must be known, may be, and may be until something is written;
the width of counts as a power of two; the header's length; the kind of compression."""
COUNT_ORDER = 4
LONGEST_NAME = 1023
"""Bytes that QEMU takes as the name of a backing file."""


@dataclass(frozen=True, slots=True)
class Backing:
    """What an overlay lies over."""

    file: bytes
    format: DiskFormat


@dataclass(frozen=True, slots=True)
class Layout:
    """The file of an empty disk: what is written where, and how long it is; the rest is zeros."""

    pieces: tuple[tuple[int, bytes], ...]
    length: int


def layout(size: int, backing: Backing | None = None) -> Layout:
    """A disk of `size` bytes, or what is missing to a whole sector more, without data of its own.

    :raises ValueError: it is too large, or the backing file's name is too long
    """
    size = -(-size // SECTOR) * SECTOR
    if not 0 < size <= LARGEST:
        raise ValueError(f"no disk can have {size} bytes")
    entries = -(-size // TABLE_COVERS)
    clusters = 3 + -(-entries * 8 // CLUSTER)
    pieces = (
        (0, _header(size, entries, backing)),
        (COUNTS_AT, struct.pack(">Q", COUNTED_AT)),
        (COUNTED_AT, struct.pack(">H", 1) * clusters),
    )
    return Layout(pieces, clusters * CLUSTER)


def _header(size: int, entries: int, backing: Backing | None) -> bytes:
    extensions = b""
    if backing is not None:
        name = backing.format.value.encode()
        extensions += EXTENSION.pack(BACKING_FORMAT, len(name)) + name.ljust(-(-len(name) // 8) * 8, b"\0")
    extensions += EXTENSION.pack(END, 0)
    file = b"" if backing is None else backing.file
    if len(file) > LONGEST_NAME:
        raise ValueError("the name of the backing file is too long")
    file_at = LENGTH + len(extensions) if file else 0
    begin = FIELDS.pack(
        MAGIC, VERSION, file_at, len(file), CLUSTER_BITS, size, 0, entries, TABLES_AT, COUNTS_AT, 1
    )
    return begin + REST.pack(0, 0, 0, 0, 0, COUNT_ORDER, LENGTH, 0) + extensions + file
