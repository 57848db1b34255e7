"""Lets the next version of an image keep the blocks that it has in common with the previous one.

The archive is compared with the previous tree as it streams by. The content of a file that is there, too,
does not go to tar: in its place goes a *stand-in*, a few bytes that nobody can guess, and what differs goes
to a journal. tar unpacks the stand-ins as it would unpack the contents, whatever links, doubled members
and modes are around them; so wherever tar has put one, that content belongs. Afterwards each is filled: a
reflink of the previous file, and over it the blocks that differ.

The previous tree is read-only and may be deleted at any time; then the import is to begin anew.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import stat
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from appliance.storage import openat

LEAST = 2048
"""Bytes: up to so many, a file lies in the pool's metadata and has no block to share."""
BLOCK = 4096
"""Bytes: what is shared, or written anew."""
WINDOW = 1 << 17
"""Bytes that are compared at once."""
CLONE = 0x40049409
CAPABILITY = "security.capability"
SECRET = 24
ENTRY, RUN, PLACE = struct.Struct("=IQ"), struct.Struct("=QI"), struct.Struct("=Q")
"""Of the journal: length of the path and size of the file; place and length of a run of blocks that differ
(none is the end of the entry). Of a stand-in: where its entry is."""
STAND_IN = SECRET + PLACE.size
UNCLONABLE = frozenset({errno.EINVAL, errno.EXDEV, errno.EOPNOTSUPP, errno.ENOTTY})
"""How the kernel says that two files cannot share blocks; they are copied then."""


class PreviousGoneError(Exception):
    """The previous version was deleted while its blocks were being shared."""


