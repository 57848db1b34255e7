"""Files that other programs read: replaced atomically, bounded in size, and free of secrets."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from typing import Mapping, Optional


def replace(path: str, text: str, mode: int = 0o644, gid: int = -1) -> None:
    """Write aside, then rename: a reader sees the old text or the new one."""
    aside = f"{path}.{os.getpid()}"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(aside)
    fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(fd, "w", encoding="utf-8") as file:
        os.fchown(fd, -1, gid)
        os.fchmod(fd, mode)
        file.write(text)
    os.replace(aside, path)


def read(path: str, limit: int = 64 * 1024) -> str:
    """The text of a small file; nothing when there is none."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(limit)
    except OSError:
        return ""


def read_end(path: str, size: int) -> bytes:
    """The last bytes of a file; nothing when there is none."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - size))
            return file.read(size)
    except OSError:
        return b""


def remove(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


class BoundedLog:
    """A log of at most twice `limit` bytes: the file and the one before it, `.1`."""

    def __init__(self, path: str, limit: int) -> None:
        self._path, self._limit = path, limit
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)

    def write(self, data: bytes) -> None:
        """Append. A full disk costs log lines, never the session."""
        with contextlib.suppress(OSError):
            fd = self.open()
            try:
                os.write(fd, data)
            finally:
                os.close(fd)

    def open(self) -> int:
        """A descriptor for appending, to be given to a child; the file is turned over first if it is full."""
        with contextlib.suppress(FileNotFoundError):
            if os.stat(self._path).st_size > self._limit:
                os.replace(self._path, self._path + ".1")
        return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o640)


_own_log: Optional[BoundedLog] = None


def log_to(path: str, limit: int) -> None:
    """Send what `say` says to a file as well."""
    global _own_log
    _own_log = BoundedLog(path, limit)


def say(message: str) -> None:
    """One line for the administrator, on stderr (the guest's console or journal)."""
    line = "qvd-vma: " + " ".join(message.split()) + "\n"
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(line)
        sys.stderr.flush()
    if _own_log is not None:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S%z ")
        _own_log.write((stamp + line).encode("utf-8", "replace"))


def masked(params: Mapping[str, str]) -> str:
    """Parameters for a log: names all, values only where they cannot be a secret."""
    return " ".join(f"{name}={'***' if is_secret(name) else value}" for name, value in params.items())


def is_secret(name: str) -> bool:
    lower = name.lower()
    return any(word in lower for word in ("passw", "slave.key", "secret", "token"))
