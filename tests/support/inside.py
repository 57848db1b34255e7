"""Inside a running guest, as its root or as one of its users."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.support.desktop import Desk, Init


@dataclass(frozen=True, slots=True)
class Identity:
    """By what the network knows a guest."""

    host_name: str
    address: str
    mac: str


def root(init: Init) -> Path:
    """The guest's root, to look at; who would write there from outside has no id that its mounts know."""
    return Path(f"/proc/{init.pid}/root")


def inside(init: Init, *words: str, uid: int = 0, gid: int | None = None) -> str:
    """Run a program in the guest; what it prints."""
    group = uid if gid is None else gid
    done = attempt(init, *words, uid=uid, gid=group)
    assert done.returncode == 0, f"{words}: {done.stderr}"
    return done.stdout.strip()


def attempt(init: Init, *words: str, uid: int = 0, gid: int = 0) -> subprocess.CompletedProcess[str]:
    """Run a program in the guest, whatever comes of it."""
    enter = ["nsenter", "--target", str(init.pid), "--user", "--mount", "--uts", "--ipc", "--net", "--pid"]
    return subprocess.run(
        [*enter, "--setuid", str(uid), "--setgid", str(gid), "--wd=/", *words],
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def identity(init: Init) -> Identity:
    """What the guest itself says of its name and its one interface."""
    links = json.loads(inside(init, "ip", "-j", "address"))
    (link,) = [link for link in links if link["link_type"] != "loopback"]
    (address,) = [entry["local"] for entry in link["addr_info"] if entry["family"] == "inet"]
    return Identity(inside(init, "hostname"), address, link["address"])


def restart(desk: Desk, vm: str | None = None) -> Init:
    """`qa vm restart`, until the new init's VMA has answered; the new init."""
    name = vm or desk.vm
    before, run = desk.init(name), desk.trial.vm(name)["run"]
    desk.trial.qa("vm", "restart", "-f", f"name={name}")

    def again() -> bool:
        row = desk.trial.vm(name)
        return bool(row["run"] != run and row["vm_state"] == "running")

    desk.trial.wait_for(f"{name} running again", again)
    after = desk.init(name)
    assert after != before
    return after
