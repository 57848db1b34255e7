"""Bells between processes and inside one."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.errors import HostError
from appliance.model import VmId
from appliance.signals import ChangeFeed, Doorbell, ring


async def test_a_ring_wakes_and_is_heard_once(tmp_path: Path) -> None:
    with Doorbell(tmp_path / "bell") as bell:
        ring(tmp_path / "bell")
        await bell.wait(10)
        bell.ring()
        await bell.wait(10)
    ring(tmp_path / "bell")


@pytest.mark.parametrize("name", ["nowhere/bell", "long" * 60])
async def test_a_doorbell_that_cannot_be_made_says_why(tmp_path: Path, name: str) -> None:
    with pytest.raises(HostError, match=r"the doorbell .* cannot be made"), Doorbell(tmp_path / name):
        pass


async def test_a_change_between_two_looks_is_not_missed() -> None:
    feed = ChangeFeed()
    with feed.watch(VmId(1)) as mine, feed.watch(VmId(1)) as other:
        feed.announce(VmId(2))
        feed.announce(VmId(1))
        await mine.changed(10)
        await other.changed(10)
        feed.announce_all()
        await mine.changed(10)
