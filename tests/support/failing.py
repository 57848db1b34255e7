"""Guests and hosts that fail, whatever kind of guest it is: who is told, who waits, who is blocked."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from scripts.trial import LOGIN, Trial

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


@contextmanager
def full_pool(trial: Trial, place: Path, *, more: int) -> Iterator[None]:
    """The pool is full by what was written to a place of guests: further VMs wait, and run afterwards."""
    trial.qa("vm", "add", "name=more", f"user={LOGIN}", "osf=small", f"bulk={more}")
    filled = _filled(trial, place)

    trial.qa("vm", "start", "-f", "name=more-*")
    trial.wait_for("the reasons of all", lambda: len(_waiting(trial)) == more)
    for vm in _waiting(trial):
        assert "the storage pool is full" in vm["failure"]
        assert (vm["failure_cause"], vm["blocked"], vm["vm_state"]) == ("host", False, "starting")
    told = [alarm for alarm in trial.listed("alarm") if alarm["object"] == "pool"]
    assert [alarm["kind"] for alarm in told] == ["host"]
    assert "the storage pool is full" in told[0]["text"]
    yield
    for file in filled:
        file.unlink(missing_ok=True)
    os.sync()
    until_all(trial, vm_state="running", run=1, failure=None, waits_for=None)
    assert [alarm for alarm in trial.listed("alarm") if alarm["kind"] == "host"] == []


def _waiting(trial: Trial) -> list[dict[str, Any]]:
    """The VMs that wait for room in the pool."""
    return [vm for vm in trial.listed("vm") if vm["waits_for"] == "pool"]


def _filled(trial: Trial, place: Path) -> list[Path]:
    """Leave no guest any room; the files to remove.

    The host takes half of its reserve, so that no later count can find that there is room for guests.
    """
    hoard = trial.storage / "hoard"
    filled = [_fill(place / "greedy"), hoard]
    status = os.statvfs(trial.storage)
    hoard.write_bytes(CHUNK * (status.f_bavail * status.f_frsize // len(CHUNK) // 2))
    os.sync()
    return [*filled, _fill(place / "greedier")]


def _fill(file: Path) -> Path:
    """Write a file until there is no room for any guest."""
    with suppress(OSError), file.open("wb", buffering=0) as stream:
        while True:
            stream.write(os.urandom(1 << 16) + CHUNK)
    for number in range(1000):
        try:
            with closing(file.with_name(f"{file.name}-{number}").open("wb", buffering=0)) as stream:
                stream.write(os.urandom(8192))
        except OSError:
            return file
    raise AssertionError("there is room without end")
