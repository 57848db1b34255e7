"""Reads files of a container from its disk, on the host: as the guest would find them, without its help.

A guest's root and home are the guest's, and it may change any part of a path while that is walked. So a
path is walked by us, name by name: each is opened in the directory before it and never followed, a link is
read and its words are walked in turn, and `..` goes back the way that we came. What is reached that way
lies in the root or the home, whatever the guest does. openat2(2) would walk it in one call, but not from
the root into the home, which hides what the root has at /home; the rest of what a guest mounts is in memory.
Only regular files are read, and none is waited for.
"""

from __future__ import annotations

import errno
import heapq
import os
import stat
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

from appliance.errors import ConflictError, NotFoundError

MOST_BYTES = 1 << 20
"""Bytes of a file that are read at most, from its end."""
IN_MEMORY = frozenset({"dev", "proc", "run", "sys", "tmp"})
HOME = "home"
MOST_LINKS = 40
MOST_DEPTH = 256
LOGS = "/var/log"
LOGS_DEPTH = 4
MOST_LOGS = 5000
MOST_ENTRIES = 200_000
"""Entries of any kind that are looked at to find these."""
LATEST = datetime(9999, 1, 1, tzinfo=UTC).timestamp()
PACKED = (".gz", ".xz", ".bz2", ".zst", ".journal", ".journal~")
STEP = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
FOLDER = os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC
KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


@dataclass(frozen=True, slots=True)
class Tail:
    """The end of a file."""

    data: bytes
    size: int
    """Bytes of the whole file."""
    modified: datetime
    is_whole: bool
    is_in_home: bool
    """Whether it is a file of the user's own."""


@dataclass(frozen=True, slots=True)
class LogFile:
    """A file below /var/log."""

    path: str
    size: int
    """Bytes."""
    modified: datetime


class NoPlaceError(FileNotFoundError):
    """The guest has no root here, or no home: `what` says which."""

    def __init__(self, what: str, path: Path) -> None:
        super().__init__(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        self.what = what


class GuestFiles:
    """The files of the guest that has, or had, the directory `root` for `/` and `home` for `/home`."""

    def __init__(self, root: Path, home: Path) -> None:
        self._root = root
        self._home = home

    def tail(self, path: str, lines: int | None = None, *, most: int = MOST_BYTES) -> Tail:
        """The last lines of a file, or all, and never more than `most` bytes.

        :raises ConflictError: it is no regular file
        :raises NotFoundError: it is in the guest's memory
        :raises NoPlaceError: there is no root, or no home, to look for it in
        :raises OSError: it is not there, or cannot be read
        """
        with self._found(path) as (folder, name, is_in_home):
            _check_regular(os.stat(name, dir_fd=folder, follow_symlinks=False), path)
            descriptor = os.open(name, READ, dir_fd=folder)
            try:
                found = os.fstat(descriptor)
                _check_regular(found, path)
                data = _end(descriptor, found.st_size, most)
            finally:
                os.close(descriptor)
        shown = data if lines is None else last_lines(data, lines)
        return Tail(shown, found.st_size, _time(found), len(shown) >= found.st_size, is_in_home)

    def logs(self) -> tuple[list[LogFile], bool]:
        """The regular files below /var/log, the newest first, and whether these are all.

        :raises NoPlaceError: there is no root, or no home, to look for them in
        :raises OSError: there is no such directory, or it cannot be read
        """
        with self._found(LOGS) as (folder, name, _):
            top = os.open(name, FOLDER, dir_fd=folder)
        with closing(_entries(top, LOGS, LOGS_DEPTH)) as entries:
            files = (file for file in islice(entries, MOST_ENTRIES) if file is not None)
            found = heapq.nsmallest(MOST_LOGS + 1, files, key=_newest_first)
            is_whole = len(found) <= MOST_LOGS and not any(True for _ in entries)
        return found[:MOST_LOGS], is_whole

    @contextmanager
    def _found(self, path: str) -> Iterator[tuple[int, str, bool]]:
        """The open directory in which a path ends, the name in it, and whether that is in the home."""
        way = _Way(self._root, self._home)
        ahead, links = path.split("/")[::-1], 0
        try:
            while ahead:
                name = ahead.pop()
                if name in ("", ".", ".."):
                    if name == "..":
                        way.back()
                    continue
                found = way.look(name)
                if isinstance(found, str):
                    links += 1
                    if links > MOST_LINKS:
                        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
                    if found.startswith("/"):
                        way.to_top()
                    ahead += found.split("/")[::-1]
                elif not found:
                    if any(ahead):
                        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
                    yield way.here, name, way.is_in_home
                    return
            yield way.here, ".", way.is_in_home
        finally:
            way.close()


class _Way:
    """The way into a guest's files: the directories gone through, each open, the last one `here`."""

    def __init__(self, root: Path, home: Path) -> None:
        self._root = root
        self._home = home
        self._top = -1
        self._gone: list[int] = []
        self.is_in_home = False

    @property
    def here(self) -> int:
        """Where we are."""
        if self._gone:
            return self._gone[-1]
        if self._top < 0:
            self._top = _place("root", self._root)
        return self._top

    def look(self, name: str) -> bool | str:
        """Go into the directory `name`; if it is a link, what stands in it; False if it is something else.

        :raises NotFoundError: it is in the guest's memory
        """
        if not self._gone and name == HOME:
            self._gone.append(_place("home", self._home))
            self.is_in_home = True
            return True
        if not self._gone and name in IN_MEMORY:
            raise NotFoundError(
                f"/{name} is in the guest's memory, and not on its disk", hint="use qa vm ssh"
            )
        if len(self._gone) > MOST_DEPTH:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), name)
        found = os.open(name, STEP, dir_fd=self.here)
        mode = os.fstat(found).st_mode
        if stat.S_ISDIR(mode):
            self._gone.append(found)
            return True
        try:
            return os.readlink("", dir_fd=found) if stat.S_ISLNK(mode) else False
        finally:
            os.close(found)

    def back(self) -> None:
        """Go back by one directory; from the top there is no way back."""
        if self._gone:
            os.close(self._gone.pop())
        self.is_in_home = self.is_in_home and bool(self._gone)

    def to_top(self) -> None:
        """Go back to the top."""
        while self._gone:
            self.back()

    def close(self) -> None:
        """Leave."""
        self.to_top()
        if self._top >= 0:
            os.close(self._top)


