"""`qa kept`: homes of deleted VMs are listed with their owners, and end when they are to."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from appliance.model import Kept, VmId
from appliance.storage.paths import Paths
from tests.support.qa import Installation


@pytest.fixture
def housed(qa: Installation) -> Installation:
    """An installation with one VM that has a home."""
    qa.with_vm()
    home(qa, 1).mkdir(parents=True)
    return qa


def home(qa: Installation, vm_id: int) -> Path:
    return Paths(qa.settings).homefs(VmId(vm_id))


def due(qa: Installation) -> list[Kept]:
    async def read() -> list[Kept]:
        async with qa.write() as tx:
            return await tx.kept.due()

    return asyncio.run(read())


def test_the_home_of_a_deleted_vm_is_kept_with_its_owner(housed: Installation) -> None:
    (vm,) = housed.listed("vm")
    said = housed.ok("vm", "del", "-f", f"name={vm['name']}")
    assert "homes are kept until" in said.err
    (kept,) = housed.listed("kept")
    assert (kept["kind"], kept["vm"], kept["owner"]) == ("home", vm["name"], vm["user"])
    assert kept["path"] == str(home(housed, 1))
    left = datetime.fromisoformat(kept["until"]) - datetime.now(UTC)
    assert timedelta(days=29) < left <= timedelta(days=30)
    assert home(housed, 1).exists()
    assert due(housed) == []


def test_how_long_is_a_setting(housed: Installation) -> None:
    housed.ok("config", "set", "storage.homes.kept.days=2")
    housed.ok("vm", "del", "--yes")
    (kept,) = housed.listed("kept")
    assert datetime.fromisoformat(kept["until"]) - datetime.now(UTC) <= timedelta(days=2)


def test_a_home_can_go_with_its_vm(housed: Installation) -> None:
    said = housed.ok("vm", "del", "purge_home=yes", "--yes")
    assert "removes their homes" in said.err
    assert [kept.path for kept in due(housed)] == [str(home(housed, 1))]


def test_a_kept_thing_ends_when_somebody_says_so(housed: Installation) -> None:
    housed.ok("vm", "del", "--yes")
    assert housed.ok("kept", "del", "-f", "owner=nobody").out == "Deleting 0 kept thing(s)\n"
    assert due(housed) == []
    assert housed("kept", "del").status == 1, "nobody was asked"
    assert housed.ok("kept", "del", "-f", "kind=home").out == "Deleting 1 kept thing(s)\n"
    assert len(due(housed)) == 1


def test_a_vm_that_never_started_leaves_nothing(qa: Installation) -> None:
    qa.with_vm()
    said = qa.ok("vm", "del", "--yes")
    assert "kept" not in said.err
    assert qa.listed("kept") == []


def test_a_vm_that_cannot_be_deleted_keeps_its_home_to_itself(housed: Installation) -> None:
    housed.ok("vm", "start", "--yes")
    assert housed("vm", "del", "--yes").status == 1
    assert housed.listed("kept") == []
