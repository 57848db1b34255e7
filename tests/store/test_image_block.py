"""A blocked image is booted by nobody: told at once, held against nobody."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from appliance.model import BlockCause, DiId, FailureCause, VmId, VmState
from appliance.ops import image_edit
from tests.support.host import Rig, rig

ONE, TWO = VmId(1), VmId(2)


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Rig]:
    """Two desktops that follow the same image."""
    async with rig(tmp_path, desktops=2) as made:
        yield made


async def test_a_start_from_it_fails_with_the_reason_and_what_runs_goes_on(host: Rig) -> None:
    async with host.hkd():
        await host.wish("start", ONE)
        await host.until_state(ONE, VmState.RUNNING)
        async with host.store.write() as tx:
            assert await image_edit.block(tx, [await tx.images.get(DiId(1))], by="test") == 1
        for _ in range(3):
            before = await host.vm(TWO)
            await host.wish("start", TWO)
            failed = await host.until(
                TWO,
                lambda vm, run=before.runtime.run: (
                    vm.runtime.run > run  # type: ignore[misc]
                    and vm.runtime.vm_state is VmState.STOPPED
                ),
            )
            runtime = failed.runtime
            assert runtime.failure == "the image one of OSF small is blocked (qa di unblock -f id=1)"
            assert (runtime.failure_cause, runtime.failures) == (FailureCause.GUEST, 0)
            assert (runtime.blocked, runtime.block_cause, runtime.waits_for) == (False, None, None)
        assert await host.alarms() == []
        assert (await host.vm(ONE)).runtime.vm_state is VmState.RUNNING
        assert [call for call, vm_id in host.backend.calls if vm_id == TWO and call == "launch"] == []

        async with host.store.write() as tx:
            assert await image_edit.unblock(tx, [await tx.images.get(DiId(1))], by="test") == 1
        await host.wish("start", TWO)
        running = await host.until_state(TWO, VmState.RUNNING)
        assert running.runtime.failure is None


async def test_a_vm_that_its_image_blocked_before_stays_blocked_for_that(host: Rig) -> None:
    """The two blocks are different things: lifting the one leaves the other."""
    async with host.store.write() as tx:
        await tx.runtimes.block([ONE], BlockCause.IMAGE)
        di = await tx.images.get(DiId(1))
        await image_edit.block(tx, [di], by="test")
        await image_edit.unblock(tx, [di], by="test")
    runtime = (await host.vm(ONE)).runtime
    assert (runtime.blocked, runtime.block_cause) == (True, BlockCause.IMAGE)
