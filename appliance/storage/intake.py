"""Takes a file in: one reading of it is copied, hashed and handed on at the same time.

A copy that was broken off goes on where it ended, if its file is surely the same: the very inode, with the
same size, never changed since, in the same boot of the host, as only then all that was written of the copy
is there. On one file system with the images a file is not copied but cloned.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from appliance.errors import ImageError, VolumeError
from appliance.storage.sharing import CLONE

CHUNK = 1 << 20
ZEROES = bytes(CHUNK)
BOOT = Path("/proc/sys/kernel/random/boot_id")

Progress = Callable[[float], None]
"""Told how much of the file has been taken in, from 0 to 1."""


@dataclass(frozen=True, slots=True)
class Copied:
    """What has been taken in."""

    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class Origin:
    """What a file is taken for: with all of this the same, its content is."""

    path: str
    device: int
    inode: int
    size: int
    modified_ns: int
    changed_ns: int
    boot: str

    @classmethod
    def of(cls, source: Path) -> Origin:
        """The file as it is now.

        :raises OSError: it is not there
        """
        found = source.stat()
        return cls(
            path=str(source.resolve()),
            device=found.st_dev,
            inode=found.st_ino,
            size=found.st_size,
            modified_ns=found.st_mtime_ns,
            changed_ns=found.st_ctime_ns,
            boot=BOOT.read_text().strip(),
        )

    @property
    def still_stands(self) -> bool:
        """Whether the file is there and has not changed."""
        with suppress(OSError):
            return Origin.of(Path(self.path)) == self
        return False

    def written(self) -> str:
        """As text."""
        return json.dumps(asdict(self))

    @classmethod
    def read(cls, text: str | None) -> Origin | None:
        """From text; None from any other."""
        with suppress(ValueError, TypeError):
            return cls(**json.loads(text or ""))
        return None


class Intake:
    """The taking in of `source` into the file `part`, of which `origin` says what it must be."""

    def __init__(self, source: Path, part: Path, origin: Origin) -> None:
        self.source = source
        self._part = part
        self._origin = origin
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Let `run` return soon, whatever it has."""
        self._stopped.set()

    def run(self, report: Progress, sink: int | None = None) -> Copied:
        """Take the file in, going on behind what the part holds; `sink` is given all of it.

        Once whoever reads the sink has left, it is given nothing more.

        :raises VolumeError: the part cannot be written
        :raises ImageError: the file changed meanwhile
        """
        try:
            source = os.open(self.source, os.O_RDONLY | os.O_CLOEXEC)
            try:
                part = os.open(self._part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                try:
                    copied = self._take(source, part, report, sink)
                    changed = (found := os.fstat(source)).st_mtime_ns, found.st_size, found.st_ino
                finally:
                    os.close(part)
            finally:
                os.close(source)
        except OSError as exc:
            raise VolumeError(
                f"{self.source} cannot be copied to {self._part.parent}: {exc.strerror}"
            ) from exc
        if changed != (self._origin.modified_ns, self._origin.size, self._origin.inode):
            raise ImageError(
                f"{self.source.name} changed while it was being imported", hint="add it when it is complete"
            )
        return copied

    def _take(self, source: int, part: int, report: Progress, sink: int | None) -> Copied:
        size, kept = self._origin.size, os.fstat(part).st_size
        if kept < size and _cloned(source, part):
            kept = size
        digest, place = hashlib.sha256(), 0
        while not self._stopped.is_set():
            if place < kept:
                chunk = os.pread(part, min(CHUNK, kept - place), place)
            elif chunk := os.pread(source, CHUNK, place):
                _put(part, chunk, place)
            if not chunk:
                break
            digest.update(chunk)
            if sink is not None and not _given(sink, chunk):
                sink = None
            place += len(chunk)
            report(min(1.0, place / max(1, size)))
        os.ftruncate(part, place)
        return Copied(digest.hexdigest(), place)


def put_in_place(part: Path, image: Path) -> None:
    """Give what was taken in its name, once all of it has reached the disk.

    :raises VolumeError: it cannot be
    """
    try:
        with part.open("rb") as stream:
            os.fsync(stream.fileno())
        part.chmod(0o400)
        part.rename(image)
        directory = os.open(image.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as exc:
        raise VolumeError(f"{image} cannot be put in place: {exc.strerror}") from exc


def _cloned(source: int, part: int) -> bool:
    with suppress(OSError):
        fcntl.ioctl(part, CLONE, source)
        return True
    return False


def _put(part: int, chunk: bytes, place: int) -> None:
    """Write a chunk; of nothing but zeroes, a hole: a raw disk is mostly holes."""
    if chunk == ZEROES:
        return
    view = memoryview(chunk)
    while view:
        written = os.pwrite(part, view, place)
        view, place = view[written:], place + written


def _given(sink: int, chunk: bytes) -> bool:
    view = memoryview(chunk)
    try:
        while view:
            view = view[os.write(sink, view) :]
    except BrokenPipeError:
        return False
    return True
