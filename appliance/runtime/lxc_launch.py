"""Starts a container so that it outlives us and that never two inits run on one root.

The lock of a root is an flock(2) that passes from the daemon, which takes it before it touches anything,
to the keeper: an unshare(1) that holds it for as long as its child, the monitor, lives. The monitor itself
cannot hold it, because `lxc-start -F` lets the guest's init inherit its descriptors. If the keeper
is killed, the monitor dies with it (PR_SET_PDEATHSIG), and init with the monitor.

The monitor runs in a mount namespace of its own, where `lxc_config.VIEW` shows this guest's root and
home and nothing else. So the guest's mapped root needs no permission on any directory that leads to
the pool, whose parent is closed to everybody, and the mounts vanish with the monitor. Beside them are
a /proc and a /sys: the kernel lets a guest mount its own only where whole ones are seen, and those of
a sandboxed daemon are covered in part. What else a guest would inherit of a service is put back here:
the mask of new files, and how many files a process may open unless it asks for more.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from appliance import mounts, proc
from appliance.errors import BackendError, ImageError
from appliance.mounts import Mount
from appliance.runtime import lxc_config

DETACH = """
exec 9<&0 8>>"$1"; shift
umask 022
ulimit -S -n 1024
unshare --fork --kill-child=KILL "$@" </dev/null >&8 2>&8 8>&- &
echo $!
"""
EXEC_FAILED = "Failed to exec"
LXC_ERROR = re.compile(r" ERROR .*? - \S+\.c:\w+:\d+ - (.*)")


async def launch(container: str, view: Sequence[Mount], *, lock: int, folder: Path) -> int:
    """Start the keeper and its monitor, detached; the keeper's number.

    In `folder` is the container's `config`; `view` is what its monitor sees of the pool.

    :raises BackendError: the view cannot be made, or the keeper does not start
    """
    monitor = ("lxc-start", "-F", "--close-all-fds", "-n", container, "-P", lxc_config.VIEW)
    files = ("-f", folder / "config", "-o", folder / "lxc.log", "-l", "WARN")
    detached = ("sh", "-c", DETACH, "sh", folder / "start.log", *monitor, *files)
    try:
        started = await proc.run(detached, stdin=lock, first=partial(mounts.enter_view, view))
        return int(started.stdout)
    except OSError as exc:
        raise BackendError(f"what {container} is to see cannot be mounted: {exc}") from exc
    except ValueError as exc:
        raise BackendError(f"the keeper of {container} did not start: {started.stderr.decode()!r}") from exc


def view(root: Path, home: Path) -> tuple[Mount, ...]:
    """What a monitor sees of its guest."""
    closed = mounts.NOSUID | mounts.NODEV | mounts.NOEXEC
    return (
        Mount("qvd", lxc_config.VIEW, "tmpfs", options="mode=711,size=64k"),
        Mount("proc", lxc_config.VIEW / "proc", "proc", closed),
        Mount("sysfs", lxc_config.VIEW / "sys", "sysfs", closed),
        Mount(root, lxc_config.ROOT_VIEW, flags=mounts.BIND),
        Mount(home, lxc_config.HOME_VIEW, flags=mounts.BIND),
    )


def failure(container: str, folder: Path) -> BackendError | ImageError:
    """Why the last start failed, as its logs tell it, in one line; and whose fault it is.

    LXC complains of whatever it cannot do. If it says nothing, it has started an init, which ended.
    """
    errors = LXC_ERROR.findall(_text(folder / "lxc.log"))
    said = errors or _text(folder / "start.log").splitlines()
    if errors and EXEC_FAILED in errors[0]:
        return ImageError(f"the init of the image cannot be executed: {errors[0]}")
    if said:
        return BackendError(f"{container} did not start: {said[0]}")
    if not (folder / "lxc.log").exists():
        return BackendError(f"{container} did not start: LXC gave no reason")
    return ended_at_once()


def ended_at_once() -> ImageError:
    """What is to be said of an init that was started and is gone before anything could be seen of it."""
    return ImageError("the init of the image ended at once", hint="the console's last lines may tell why")


def _text(log: Path) -> str:
    with suppress(OSError):
        return log.read_text(errors="replace")
    return ""
