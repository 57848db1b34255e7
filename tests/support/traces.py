"""What a guest leaves on a host, so that a test can say that nothing is left."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")


def traces(word: str) -> list[str]:
    """Processes, control groups, mounts and links of this namespace in whose name `word` occurs."""
    return sorted((*_processes(word), *_groups(word), *_mounts(word), *_links(word)))


def _processes(word: str) -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                group = (entry / "cgroup").read_text()
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            if state != "Z" and (word in command or word in group):
                found.append(f"process {entry.name}: {command}")
    return found


def _groups(word: str) -> list[str]:
    places = (f"*{word}*", f"*/*{word}*", f"*/machine/*{word}*")
    return [f"cgroup {path}" for place in places for path in CGROUPS.glob(place)]


def _mounts(word: str) -> list[str]:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [f"mount {line}" for line in lines if word in line]


def _links(word: str) -> list[str]:
    shown = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout
    return [f"link {line}" for line in shown.splitlines() if f" {word}" in line]
