"""What a host really has of virtual machines, by the kernel, the files and libvirtd's own list."""

from __future__ import annotations

import os
import re
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.support.onlooker import CGROUPS, PROC, pids


@dataclass(frozen=True, slots=True)
class Qemu:
    """A living QEMU."""

    pid: int
    uuid: str
    """Of the VM, as it was started for."""
    writes: frozenset[Path]
    """The disk images that it may write to."""


def qemus(installation: str) -> dict[int, tuple[Qemu, ...]]:
    """By VM, every QEMU that runs for the installation: there should be one."""
    found: dict[int, list[Qemu]] = {}
    for pid in pids():
        with suppress(OSError, ValueError, IndexError):
            words = (PROC / str(pid) / "cmdline").read_text(errors="replace").split("\0")
            if not Path(words[0]).name.startswith("qemu-system-") or "-name" not in words:
                continue
            named = re.match(rf"(?:guest=)?qvd-{installation}-(\d+)(?:,|$)", words[words.index("-name") + 1])
            if named and "\nState:\tZ" not in (PROC / str(pid) / "status").read_text(errors="replace"):
                uuid = words[words.index("-uuid") + 1] if "-uuid" in words else ""
                found.setdefault(int(named[1]), []).append(Qemu(pid, uuid, frozenset(_written(pid))))
    return {vm_id: tuple(qemus) for vm_id, qemus in found.items()}


def _written(pid: int) -> set[Path]:
    """The disk images that a process has open to write."""
    found = set()
    for link in (PROC / str(pid) / "fd").iterdir():
        with suppress(OSError):
            target = link.readlink()
            if ".qcow2" in target.name or target.suffix == ".img":
                info = (PROC / str(pid) / "fdinfo" / link.name).read_text()
                flags = re.search(r"^flags:\s*([0-7]+)", info, re.MULTILINE)
                if flags and int(flags[1], 8) & os.O_ACCMODE != os.O_RDONLY:
                    found.add(target)
    return found


def domains(uri: str, installation: str) -> set[int]:
    """The VMs of which a libvirtd has a domain, in whatever state."""
    words = ["virsh", "--quiet", "--connect", uri, "list", "--all", "--name"]
    listed = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60).stdout
    named = (re.fullmatch(rf"qvd-{installation}-(\d+)", line.strip()) for line in listed.splitlines())
    return {int(match[1]) for match in named if match}


def groups(installation: str) -> dict[int, list[str]]:
    """By VM, the control groups of its QEMUs."""
    ours = re.compile(rf"qemu-\d+-qvd-{installation}-(\d+)\.libvirt-qemu")
    found: dict[int, list[str]] = {}
    for place in (CGROUPS / "machine", *CGROUPS.glob("*/machine")):
        for group in place.iterdir() if place.is_dir() else ():
            if match := ours.fullmatch(group.name):
                found.setdefault(int(match[1]), []).append(str(group.relative_to(CGROUPS)))
    return found


def told_addresses(run: Path) -> set[str]:
    """The addresses in the file by which guests are told theirs."""
    hosts = run / "dhcp-hostsfile"
    lines = hosts.read_text().splitlines() if hosts.exists() else []
    return {word for line in lines for word in line.split(",") if re.fullmatch(r"\d+(\.\d+){3}", word)}
