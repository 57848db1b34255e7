"""The demo as a person runs it: from nothing, again, held, beside another, and after it was killed."""

from __future__ import annotations

import json
import os
import shlex
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from scripts.demo import nxagent_is_shown, show_desktop
from scripts.trial import BIN, Trial, TrialError, end, loop_devices
from tests.support.demo import Demo, assert_seen, making_demos, soon
from tests.support.desktop import Screen
from tests.support.footprint import footprint, remove_pivots
from tests.support.images import Variants

pytestmark = [pytest.mark.host, pytest.mark.alone, pytest.mark.timeout(300)]

HOLD_KEYS = ["HOST", "PORT", "LOGIN", "PASSWORD", "VM", "NETNS", "CONFIG", "CERT"]


@pytest.fixture
def demos(tmp_path: Path, image: Path) -> Iterator[Callable[[str], Demo]]:
    """Makes demos; ends them."""
    with making_demos(tmp_path) as make:
        yield make


@pytest.fixture
def viewer(tmp_path: Path) -> Iterator[Trial]:
    """Displays to look at, which belong to no demo."""
    with Trial(tmp_path / "viewer") as made:
        made.directory.mkdir()
        yield made


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
