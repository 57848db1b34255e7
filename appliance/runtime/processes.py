"""What /proc tells about a process. Whoever is gone is None, or has no words."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

PROC = Path("/proc")
PART_BYTES = 1 << 14


def pids() -> Iterator[int]:
    """Every process here. There are many, and a path for each would cost more than all the rest."""
    with os.scandir(PROC) as entries:
        for entry in entries:
            if entry.name.isdigit():
                yield int(entry.name)


def children(pid: int) -> list[int]:
    """The child processes of a single-threaded process."""
    with suppress(OSError):
        return [int(word) for word in (PROC / str(pid) / "task" / str(pid) / "children").read_text().split()]
    return []


def parent(pid: int) -> int | None:
    """The parent of a process; None if there is no such process."""
    fields = stat(pid)
    return int(fields[1]) if fields else None


def started(pid: int) -> int | None:
    """When a process started, in clock ticks since boot (proc(5), field 22)."""
    fields = stat(pid)
    return int(fields[19]) if fields else None


def owner(pid: int) -> int | None:
    """Whose process it is."""
    with suppress(OSError):
        return (PROC / str(pid)).stat().st_uid
    return None


def program(pid: int) -> str | None:
    """The name of the file that a process executes, links resolved; None if it is gone."""
    with suppress(OSError):
        return (PROC / str(pid) / "exe").readlink().name
    return None


def command(pid: int) -> list[str]:
    """The words of a process's command line; empty if it has none or is gone."""
    try:
        descriptor = os.open(f"{PROC}/{pid}/cmdline", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return []
    try:
        words = b"".join(iter(lambda: os.read(descriptor, PART_BYTES), b""))
    except OSError:
        return []
    finally:
        os.close(descriptor)
    return words.decode(errors="replace").split("\0")[:-1]


def stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat after the name; empty if the process is gone or a zombie."""
    with suppress(OSError):
        fields = (PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
        return [] if fields[0] in "ZX" else fields
    return []