def last_lines(data: bytes, lines: int) -> bytes:
    """The last lines of what was read; the last of all may lack its end."""
    place = len(data) - data.endswith(b"\n")
    for _ in range(lines):
        place = data.rfind(b"\n", 0, place)
        if place < 0:
            return data
    return data[place + 1 :]


def is_packed(file: LogFile) -> bool:
    """Whether a log is, by its name, none that people read as it is."""
    return file.path.endswith(PACKED)


def is_text(data: bytes) -> bool:
    """Whether this, of a log, is what people can read: not binary."""
    return b"\0" not in data


def _end(descriptor: int, size: int, most: int) -> bytes:
    """The last bytes of a file; of a line that does not begin among them, nothing if another follows."""
    start = max(0, size - most)
    before = min(start, 1)  # one byte more, to see whether a line begins at `start`
    pieces: list[bytes] = []
    place = start - before
    while place < size and (piece := os.pread(descriptor, size - place, place)):
        pieces.append(piece)
        place += len(piece)
    data = b"".join(pieces)
    cut = data.find(b"\n") + 1 if before else 0
    return data[max(cut, before) :] or data[before:]


def _place(what: str, path: Path) -> int:
    try:
        return os.open(path, FOLDER)
    except FileNotFoundError as exc:
        raise NoPlaceError(what, path) from exc


def _newest_first(file: LogFile) -> tuple[float, str]:
    return -file.modified.timestamp(), file.path


def _entries(top: int, path: str, depth: int) -> Generator[LogFile | None, None, None]:
    """The entries of an open directory, closed at the end, and of those below it; None for all but files."""
    try:
        with os.scandir(top) as entries:
            for entry in entries:
                file, inside = None, f"{path}/{entry.name}"
                with suppress(OSError):
                    found = entry.stat(follow_symlinks=False)
                    if stat.S_ISREG(found.st_mode):
                        file = LogFile(inside, found.st_size, _time(found))
                    elif stat.S_ISDIR(found.st_mode) and depth > 1:
                        yield from _entries(os.open(entry.name, FOLDER, dir_fd=top), inside, depth - 1)
                yield file
    finally:
        os.close(top)


def _check_regular(found: os.stat_result, path: str) -> None:
    if not stat.S_ISREG(found.st_mode):
        kind = KINDS.get(stat.S_IFMT(found.st_mode), "no file")
        raise ConflictError(f"{path} is {kind}, and only regular files are shown")


def _time(found: os.stat_result) -> datetime:
    """When a file was changed, as the guest wants us to believe."""
    return datetime.fromtimestamp(min(max(found.st_mtime, 0), LATEST), UTC)
