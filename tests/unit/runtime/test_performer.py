"""How orders are carried out, whatever they order."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from appliance.clock import SystemClock
from appliance.config import Settings
from appliance.model import BackendKind, VmId
from appliance.runtime.actions import KillGuest, Order
from appliance.runtime.events import ActionFailed, Done
from appliance.runtime.performer import Equipment, Performer
from appliance.signals import ChangeFeed
from tests.support.fake_backend import FakeBackend
from tests.support.machines import GUEST
from tests.support.store import fresh_store


async def test_waiting_for_ones_turn_does_not_count_as_being_slow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(KillGuest, "limit_s", 0.3)
    backend = FakeBackend()
    killing = backend.hold("kill")
    async with fresh_store(tmp_path) as store:
        perform = Performer(
            store,
            lambda: Settings({"internal.hkd.max_heavy": "1"}),
            GUEST.mark.installation,
            {BackendKind.LXC: Equipment(backend, backend, backend)},
            ChangeFeed(),
            SystemClock(),
            lambda vm_id: None,
        )
        first, second = (
            asyncio.ensure_future(
                perform(
                    Order(
                        action=KillGuest(), vm_id=VmId(number), backend=BackendKind.LXC, entry=1, cause="test"
                    )
                )
            )
            for number in (1, 2)
        )
        assert isinstance(await first, ActionFailed)
        killing.set()
        assert isinstance(await second, Done)
