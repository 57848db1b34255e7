"""Opens files below a directory that somebody else wrote, without ever leaving it.

A guest's root is the guest's: any part of a path in it may be a symbolic link to wherever. Everything
here resolves as if that directory were `/` (openat2(2), RESOLVE_IN_ROOT) and never goes through /proc.
"""

from __future__ import annotations

import ctypes
import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

SYS_OPENAT2 = 437
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_IN_ROOT = 0x10
ATTEMPTS = 1000
READ_MOST = 1 << 16

_libc = ctypes.CDLL(None, use_errno=True)


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


@contextmanager
def opened(root: Path, inside: str, flags: int) -> Iterator[int]:
    """A descriptor of the path `inside` as seen with `root` as `/`, closed at the end.

    :raises OSError: as open(2)
    """
    top = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        descriptor = open_below(top, inside, flags)
    finally:
        os.close(top)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def open_below(top: int, inside: str, flags: int) -> int:
    """A descriptor of the path `inside` as seen with the open directory `top` as `/`.

    :raises OSError: as open(2)
    """
    return _openat2(top, inside, flags | os.O_CLOEXEC)


def resolved(root: Path, inside: str) -> Path:
    """Where the path `inside` leads once all links are followed, as a path on the host.

    :raises OSError: it leads nowhere
    """
    with opened(root, inside, os.O_PATH) as descriptor:
        return Path(f"/proc/self/fd/{descriptor}").readlink()


def read_text(root: Path, inside: str) -> str:
    """The first 64 KiB of a regular file; empty if there is nothing.

    :raises OSError: it is something else, or cannot be read
    """
    try:
        with opened(root, inside, os.O_RDONLY | os.O_NONBLOCK) as descriptor:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise OSError(errno.EINVAL, "not a regular file", inside)
            return os.read(descriptor, READ_MOST).decode(errors="replace")
    except FileNotFoundError:
        return ""


def check_directory(root: Path, inside: str) -> None:
    """Whether a path leads to a directory, or to nothing at all.

    :raises OSError: it leads to something else, or around in a circle
    """
    with suppress(FileNotFoundError), opened(root, inside, os.O_PATH | os.O_DIRECTORY):
        pass


def write_text(root: Path, directory: str, name: str, text: str) -> None:
    """Put a file of root's with this text in place of whatever `directory`/`name` is, a link included.

    :raises OSError: there is no such directory, or `name` is one
    """
    fresh = f".{name}.{secrets.token_hex(8)}"
    with opened(root, directory, os.O_PATH | os.O_DIRECTORY) as folder:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(fresh, flags, 0o644, dir_fd=folder)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
                os.fchmod(stream.fileno(), 0o644)
                stream.write(text)
            os.rename(fresh, name, src_dir_fd=folder, dst_dir_fd=folder)
        except OSError:
            os.unlink(fresh, dir_fd=folder)
            raise


def _openat2(top: int, inside: str, flags: int) -> int:
    """openat2(2); asks again for as long as a rename elsewhere keeps the kernel from being sure."""
    how = _OpenHow(flags, 0, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)
    path, number = os.fsencode(inside), errno.EAGAIN
    for _ in range(ATTEMPTS):
        descriptor = int(_libc.syscall(SYS_OPENAT2, top, path, ctypes.byref(how), ctypes.sizeof(how)))
        if descriptor >= 0:
            return descriptor
        number = ctypes.get_errno()
        if number != errno.EAGAIN:
            break
    raise OSError(number, os.strerror(number), inside)
