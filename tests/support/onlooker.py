"""What a host really has of an installation, by the kernel and the disks, not by the product's own eyes."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Guest:
    """The living processes of one VM's containers: of each kind, there should be one."""

    inits: tuple[int, ...] = ()
    monitors: tuple[int, ...] = ()


def guests(installation: str) -> dict[int, Guest]:
    """By VM, every init and every monitor that runs for the installation."""
    inits: dict[int, list[int]] = {}
    monitors: dict[int, list[int]] = {}
    payload = re.compile(rf"/lxc\.payload\.qvd-{installation}-(\d+)(?:-\d+)?(?:/|$)", re.MULTILINE)
    container = re.compile(rf"qvd-{installation}-(\d+)")
    for pid in pids():
        with suppress(OSError):
            words = (PROC / str(pid) / "cmdline").read_text(errors="replace").split("\0")
            if words[0] == "lxc-start" and "-n" in words:
                if named := container.fullmatch(words[words.index("-n") + 1]):
                    monitors.setdefault(int(named[1]), []).append(pid)
            elif _is_first(pid) and (group := payload.search((PROC / str(pid) / "cgroup").read_text())):
                inits.setdefault(int(group[1]), []).append(pid)
    return {
        vm_id: Guest(tuple(inits.get(vm_id, ())), tuple(monitors.get(vm_id, ())))
        for vm_id in inits.keys() | monitors.keys()
    }


def _is_first(pid: int) -> bool:
    """Whether a process is number 1 of a namespace below ours, and alive."""
    status = (PROC / str(pid) / "status").read_text(errors="replace")
    numbers = re.search(r"^NSpid:\s*(.*)$", status, re.MULTILINE)
    return numbers is not None and numbers[1].split()[1:] == ["1"] and "\nState:\tZ" not in status


def pids() -> Iterator[int]:
    """Every process."""
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            yield int(entry.name)


def root_of(pid: int) -> int | None:
    """A number for the file system that a process has as its root: each subvolume has its own."""
    with suppress(OSError):
        return (PROC / str(pid) / "root").stat().st_dev
    return None


def parents(pid: int) -> list[int]:
    """The ancestors of a process, from its parent on."""
    found = []
    with suppress(OSError, IndexError):
        while pid > 1:
            pid = int((PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()[1])
            found.append(pid)
    return found


def command(pid: int) -> str:
    """A process's command line, shortened."""
    with suppress(OSError):
        return (PROC / str(pid) / "cmdline").read_text(errors="replace").replace("\0", " ").strip()[:120]
    return "(ended)"


def groups(installation: str) -> dict[int, list[str]]:
    """By VM, the control groups of its containers."""
    ours = re.compile(rf"lxc\.(?:payload|monitor)\.qvd-{installation}-(\d+)(-\d+)?")
    found: dict[int, list[str]] = {}
    places = [CGROUPS, *(path for path in CGROUPS.iterdir() if path.is_dir() and not path.is_symlink())]
    for place in places:
        for group in place.iterdir():
            if match := ours.fullmatch(group.name):
                found.setdefault(int(match[1]), []).append(str(group.relative_to(CGROUPS)))
    return found


def links() -> set[str]:
    """The links of the network namespace that we are in."""
    return {name for _, name in socket.if_nameindex()}


def fenced() -> set[str]:
    """The links that the packet filter of this namespace names in its sets."""
    listed = json.loads(_output("nft", "-j", "list", "ruleset") or '{"nftables": []}')["nftables"]
    sets = [entry["set"] for entry in listed if "set" in entry]
    return {
        word for element in sets for word in _words(element.get("elem", [])) if re.fullmatch(r"qvd\d+", word)
    }


def _words(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _words(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _words(inner)


def mounts(directory: Path) -> set[str]:
    """The mount points at or below a directory, seen from here, each with what is mounted."""
    lines = [line.split() for line in (PROC / "self" / "mountinfo").read_text().splitlines()]
    return {
        f"{line[3]} at {line[4]}"
        for line in lines
        if Path(line[4]).is_relative_to(directory) or str(directory) in line[3]
    }


def loops() -> set[str]:
    """Every loop device with its file."""
    rows = json.loads(_output("losetup", "--list", "--json") or '{"loopdevices": []}')["loopdevices"]
    return {f"{row['name']} on {row['back-file']}" for row in rows}


def subvolumes(pool: Path) -> set[Path]:
    """Every subvolume of the file system mounted at `pool`, however deep."""
    lines = _output("btrfs", "subvolume", "list", str(pool)).splitlines()
    return {pool / line.split(" path ", 1)[1] for line in lines}


def files(directory: Path) -> set[Path]:
    """What lies directly in a directory."""
    return set(directory.iterdir()) if directory.is_dir() else set()


def holders(directory: Path, mark: str) -> dict[int, str]:
    """Processes whose environment says by `mark` that they were started for `directory`; what they run."""
    needle = f"{mark}={directory}".encode()
    found = {}
    for pid in pids():
        with suppress(OSError):
            if needle in (PROC / str(pid) / "environ").read_bytes().split(b"\0") and pid != os.getpid():
                found[pid] = command(pid)
    return found


def answers(address: str, port: int, limit_s: float = 5.0) -> bool:
    """Whether a VMA answers a ping, asked from the network namespace that we are in."""
    with suppress(OSError), socket.create_connection((address, port), timeout=limit_s) as call:
        call.sendall(b"GET /vma/ping HTTP/1.1\r\nUser-Agent: onlooker\r\n\r\n")
        return b" 200 " in call.recv(4096)
    return False


def _output(*words: str) -> str:
    return subprocess.run(words, capture_output=True, text=True, check=True, timeout=60).stdout
