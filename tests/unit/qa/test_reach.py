"""Whose screen is shown, and where."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from appliance.errors import ConflictError
from appliance.model import BackendKind, Vm
from appliance.qa.reach import shown
from appliance.runtime.machine import Phase
from tests.support.machines import machine
from tests.support.rows import vm_row

HERE = "node1"


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    with socket.socket(socket.AF_UNIX) as screen:
        screen.bind(str(tmp_path / "vnc"))
        yield tmp_path / "vnc"


def vm(phase: Phase, host: str | None = HERE) -> Vm:
    return replace(vm_row(machine(phase)), backend=BackendKind.KVM, host=host)


@pytest.mark.parametrize("phase", [Phase.AWAITING_VMA, Phase.MONITORING, Phase.SHUTTING_DOWN, Phase.REAPING])
def test_a_guest_has_a_screen_from_its_boot_to_its_end(place: Path, phase: Phase) -> None:
    assert shown(vm(phase), HERE, place) == place


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        (vm(Phase.STOPPED), "is stopped, and shows no screen"),
        (vm(Phase.MONITORING, "node2"), "runs on node2, and its screen is shown there only"),
        (replace(vm(Phase.MONITORING), backend=BackendKind.LXC), "runs on lxc, which has no screen"),
    ],
)
def test_what_has_none_here_says_why(place: Path, asked: Vm, reason: str) -> None:
    with pytest.raises(ConflictError, match=reason):
        shown(asked, HERE, place)


def test_nothing_else_is_taken_for_one(tmp_path: Path) -> None:
    (tmp_path / "vnc").touch()
    with pytest.raises(ConflictError, match="shows no screen yet"):
        shown(vm(Phase.MONITORING), HERE, tmp_path / "vnc")
