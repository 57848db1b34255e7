"""What a console has shown, kept in a few bounded files for whoever comes later: the ring of one console.

The newest file grows to a fifth of the limit, then takes the place of the next older one, and so on: four
fifths are always there. Bytes have positions, which count up for as long as the daemon runs, so that a
reader can go on where it was while more is written; also over what was lost, which leaves a gap in them.

A capture that cannot be written never stands in the way of the console: it is reported once, the newest
UNWRITTEN_BYTES wait in memory, and if more is lost, a line says so in its place.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

from appliance.log import facts

logger = logging.getLogger(__name__)

CAPTURE_BYTES = 1_310_720
"""The most on disk for one console; the last 1 MiB is always among it."""
PARTS = 5
UNWRITTEN_BYTES = 65_536
LOST = b"\r\n... some of the console could not be captured ...\r\n"


class Capture:
    """The capture files of one console: `path`, and `path` with `.1` to `.4` appended, oldest last."""

    def __init__(self, path: Path, limit: int = CAPTURE_BYTES) -> None:
        self._files = [path, *(path.with_name(f"{path.name}.{number}") for number in range(1, PARTS))]
        self._part_bytes = limit // PARTS
        self._descriptor: int | None = None
        self._sizes = [_size(file) for file in self._files]
        self._unwritten = bytearray()
        self._lost = 0
        self._gaps: list[tuple[int, int]] = []
        """Positions that no byte in a file has: from where on, and how many."""
        self._failing = False
        self.end = sum(self._sizes)
        """The position after the last byte."""

    @property
    def first(self) -> int:
        """The position of the oldest byte kept."""
        return self._position(self._place(self._written) - sum(self._sizes))

    def append(self, shown: bytes) -> None:
        """Keep what was shown."""
        self.end += len(shown)
        self._unwritten += shown
        try:
            self._write()
            self._failing = False
        except OSError as exc:
            self.close()
            self._sizes = [_size(file) for file in self._files]
            surplus = max(0, len(self._unwritten) - UNWRITTEN_BYTES)
            if surplus and not self._lost:
                surplus = max(surplus, len(LOST))
            del self._unwritten[:surplus]
            self._lost += surplus
            if not self._failing:
                self._failing = True
                logger.warning(
                    "the console cannot be captured", extra=facts(file=self._files[0], error=exc.strerror)
                )

    def read(self, position: int, count: int) -> tuple[bytes, int]:
        """Up to `count` bytes from `position` on, and the position after them; empty at the end.

        What is not kept any more is left out, also if somebody else has removed a file.
        """
        pieces: list[bytes] = []
        position = max(position, self.first)
        while count > 0 and position < self.end:
            piece, position = self._read_one(position, count)
            pieces.append(piece)
            count -= len(piece)
        return b"".join(pieces), position

    def tail(self, count: int) -> bytes:
        """The last `count` bytes kept, also by a former daemon; fewer if there are fewer."""
        return self.read(self.end - count, count)[0]

    def close(self) -> None:
        """Close the file; the next `append` opens it again."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    @property
    def _written(self) -> int:
        """The position after the last byte in a file."""
        return self.end - len(self._unwritten) - self._lost

    def _write(self) -> None:
        if self._descriptor is None:
            self._open()
        if self._lost:
            first = self.first
            gap = (self._written + len(LOST), self._lost - len(LOST))
            self._gaps = [*(older for older in self._gaps if older[0] >= first), gap]
            self._unwritten[:0] = LOST
            self._lost = 0
        while self._unwritten:
            if self._sizes[0] and self._sizes[0] + len(self._unwritten) > self._part_bytes:
                self._begin_another()
            assert self._descriptor is not None
            written = os.write(self._descriptor, self._unwritten[: self._part_bytes])
            del self._unwritten[:written]
            self._sizes[0] += written

    def _begin_another(self) -> None:
        self.close()
        for newer, older in reversed(list(zip(self._files, self._files[1:], strict=False))):
            if newer.exists():
                newer.replace(older)
        self._sizes = [0, *self._sizes[:-1]]
        self._open()

    def _open(self) -> None:
        self._files[0].parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._descriptor = os.open(self._files[0], flags, 0o600)
        self._sizes[0] = os.fstat(self._descriptor).st_size

    def _read_one(self, position: int, count: int) -> tuple[bytes, int]:
        """From one file, or from memory."""
        end = self._written
        if position >= end + self._lost:
            start = position - end - self._lost
            piece = bytes(self._unwritten[start : start + count])
            return piece, position + len(piece)
        if position >= end:
            return LOST, end + self._lost
        place, end = self._place(position), self._place(end)
        for file, size in zip(self._files, self._sizes, strict=True):
            start = end - size
            if place >= start:
                piece = self._bytes_of(file, place - start, min(count, end - place))
                return piece, self._position(place + len(piece) if piece else end)
            end = start
        raise AssertionError("a position is in one of the files")

    def _place(self, position: int) -> int:
        """A position without the gaps before it, as bytes lie in the files."""
        return position - sum(max(0, min(width, position - at)) for at, width in self._gaps)

    def _position(self, place: int) -> int:
        """The last of the positions that have this place."""
        for at, width in self._gaps:
            if place >= at:
                place += width
        return place

    def _bytes_of(self, file: Path, start: int, count: int) -> bytes:
        try:
            if file is self._files[0] and self._descriptor is not None:
                return os.pread(self._descriptor, count, start)
            with file.open("rb") as stream:
                stream.seek(start)
                return stream.read(count)
        except OSError:
            return b""


def _size(file: Path) -> int:
    try:
        return file.stat().st_size if file.is_file() else 0
    except OSError:
        return 0
