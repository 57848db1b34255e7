"""A bad image under ten desktops, and a pool without room: who is told, who waits, who is blocked."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from scripts.trial import Trial
from tests.support.desktop import leftovers
from tests.support.quick_guest import mute_image, quick_image

pytestmark = [pytest.mark.host, pytest.mark.timeout(300)]

GRACE = "internal.hkd.vmhandler.vma.failed.max_time.on.starting"
CHUNK = bytes(1 << 20)


def until_all(trial: Trial, **wanted: object) -> list[dict[str, Any]]:
    """Wait until every VM's row says so."""
    trial.wait_for(
        f"{wanted} everywhere",
        lambda: all(wanted.items() <= vm.items() for vm in trial.listed("vm")),
        limit_s=120,
    )
    return trial.listed("vm")


def test_one_bad_image_under_ten_vms(trial: Trial, tmp_path: Path) -> None:
    trial.qa("config", "set", "--yes", f"{GRACE}=2", "hkd.vm.starting.max=10")
    trial.start()
    trial.furnish(quick_image(tmp_path / "good.tar.gz"), vm="desk", memory=64)
    trial.qa("vm", "add", "name=more", "user=alice", "osf=small", "bulk=9")
    trial.qa("di", "add", f"path={mute_image(tmp_path / 'bad.tar.gz')}", "osf=small")
    trial.qa("di", "tag", "di_id=2", "tag=default")

    for failures in (1, 2):
        assert trial.listed("alarm") == []
        trial.qa("vm", "start", "--yes")
        for vm in until_all(trial, run=failures, vm_state="stopped", failures=failures):
            assert "the VMA gave no answer within 2 s" in vm["failure"]
            assert vm["failure_console"].splitlines()[-1] == "booted"
            assert (vm["failure_cause"], vm["blocked"]) == ("image", failures == 2)
    (alarm,) = trial.listed("alarm")
    assert (alarm["kind"], alarm["object"], alarm["count"]) == ("image", "di 2", 10)
    assert "does not boot and blocks 10 VMs" in alarm["text"]
    assert kept_roots(trial) >= {str(vm["id"]) for vm in trial.listed("vm")}
    assert list((trial.storage / "rootfs").iterdir()) == []

    trial.qa("di", "tag", "di_id=1", "tag=default")
    assert trial.listed("alarm") == []
    until_all(trial, blocked=False, failures=0, run=2)
    trial.qa("config", "set", "--yes", f"{GRACE}=100")
    trial.qa("vm", "start", "--yes")
    until_all(trial, vm_state="running", current_di_id=1, failure=None, run=3)


def kept_roots(trial: Trial) -> set[str]:
    """The VMs of which a root was put aside."""
    return {path.name.partition("-")[0] for path in (trial.storage / "kept").iterdir()}


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Trial]:
    """An installation on a small pool, impatient to try again."""
    with Trial(tmp_path / "trial") as made:
        made.settings["internal.hkd.start.delay.max"] = "2"
        made.settings["internal.hkd.start.delay.first"] = "0.5"
        made.lay_out(pool_size="512M")
        installation = made.marker.read_text()
        yield made
    assert leftovers(made, installation) == []


def test_a_full_pool_blocks_nobody_and_says_so(small: Trial, tmp_path: Path) -> None:
    small.start()
    small.furnish(quick_image(tmp_path / "good.tar.gz"), vm="desk", memory=64)
    small.qa("vm", "start", "-f", "name=desk")
    small.wait_for_state("desk", "running")
    small.qa("vm", "add", "name=more", "user=alice", "osf=small", "bulk=3")
    greedy = fill(small.storage / "homefs" / "1-fs")

    small.qa("vm", "start", "-f", "name=more-*")
    small.wait_for("the reasons of three", lambda: len(waiting(small)) == 3)
    for vm in waiting(small):
        assert "the storage pool is full" in vm["failure"]
        assert (vm["failure_cause"], vm["blocked"], vm["vm_state"]) == ("host", False, "starting")
    told = [alarm for alarm in small.listed("alarm") if alarm["object"] == "pool"]
    assert [alarm["kind"] for alarm in told] == ["host"]
    assert "the storage pool is full" in told[0]["text"]
    assert small.vm("desk")["vm_state"] == "running"

    greedy.unlink()
    os.sync()
    until_all(small, vm_state="running", run=1, failure=None, waits_for=None)
    assert [alarm for alarm in small.listed("alarm") if alarm["kind"] == "host"] == []


def waiting(trial: Trial) -> list[dict[str, Any]]:
    """The VMs that wait for room in the pool."""
    return [vm for vm in trial.listed("vm") if vm["waits_for"] == "pool"]


def fill(home: Path) -> Path:
    """Write into a home until there is no room for any guest; the file to remove."""
    file = home / "greedy"
    with file.open("wb", buffering=0) as stream, suppress(OSError):
        while True:
            stream.write(os.urandom(1 << 16) + CHUNK)
    for number in range(1000):
        try:
            with closing((home / f"small-{number}").open("wb", buffering=0)) as stream:
                stream.write(os.urandom(8192))
        except OSError:
            return file
    raise AssertionError("there is room without end")