@contextmanager
def sharing_with(previous: Path, folder: Path) -> Iterator[Sharing]:
    """What one import shares with the tree `previous`; its journal is a nameless file in `folder`.

    :raises OSError: the tree cannot be opened, or nothing can be written into the folder
    """
    top = os.open(previous, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with tempfile.TemporaryFile(dir=folder, buffering=WINDOW) as journal:
            sharing = Sharing(top, journal)
            try:
                yield sharing
            finally:
                sharing.close()
    finally:
        os.close(top)


class Sharing:
    """What one import has in common with the tree opened as `top`; a `screen.Keeper`."""

    def __init__(self, top: int, journal: IO[bytes]) -> None:
        self._secret = secrets.token_bytes(SECRET)
        self._top = top
        self._journal = journal
        self._end = 0
        self._entry = 0
        self._old = -1
        self._size = 0
        self._compared = 0
        self._pending = bytearray()
        self.written = 0
        """Bytes that differ, so far."""

    def close(self) -> None:
        """Let go of the file that was being compared."""
        if self._old >= 0:
            os.close(self._old)
            self._old = -1

    def takes(self, path: str, size: int) -> bool:
        """Whether a file of this path and more than a few bytes is in the previous tree."""
        if size <= LEAST:
            return False
        try:
            self._old = self._open(path)
        except OSError:
            return False
        name = os.fsencode(path)
        self._entry, self._size, self._compared = self._end, size, 0
        self._log(ENTRY.pack(len(name), size), name)
        return True

    def content(self, piece: memoryview) -> None:
        """Compare the next piece of the file with what the previous one has there."""
        self._pending += piece
        whole = len(self._pending) - len(self._pending) % WINDOW
        if self._compared + len(self._pending) == self._size:
            whole = len(self._pending)
        if whole:
            with memoryview(self._pending) as pending:
                for place in range(0, whole, WINDOW):
                    self._compare(bytes(pending[place : min(whole, place + WINDOW)]))
            del self._pending[:whole]

    def stand_in(self) -> bytes:
        """What tar is to unpack instead of the file's content."""
        self._log(RUN.pack(0, 0))
        self.close()
        return self._secret + PLACE.pack(self._entry)

    def fill(self, tree: Path) -> None:
        """Give every file below `tree` that holds a stand-in its content, and leave all else of it as it is.

        :raises PreviousGoneError: the previous tree is not there any more
        :raises OSError: the pool is full, or broken
        """
        self._journal.flush()
        for _, _, names, folder in os.fwalk(tree):
            for name in names:
                found = os.stat(name, dir_fd=folder, follow_symlinks=False)
                if stat.S_ISREG(found.st_mode) and found.st_size == STAND_IN:
                    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
                    descriptor = os.open(name, flags, dir_fd=folder)
                    try:
                        self._fill_one(descriptor)
                    finally:
                        os.close(descriptor)

    def _fill_one(self, file: int) -> None:
        before = os.fstat(file)
        held = os.pread(file, STAND_IN, 0)
        if held[:SECRET] != self._secret:
            return
        with _kept(file, before):
            (place,) = PLACE.unpack(held[SECRET:])
            length, size = ENTRY.unpack(self._read(place, ENTRY.size))
            place += ENTRY.size
            path = os.fsdecode(self._read(place, length))
            runs = list(self._runs(place + length))
            os.ftruncate(file, 0)
            if sum(length for _, length, _ in runs) < size:
                self._share(path, file, size)
            for start, length, journalled in runs:
                self._copy(file, start, length, journalled)
            os.ftruncate(file, size)

    def _runs(self, place: int) -> Iterator[tuple[int, int, int]]:
        """Where in the file, how long, and where in the journal is what differs."""
        while True:
            start, length = RUN.unpack(self._read(place, RUN.size))
            place += RUN.size
            if not length:
                return
            yield start, length, place
            place += length

    def _share(self, path: str, file: int, size: int) -> None:
        try:
            old = self._open(path)
        except OSError as exc:
            raise PreviousGoneError(path) from exc
        try:
            fcntl.ioctl(file, CLONE, old)
        except OSError as exc:
            if exc.errno not in UNCLONABLE:
                raise
            _copy_all(old, file, size)
        finally:
            os.close(old)

    def _copy(self, file: int, start: int, length: int, journalled: int) -> None:
        while length:
            piece = self._read(journalled, min(length, WINDOW))
            _write(file, piece, start)
            start, journalled, length = start + len(piece), journalled + len(piece), length - len(piece)

    def _compare(self, new: bytes) -> None:
        """Journal the blocks that differ. What cannot be read any more differs."""
        old = b""
        with suppress(OSError):
            old = os.pread(self._old, len(new), self._compared)
        if new != old:
            for begin, end in _differing(new, old):
                self._log(RUN.pack(self._compared + begin, end - begin), new[begin:end])
                self.written += end - begin
        self._compared += len(new)

    def _open(self, path: str) -> int:
        """The regular file of the previous tree that is called so.

        :raises OSError: there is none
        """
        descriptor = openat.open_below(self._top, path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), path)
        return descriptor

    def _log(self, *pieces: bytes | memoryview) -> None:
        for piece in pieces:
            self._journal.write(piece)
            self._end += len(piece)

    def _read(self, place: int, length: int) -> bytes:
        piece = os.pread(self._journal.fileno(), length, place)
        if len(piece) != length:
            raise OSError(errno.EIO, os.strerror(errno.EIO), "journal of an import")
        return piece


def _differing(new: bytes, old: bytes) -> Iterator[tuple[int, int]]:
    """The runs of blocks of `new` that are not in `old` at the same place."""
    begin: int | None = None
    for place in range(0, len(new), BLOCK):
        if new[place : place + BLOCK] == old[place : place + BLOCK]:
            if begin is not None:
                yield begin, place
            begin = None
        elif begin is None:
            begin = place
    if begin is not None:
        yield begin, len(new)


@contextmanager
def _kept(file: int, before: os.stat_result) -> Iterator[None]:
    """Let what a write takes from a file or changes of it be as before: capability, mode and times."""
    capability: bytes | None = None
    with suppress(OSError):
        capability = os.getxattr(file, CAPABILITY)
    yield
    if os.fstat(file).st_mode != before.st_mode:
        os.fchmod(file, stat.S_IMODE(before.st_mode))
    if capability is not None:
        os.setxattr(file, CAPABILITY, capability)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def _copy_all(old: int, file: int, size: int) -> None:
    place = 0
    while place < size and (piece := os.pread(old, min(WINDOW, size - place), place)):
        _write(file, piece, place)
        place += len(piece)


def _write(file: int, piece: bytes, place: int) -> None:
    view = memoryview(piece)
    while view:
        written = os.pwrite(file, view, place)
        view, place = view[written:], place + written
