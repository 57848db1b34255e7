"""An exported image as a file: a plain tar archive of a manifest and of the image as it was registered.

Only an archive of exactly these two members is read, in this order, by their headers alone: no name in it
is ever used as a path, and nothing is unpacked.
"""

from __future__ import annotations

import os
import tarfile
from dataclasses import dataclass
from datetime import datetime
from typing import BinaryIO

from appliance.errors import ImageError
from appliance.ops import image_manifest
from appliance.ops.image_manifest import Manifest

MANIFEST, IMAGE = "manifest.json", "image"
BLOCK = tarfile.BLOCKSIZE
END = bytes(2 * BLOCK)
LONGEST_END = 2 * tarfile.RECORDSIZE
"""Bytes that may follow the last member; all of them zero."""


@dataclass(frozen=True, slots=True)
class Contents:
    """What an archive holds, and where its image begins."""

    manifest: Manifest
    offset: int
    """Bytes."""


def head(manifest: Manifest, at: datetime) -> bytes:
    """Everything of an archive that comes before its image."""
    text = image_manifest.encoded(manifest)
    return b"".join(
        (_header(MANIFEST, len(text), at), text, padding(len(text)), _header(IMAGE, manifest.size, at))
    )


def padding(size: int) -> bytes:
    """What follows so many bytes of a member."""
    return bytes(-size % BLOCK)


def read(stream: BinaryIO) -> Contents:
    """Look an archive over, but for the image in it.

    :raises ImageError: it is no exported image, or is cut
    :raises OSError: it cannot be read
    """
    length = _member(stream, MANIFEST)
    if not 0 < length <= image_manifest.LONGEST:
        raise ImageError(f"its manifest has {length} bytes")
    manifest = image_manifest.decoded(_exactly(stream, length))
    _exactly(stream, len(padding(length)))
    size, offset = _member(stream, IMAGE), stream.tell()
    if size != manifest.size:
        raise ImageError(f"its image has {size} bytes, and {manifest.size} by its manifest")
    end = offset + size + len(padding(size))
    left = os.fstat(stream.fileno()).st_size - end
    if left < 0:
        raise ImageError(f"it is cut: {-left} bytes are missing", hint="copy it again")
    stream.seek(end)
    if left > LONGEST_END or any(stream.read(left)):
        raise ImageError("it holds more than an image")
    return Contents(manifest, offset)


def _header(name: str, size: int, at: datetime) -> bytes:
    member = tarfile.TarInfo(name)
    member.size, member.mode, member.mtime = size, 0o600, int(at.timestamp())
    return member.tobuf(tarfile.GNU_FORMAT)


def _member(stream: BinaryIO, name: str) -> int:
    """The size of the member that must come next."""
    try:
        found = tarfile.TarInfo.frombuf(_exactly(stream, BLOCK), "ascii", "strict")
    except (tarfile.HeaderError, ValueError) as exc:
        raise ImageError("it is no archive of this kind", hint="qa di export makes one") from exc
    if found.name != name or found.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or found.size < 0:
        raise ImageError(f"where {name} should be, there is something else", hint="qa di export makes one")
    return found.size


def _exactly(stream: BinaryIO, length: int) -> bytes:
    data = stream.read(length)
    if len(data) < length:
        raise ImageError("it is cut", hint="copy it again")
    return data
