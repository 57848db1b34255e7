"""The demo as a person runs it: from nothing, again, held, beside another, and after it was killed."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from scripts.demo import nxagent_is_shown, show_desktop
from scripts.trial import BIN, LOGIN, ROOT, Trial, TrialError, end, loop_devices, read_picture
from tests.support.desktop import Screen
from tests.support.footprint import footprint, remains, remove_pivots
from tests.support.images import Variants

pytestmark = [pytest.mark.host, pytest.mark.timeout(300)]

MILESTONES = ["asked", "VM started", "VMA answered", "X listening", "101", "first picture", "desktop read"]
HOLD_KEYS = ["HOST", "PORT", "LOGIN", "PASSWORD", "VM", "NETNS", "CONFIG", "CERT"]


@dataclass(slots=True)
class Demo:
    """Runs of `scripts/demo` in one directory, with temporary files of their own."""

    directory: Path
    temporary: Path
    running: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def output(self) -> Path:
        """What the demo says."""
        return self.directory.with_suffix(".out")

    @property
    def hold_file(self) -> Path:
        return self.directory / "hold.env"

    def start(self, *words: str, display: str | None = None) -> subprocess.Popen[str]:
        """Start the demo; its output goes to a file."""
        environment = {**os.environ, "TMPDIR": str(self.temporary)}
        environment.pop("DISPLAY", None)
        if display is not None:
            environment["DISPLAY"] = display
        with self.output.open("w") as told:
            demo = subprocess.Popen(
                [str(ROOT / "scripts" / "demo"), "--dir", str(self.directory), *words],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=told,
                stderr=told,
                text=True,
                start_new_session=True,
            )
        self.running.append(demo)
        return demo

    def await_hold(self, demo: subprocess.Popen[str]) -> None:
        """Wait until the desktop is held for others."""
        soon(lambda: self.hold_file.exists() or demo.poll() is not None, 120)
        assert self.hold_file.exists(), self.output.read_text()

    def end(self, demo: subprocess.Popen[str], limit_s: float = 120) -> str:
        """Wait for the end; what it said."""
        status = demo.wait(limit_s)
        said = self.output.read_text()
        assert status == 0, f"the demo ended with {status}:\n{said}"
        return said

    def once(self, *, display: str | None = None) -> str:
        """`scripts/demo --once`, to a good end."""
        return self.end(self.start("--once", display=display))

    def remains(self) -> list[str]:
        """What is left of it."""
        return remains(self.directory, self.temporary)

    def sweep(self) -> None:
        """End what still runs."""
        for demo in self.running:
            if demo.poll() is None:
                os.killpg(demo.pid, signal.SIGKILL)
                demo.wait()
        Trial(self.directory).sweep()


@pytest.fixture
def demos(tmp_path: Path, image: Path) -> Iterator[Callable[[str], Demo]]:
    """Makes demos; ends them."""
    made: list[Demo] = []

    def make(name: str) -> Demo:
        temporary = tmp_path / f"{name}-tmp"
        temporary.mkdir()
        made.append(Demo(tmp_path / name, temporary))
        return made[-1]

    yield make
    for demo in made:
        demo.sweep()


@pytest.fixture
def viewer(tmp_path: Path) -> Iterator[Trial]:
    """Displays to look at, which belong to no demo."""
    with Trial(tmp_path / "viewer") as made:
        made.directory.mkdir()
        yield made


def soon(condition: Callable[[], object], limit_s: float = 60) -> bool:
    """Whether `condition` comes to hold."""
    until = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True


def assert_seen(demo: Demo, said: str) -> None:
    """The whole time line was told, and the picture shows who is where."""
    told = re.findall(r"^ +(\d+\.\d\d)  (.+)$", said, re.MULTILINE)
    assert [name for _, name in told] == MILESTONES, said
    seconds = [float(number) for number, _ in told]
    assert seconds[0] == 0
    assert seconds == sorted(seconds)
    text = read_picture(demo.directory / "desktop.png")
    assert LOGIN in text
    assert "desk1" in text


def test_from_nothing_and_again(demos: Callable[[str], Demo], viewer: Trial) -> None:
    demo = demos("demo")
    remove_pivots()
    before = footprint()
    for display in (None, viewer.open_display().name):
        said = demo.once(display=display)
        assert_seen(demo, said)
        assert "cannot be used" not in said
        assert demo.remains() == []
        assert sorted(path.name for path in demo.directory.iterdir()) == [
            "appliance.log",
            "client.log",
            "desktop.png",
        ]
    assert soon(lambda: footprint() == before, 5), f"{footprint()}\n{before}"


def test_held_for_others(demos: Callable[[str], Demo], viewer: Trial) -> None:
    demo = demos("demo")
    held = demo.start("--hold")
    demo.await_hold(held)

    assert stat.S_IMODE(demo.hold_file.stat().st_mode) == 0o600
    lines = demo.hold_file.read_text().splitlines()
    given = {line.partition("=")[0]: shlex.split(line.partition("=")[2]) for line in lines}
    assert list(given) == HOLD_KEYS
    assert all(len(words) == 1 for words in given.values())
    hold = {key: words[0] for key, words in given.items()}
    assert "desktop was seen" in demo.output.read_text()
    vms = subprocess.run(
        [str(BIN / "qa"), "--config", hold["CONFIG"], "vm", "list", "-o", "json", "-f", f"name={hold['VM']}"],
        capture_output=True,
        check=True,
    )
    (vm,) = json.loads(vms.stdout)
    assert (vm["vm_state"], vm["user_state"]) == ("running", "disconnected")

    secret = viewer.directory / "secret"
    secret.write_text(hold["PASSWORD"])
    display = viewer.open_display()
    log = viewer.directory / "client.log"
    words = ["-h", hold["HOST"], "-p", hold["PORT"], "-u", hold["LOGIN"], "--password-file", str(secret)]
    with log.open("wb") as told:
        client = subprocess.Popen(
            ["ip", "netns", "exec", hold["NETNS"], str(BIN / "qvd-client"), *words, "--ca", hold["CERT"]],
            env={**os.environ, "DISPLAY": display.name},
            stdout=told,
            stderr=told,
            start_new_session=True,
        )
    viewer.others.append(client)
    screen = Screen(viewer, display, client, log)
    screen.shows(hold["LOGIN"], hold["VM"])
    screen.run("echo marmalade | tr a-z A-Z", "MARMALADE")
    end(client)

    held.terminate()
    demo.end(held)
    assert not demo.hold_file.exists()
    assert demo.remains() == []


def test_two_side_by_side(demos: Callable[[str], Demo]) -> None:
    """The one that ends first leaves nothing though the other, begun later, saw all that it had."""
    reasons = {":4242": "nothing answers there", "elsewhere.example:0": "it is on another machine"}
    held: list[tuple[Demo, subprocess.Popen[str]]] = []
    for name, display in zip(("one", "other"), reasons, strict=True):
        demo = demos(name)
        held.append((demo, demo.start("--hold", display=display)))
        assert soon((demo.directory / "appliance.log").exists), demo.output.read_text()
    for demo, run in held:
        demo.await_hold(run)
    for (demo, run), (display, reason) in zip(held, reasons.items(), strict=True):
        run.terminate()
        said = demo.end(run)
        assert f"DISPLAY={display} cannot be used: {reason}" in said
        assert_seen(demo, said)
        assert demo.remains() == []


def test_the_next_one_cleans_up_after_one_that_was_killed(demos: Callable[[str], Demo]) -> None:
    demo = demos("demo")
    before = footprint()
    killed = demo.start("--once")
    log = demo.directory / "appliance.log"
    assert soon(lambda: log.exists() and "session begins" in log.read_text()), demo.output.read_text()
    killed.kill()
    killed.wait()
    trial = Trial(demo.directory)
    assert loop_devices(trial.pool)
    names = {Path(f"/proc/{pid}/comm").read_text().strip() for pid in trial.processes()}
    assert {"qvd-appliance", "lxc-start", "Xvfb", "openbox", "nxproxy"} <= names

    assert_seen(demo, demo.once())
    assert demo.remains() == []
    assert footprint().displays <= before.displays


def test_an_nxagent_without_windows_is_no_desktop(trial: Trial, variants: Variants) -> None:
    session = {"usr/lib/qvd/desktop-session": "#!/bin/sh\nexec sleep 1000\n"}
    trial.start()
    trial.furnish(variants.make("without-windows", session))
    trial.save_certificate()
    with pytest.raises(TrialError, match=r"no desktop on .* within 6 s"):
        show_desktop(trial, trial.directory / "desktop.png", within_s=6)
    assert nxagent_is_shown(trial.displays[0].name)
    assert trial.vm("desk1")["user_state"] == "connected"
