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
from contextlib import suppress
from pathlib import Path

from appliance import proc
from appliance.errors import BackendError, ImageError
from appliance.runtime import lxc_config

DETACH = """
exec 9<&0
log=$1; shift
unshare --mount --propagation slave --fork --kill-child=KILL "$@" </dev/null >>"$log" 2>&1 &
echo $!
"""
MONITOR = """
exec 9<&-
mounts=$1; shift
umask 022
ulimit -S -n 1024
mount --all --fstab "$mounts" && exec "$@"
"""

EXEC_FAILED = "Failed to exec"
LXC_ERROR = re.compile(r" ERROR .*? - \S+\.c:\w+:\d+ - (.*)")


async def launch(container: str, *, lock: int, folder: Path) -> int:
    """Start the keeper and its monitor, detached; the keeper's number.

    In `folder` are the container's `config`, and its `view` as `mounts`.
    """
    start_log, mounts = folder / "start.log", folder / "mounts"
    guest = ("lxc-start", "-F", "-n", container, "-P", lxc_config.VIEW, "-f", folder / "config")
    logging = ("-o", folder / "lxc.log", "-l", "WARN")
    monitor = ("sh", "-c", MONITOR, "sh", mounts, *guest, *logging)
    started = await proc.run(["sh", "-c", DETACH, "sh", start_log, *monitor], stdin=lock)
    try:
        return int(started.stdout)
    except ValueError as exc:
        raise BackendError(f"the keeper of {container} did not start: {started.stderr.decode()!r}") from exc


def view(root: Path, home: Path) -> str:
    """What a monitor sees of its guest, as fstab(5) writes it: one program mounts all of it."""
    closed = "X-mount.mkdir,nosuid,nodev,noexec"
    mounts = (
        ("qvd", lxc_config.VIEW, "tmpfs", "mode=711,size=64k"),
        ("proc", lxc_config.VIEW / "proc", "proc", closed),
        ("sysfs", lxc_config.VIEW / "sys", "sysfs", closed),
        (root, lxc_config.ROOT_VIEW, "none", "bind,X-mount.mkdir"),
        (home, lxc_config.HOME_VIEW, "none", "bind,X-mount.mkdir"),
    )
    return "".join(f"{_field(what)} {where} {kind} {options} 0 0\n" for what, where, kind, options in mounts)


def _field(what: str | Path) -> str:
    return re.sub(r"[\s\\#]", lambda letter: f"\\{ord(letter[0]):03o}", str(what))


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
