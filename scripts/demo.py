"""The demo: one desktop from nothing, shown by a real NX client, with the time that each step took."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shlex
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from scripts.private_libvirtd import PrivateLibvirtd
from scripts.trial import (
    LOGIN,
    PORT,
    ROOT,
    Trial,
    TrialError,
    command,
    display_answers,
    end,
    output,
    read_picture,
    take_picture,
)

VM = "desk1"
LIBVIRT_URI = "vm.kvm.uri"
"""The setting that says which libvirt runs the virtual machines."""
LOCAL_DISPLAY = re.compile(r"(unix)?:\d+(\.\d+)?$")

MILESTONES = {
    "VM started": re.compile(r"^(\S+) .*phase changed.* phase=starting/awaiting-vma"),
    "VMA answered": re.compile(r"^(\S+) .*phase changed.* phase=running/monitoring"),
    "X listening": re.compile(r"^(\S+) .*X listens"),
}
"""What the daemon's log says of the way to a desktop."""
CLIENT_MARK = re.compile(r"^TIMELINE (\S+) ([\d.]+)", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What is different from one backend to the other."""

    image: Path
    builder: Path
    memory: int
    policy: tuple[str, ...]
    seen_within_s: float


KINDS = {
    "lxc": Kind(
        image=ROOT / "build" / "desktop.tar.zst",
        builder=ROOT / "images" / "build_lxc.py",
        memory=512,
        policy=(),
        seen_within_s=90,
    ),
    "kvm": Kind(
        image=ROOT / "build" / "desktop.qcow2",
        builder=ROOT / "images" / "build_kvm.py",
        memory=1024,
        policy=("backend=kvm", "cpus=2"),
        seen_within_s=400,  # emulated, a boot alone takes half a minute where nothing else runs
    ),
}
SEEN_WITHIN_S = KINDS["lxc"].seen_within_s


@contextlib.contextmanager
def step(what: str) -> Iterator[None]:
    """Say what is being done, and how long it took."""
    print(f"{what} … ", end="", flush=True)
    begun = time.monotonic()
    try:
        yield
    except BaseException:
        print("failed", flush=True)
        raise
    print(f"{time.monotonic() - begun:.1f} s", flush=True)


def show_desktop(trial: Trial, picture: Path, *, within_s: float = SEEN_WITHIN_S) -> None:
    """Connect, wait until the desktop can be read on the client's display, keep its picture.

    :raises TrialError: it was not seen
    """
    display = usable_display(trial.netns) or trial.open_display().name
    log = trial.directory / "client.log"
    log.unlink(missing_ok=True)
    asked = time.time()
    client = trial.connect(display, "--vm", VM, log=log)
    first = seen = None
    while seen is None:
        if client.poll() is not None:
            raise TrialError(f"the client ended with status {client.returncode}:\n{log.read_text()}")
        if time.time() > asked + within_s:
            said = f"{log.read_text()}\n{trial.log_tail()}"
            raise TrialError(f"no desktop on {display} within {within_s:g} s; see {picture}\n{said}")
        if first is None and nxagent_is_shown(display):
            first = time.time()
        take_picture(display, picture)
        if first is not None and is_desktop(read_picture(picture)):
            seen = time.time()
        time.sleep(0.1)
    print_timeline(trial, asked, log.read_text(), first, seen)
    end(client)


def usable_display(netns: str) -> str | None:
    """`$DISPLAY`, if there is one and a client in the demo's own network can draw on it."""
    display = os.environ.get("DISPLAY")
    if not display:
        return None
    if LOCAL_DISPLAY.match(display) is None:
        reason = "it is on another machine, which the demo's own network does not reach"
    elif not display_answers(display, netns):
        reason = "nothing answers there, or it refuses us"
    else:
        return display
    print(f"DISPLAY={display} cannot be used: {reason}; an Xvfb takes its place")
    return None


def nxagent_is_shown(display: str) -> bool:
    """Whether nxagent has put its window on `display`."""
    return "QVD" in output("xwininfo", "-display", display, "-root", "-tree")


def is_desktop(text: str) -> bool:
    """Whether the recognised text names the user and the VM: only the desktop inside it says both."""
    return LOGIN in text and VM in text


def print_timeline(trial: Trial, asked: float, client_log: str, first: float | None, seen: float) -> None:
    """One line per milestone: seconds since the client asked."""
    instants = {"asked": asked}
    for line in trial.log.read_text().splitlines():
        for name, pattern in MILESTONES.items():
            if match := pattern.search(line):
                instants[name] = datetime.fromisoformat(match.group(1)).timestamp()
    marks = {name: float(instant) for name, instant in CLIENT_MARK.findall(client_log)}
    if "101" in marks:
        instants["101"] = marks["101"]
    if first is not None:
        instants["first picture"] = first
    instants["desktop read"] = seen
    print("time line, seconds since the client asked:")
    for name, instant in sorted(instants.items(), key=lambda item: item[1]):
        print(f"  {instant - asked:7.2f}  {name}")


def write_hold_file(trial: Trial) -> Path:
    """Tell other clients where the desktop is (interfaces.md)."""
    values = {
        "HOST": "127.0.0.1",
        "PORT": str(PORT),
        "LOGIN": LOGIN,
        "PASSWORD": trial.password_file.read_text().strip(),
        "VM": VM,
        "NETNS": trial.netns,
        "CONFIG": str(trial.config),
        "CERT": str(trial.certificate),
    }
    file = trial.directory / "hold.env"
    beside = file.with_suffix(".new")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        stream.writelines(f"{name}={shlex.quote(value)}\n" for name, value in values.items())
    beside.rename(file)
    return file


def hold(trial: Trial) -> None:
    """Stay up for other clients until interrupted."""
    trial.wait_for("a free desktop", lambda: trial.vm(VM)["user_state"] == "disconnected", limit_s=30)
    file = write_hold_file(trial)
    try:
        print(
            f"the desktop is up; its particulars are in {file}. Ctrl-C, or TERM to {os.getpid()}, ends it.",
            flush=True,
        )
        while trial.daemon is not None and trial.daemon.poll() is None:
            time.sleep(0.5)
        raise TrialError(f"the daemon has ended:\n{trial.log_tail()}")
    finally:
        file.unlink(missing_ok=True)


def demonstrate(words: argparse.Namespace) -> None:
    """Everything, from the image to the picture."""
    kind = KINDS[words.backend]
    with Trial(words.dir) as trial:
        with step(f"desktop image {kind.image.relative_to(ROOT)}"):
            command(sys.executable, str(kind.builder), str(kind.image), timeout_s=1800)
        libvirtd = None
        if words.backend == "kvm":
            libvirtd = PrivateLibvirtd(trial.libvirt, trial.netns, environment=trial.environment)
            trial.settings |= {"vm.hypervisor": "kvm", "vm.kvm.accel": "tcg", LIBVIRT_URI: libvirtd.uri}
        with step(f"pool, network namespace {trial.netns}, configuration and database in {trial.directory}"):
            trial.lay_out()
        if libvirtd is not None:
            with step("libvirtd of its own"):
                libvirtd.start()
        with step("daemon"):
            trial.start()
        with step(f"user {LOGIN}, OSF small, the image, VM {VM}"):
            trial.furnish(kind.image, vm=VM, memory=kind.memory, policy=kind.policy)
            trial.save_certificate()
        picture = trial.directory / "desktop.png"
        with step("client asks for the desktop"):
            print()
            show_desktop(trial, picture, within_s=kind.seen_within_s)
        print(f"the desktop was seen: {picture}")
        if words.hold:
            hold(trial)
        elif not words.once:
            with contextlib.suppress(EOFError):
                input("Enter ends the demo: ")
    print("everything but the picture and the logs is gone")


ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def interrupted(*_: object) -> None:
    """TERM, or the terminal's closing, ends the demo as Ctrl-C does: in good order, and only once."""
    for number in ENDING:
        signal.signal(number, lambda *_: None)
    raise KeyboardInterrupt


def main() -> int:
    """`scripts/demo [--once|--hold] [--backend lxc|kvm] [--dir DIR]`; 0 only if the desktop was seen."""
    parser = argparse.ArgumentParser(prog="scripts/demo", description=__doc__)
    ending = parser.add_mutually_exclusive_group()
    ending.add_argument("--once", action="store_true", help="take everything down once the desktop was seen")
    ending.add_argument("--hold", action="store_true", help="stay up for other clients; see DIR/hold.env")
    parser.add_argument("--backend", choices=["lxc", "kvm"], default="lxc")
    parser.add_argument("--dir", type=Path, default=ROOT / "demo", help="where its state is (default demo/)")
    words = parser.parse_args()
    for number in ENDING:
        signal.signal(number, interrupted)
    try:
        demonstrate(words)
    except KeyboardInterrupt:
        return 0 if words.hold else 130
    except TrialError as failure:
        print(f"demo: {failure}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
