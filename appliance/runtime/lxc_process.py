"""Finds guests by their processes in /proc, whatever network namespace or tool started them.

A guest is three processes: the *keeper*, which holds the lock of the root (see lxc_launch), its child
the *monitor* (`lxc-start -F -n NAME …`), and its child the guest's *init*. A guest may write what it
likes into its own command lines, so only root's processes in our own pid namespace count as monitors;
and a user of this host into those of programs that become root by themselves, such as su, so those do not.
A guest may also make its own unreadable.
"""

from __future__ import annotations

import re
import stat
from contextlib import suppress
from dataclasses import dataclass

from appliance.model import InstallationId, VmId
from appliance.runtime import lxc_config
from appliance.runtime.processes import PROC, children, pids
from appliance.runtime.processes import command as command
from appliance.runtime.processes import parent as parent
from appliance.runtime.processes import program as program
from appliance.runtime.processes import started as started

KEEPERS = (["unshare"], ["sh"])
"""What keepers are called. A shell is one of an appliance of before an upgrade, or not a monitor yet."""


@dataclass(frozen=True, slots=True)
class Found:
    """The processes of one guest; those that are gone are None."""

    container: str
    keeper: int | None
    monitor: int | None
    init: int | None

    @property
    def pids(self) -> list[int]:
        """Those that are there."""
        return [pid for pid in (self.init, self.monitor, self.keeper) if pid is not None]


def find_all(installation: InstallationId) -> dict[VmId, Found]:
    """Every guest of the installation of which a process is left."""
    found: dict[VmId, Found] = {}
    keepers: dict[VmId, int] = {}
    for pid in pids():
        words = command(pid)
        if not words and program(pid) is None:
            continue  # the kernel's own, or about to be gone
        if words[:1] == ["lxc-start"] and (vm_id := _named(installation, words)) and _is_ours(pid):
            found[vm_id] = of_monitor(pid, words[words.index("-n") + 1])
        elif words[:1] in KEEPERS and (vm_id := _named(installation, words)) and _is_ours(pid):
            keepers[vm_id] = pid
        elif orphan := _orphan(installation, pid):
            found.setdefault(orphan, Found(lxc_config.name(installation, orphan), None, None, pid))
    for vm_id, keeper in keepers.items():
        found.setdefault(vm_id, Found(lxc_config.name(installation, vm_id), keeper, None, None))
    return found


def of_monitor(monitor: int, container: str) -> Found:
    """The guest of a monitor whose number is known."""
    keeper = parent(monitor)
    if keeper is not None and command(keeper)[:1] not in KEEPERS:
        keeper = None
    return Found(container, keeper, monitor, init_of(monitor))


def init_of(monitor: int) -> int | None:
    """The living init process that a monitor started."""
    for child in children(monitor):
        if started(child) is not None and _inner_pids(child)[-1:] == ["1"]:
            return child
    return None


def _named(installation: InstallationId, words: list[str]) -> VmId | None:
    if "lxc-start" not in words or "-n" not in words[:-1]:
        return None
    return lxc_config.vm_of(installation, words[words.index("-n") + 1])


def _is_ours(pid: int) -> bool:
    with suppress(OSError):
        where = PROC / str(pid)
        own = (PROC / "self" / "ns" / "pid").stat()
        at_home = (where / "ns" / "pid").stat().st_ino == own.st_ino
        return where.stat().st_uid == 0 and at_home and not (where / "exe").stat().st_mode & stat.S_ISUID
    return False


def _orphan(installation: InstallationId, pid: int) -> VmId | None:
    """The VM whose init this is. An init whose guest wants it to can survive its monitor."""
    inner = _inner_pids(pid)
    if len(inner) != 2 or inner[-1] != "1":
        return None
    with suppress(OSError):
        groups = (PROC / str(pid) / "cgroup").read_text()
        payload = rf"/lxc\.payload\.(qvd-{re.escape(installation)}-[0-9]+)(?:-[0-9]+)?(?:/|$)"
        if match := re.search(payload, groups, re.MULTILINE):
            return lxc_config.vm_of(installation, match[1])
    return None


def _inner_pids(pid: int) -> list[str]:
    """A process's numbers, from our pid namespace down to its own."""
    with suppress(OSError):
        for line in (PROC / str(pid) / "status").read_text(errors="replace").splitlines():
            if line.startswith("NSpid:"):
                return line.split()[1:]
    return []
