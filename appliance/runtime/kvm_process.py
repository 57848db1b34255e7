"""Finds virtual machines by their QEMU processes in /proc, whether libvirtd is there or not.

A guest cannot write into the command line of its QEMU, but any user of this host can start a program that
has the same one. So only processes of root count, and of the user to whom the machine's sockets belong.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from appliance.model import InstallationId, VmId
from appliance.runtime import names, processes
from appliance.storage.paths import Paths

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def find_all(paths: Paths, installation: InstallationId) -> dict[VmId, int]:
    """The QEMU processes of the installation's guests."""
    found = {}
    for pid in processes.pids():
        vm_id = vm_of(installation, processes.command(pid))
        if vm_id is not None and _is_ours(paths, vm_id, pid):
            found[vm_id] = pid
    return found


def vm_of(installation: InstallationId, words: list[str]) -> VmId | None:
    """The VM for which libvirtd started a QEMU with these words."""
    guest = _after("-name", words).partition(",")[0].removeprefix("guest=")
    return names.vm_of(installation, guest)


def uuid_of(pid: int) -> str:
    """The UUID with which a QEMU was started; empty if it is gone."""
    return _after("-uuid", processes.command(pid))


def cpu_s(pid: int) -> float | None:
    """How long a process and all its threads have run; None if it is gone."""
    fields = processes.stat(pid)
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S if fields else None


def memory_bytes(pid: int) -> int | None:
    """How much memory a process holds; None if it is gone."""
    with suppress(OSError, IndexError):
        return int((processes.PROC / str(pid) / "statm").read_text().split()[1]) * PAGE_BYTES
    return None


def _is_ours(paths: Paths, vm_id: VmId, pid: int) -> bool:
    if not _is_qemu(processes.command(pid)) or processes.started(pid) is None:
        return False
    owners = {0}
    with suppress(OSError):
        owners.add(paths.sockets(vm_id).stat().st_uid)
    return processes.owner(pid) in owners


def _is_qemu(words: list[str]) -> bool:
    """By its first word: which file a process of another user executes, the kernel need not tell us."""
    return bool(words) and Path(words[0]).name.startswith("qemu-system-")


def _after(option: str, words: list[str]) -> str:
    with suppress(ValueError, IndexError):
        return words[words.index(option) + 1]
    return ""
