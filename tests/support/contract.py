"""The laws of `Backend` and `Disks`, one suite for every implementation.

A subclass named `Test…` gives the fixture `rig`. What a kind of backend cannot do (guests that end by
themselves, a console) its rig says, and the laws about that are then checked to be refused.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from ipaddress import IPv4Interface
from typing import Protocol

import pytest

from appliance.errors import ApplianceError, BackendError, VolumeError
from appliance.model import SUBID_COUNT, SUBID_FIRST, DiId, InstallationId, Mark, VmId
from appliance.runtime.backend import Backend, Departure, Disks, Fences, GuestSpec

ONE, TWO = VmId(1), VmId(2)
AT = datetime(2030, 1, 31, 18, 0, tzinfo=UTC)
LONGEST_S = 20.0


class Ends(Protocol):
    """Ends a guest without asking the backend, as a crash in it would."""

    async def __call__(self, vm_id: VmId) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Rig:
    """One implementation, ready to run guests of the DI 1."""

    backend: Backend
    disks: Disks
    fences: Fences
    installation: InstallationId
    end: Ends | None
    """None: this kind never notices that a guest ends by itself."""
    has_console: bool
    keeps_homes: bool

    def guest(self, vm_id: VmId = ONE, **changes: object) -> GuestSpec:
        """The guest of a VM."""
        guest = GuestSpec(
            mark=Mark(installation=self.installation, vm_id=vm_id, vm_uuid=f"u-{vm_id}", di_id=DiId(1)),
            hostname=f"desk{vm_id}",
            memory_mib=64,
            cpus=0.5,
            processes=500,
            address=IPv4Interface(f"10.44.0.{100 + vm_id}/24"),
            gateway="10.44.0.1",
            resolver="10.44.0.1",
            domain="example.org",
            mac=f"54:52:00:2c:00:{100 + vm_id:02x}",
            bridge="qvdnet",
            interface=f"qvd{vm_id}",
            subid_first=SUBID_FIRST + vm_id * SUBID_COUNT,
            home_mib=None,
            root_mib=None,
            keep_root=False,
        )
        return replace(guest, **changes)  # type: ignore[arg-type]

    async def start(self, guest: GuestSpec | None = None) -> GuestSpec:
        """All that it takes to have a guest running."""
        guest = guest or self.guest()
        await self.disks.clone_root(guest.mark, keep=guest.keep_root)
        await self.disks.ensure_home(guest.mark, size_mib=guest.home_mib)
        await self.backend.define(guest)
        await self.fences.fence(guest)
        await self.backend.launch(guest.vm_id)
        return guest

    async def remove(self, vm_id: VmId) -> None:
        """The way back, whatever state the guest is in."""
        await self.backend.kill(vm_id)
        await self.fences.unfence(vm_id)
        await self.backend.erase(vm_id)
        await self.disks.erase_root(vm_id)


class BackendContract:
    """What the runtime relies on."""

    async def test_a_launched_guest_is_seen_with_its_mark(self, rig: Rig) -> None:
        guest = await rig.start()
        assert (await rig.backend.survey())[ONE].mark == guest.mark

    async def test_what_is_only_defined_does_not_run(self, rig: Rig) -> None:
        guest = rig.guest()
        await rig.disks.clone_root(guest.mark, keep=False)
        await rig.disks.ensure_home(guest.mark, size_mib=None)
        await rig.backend.define(guest)
        await rig.backend.define(guest)
        assert ONE not in await rig.backend.survey()

    async def test_two_guests_are_apart(self, rig: Rig) -> None:
        await rig.start(rig.guest(ONE))
        await rig.start(rig.guest(TWO))
        await rig.backend.kill(ONE)
        assert set(await rig.backend.survey()) == {TWO}

    async def test_kill_ends_it_and_may_be_repeated(self, rig: Rig) -> None:
        await rig.start()
        await rig.backend.kill(ONE)
        assert await rig.backend.survey() == {}
        await rig.backend.kill(ONE)

    async def test_stop_ends_it_in_time(self, rig: Rig) -> None:
        await rig.start()
        await rig.backend.stop(ONE)
        async with asyncio.timeout(LONGEST_S):
            while await rig.backend.survey():
                await asyncio.sleep(0.05)
        await rig.backend.stop(ONE)

    async def test_everything_can_be_removed_at_any_time_and_again(self, rig: Rig) -> None:
        await rig.remove(ONE)
        await rig.start()
        await rig.remove(ONE)
        await rig.remove(ONE)
        assert await rig.backend.survey() == {}

    async def test_it_starts_again_after_it_was_killed(self, rig: Rig) -> None:
        await rig.start()
        for _ in range(3):
            await rig.backend.kill(ONE)
            await rig.start()
        assert set(await rig.backend.survey()) == {ONE}

    async def test_every_end_is_one_departure(self, rig: Rig) -> None:
        departures = aiter(rig.backend.departures())
        if rig.end is None:
            assert not rig.backend.sees_departures
            return
        await rig.start(rig.guest(ONE))
        await rig.start(rig.guest(TWO))
        await rig.end(TWO)
        assert await _next(departures) == Departure(vm_id=TWO)
        await rig.backend.kill(ONE)
        assert await _next(departures) == Departure(vm_id=ONE)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await anext(departures)

    async def test_an_adopted_guest_departs_as_a_launched_one(self, rig: Rig) -> None:
        guest = await rig.start()
        await rig.backend.adopt(guest)
        await rig.backend.adopt(guest)
        departures = aiter(rig.backend.departures())
        await rig.backend.kill(ONE)
        assert await _next(departures) == Departure(vm_id=ONE)

    async def test_a_guest_that_ended_before_it_was_adopted_departs(self, rig: Rig) -> None:
        if not rig.backend.sees_departures:
            return
        guest = await rig.start()
        departures = aiter(rig.backend.departures())
        await rig.backend.kill(ONE)
        assert await _next(departures) == Departure(vm_id=ONE)
        await rig.backend.adopt(guest)
        assert await _next(departures) == Departure(vm_id=ONE)

    async def test_no_guest_is_launched_twice(self, rig: Rig) -> None:
        if not rig.backend.sees_departures:
            return
        await rig.start()
        seen = await rig.backend.survey()
        with pytest.raises(BackendError):
            await rig.backend.launch(ONE)
        assert await rig.backend.survey() == seen

    async def test_an_undefined_guest_is_not_launched(self, rig: Rig) -> None:
        with pytest.raises((ApplianceError, KeyError)):
            await rig.backend.launch(VmId(99))
        assert await rig.backend.survey() == {}

    async def test_a_running_guest_is_not_erased(self, rig: Rig) -> None:
        if not rig.backend.sees_departures:
            return
        await rig.start()
        with pytest.raises(BackendError):
            await rig.backend.erase(ONE)
        assert set(await rig.backend.survey()) == {ONE}

    async def test_a_running_guest_can_be_measured(self, rig: Rig) -> None:
        await rig.start()
        usage = await rig.backend.sample(ONE)
        assert usage.cpu_s >= 0
        assert usage.memory_bytes >= 0

    async def test_the_console_is_a_descriptor_that_does_not_block(self, rig: Rig) -> None:
        await rig.start()
        line = rig.backend.console(ONE)
        if not rig.has_console:
            with pytest.raises(BackendError):
                await line.open()
            return
        descriptor = await line.open()
        try:
            assert os.get_blocking(descriptor) is False
        finally:
            os.close(descriptor)
            line.close()

    async def test_there_is_no_console_of_a_guest_that_does_not_run(self, rig: Rig) -> None:
        with pytest.raises(BackendError):
            await rig.backend.console(ONE).open()
        assert await rig.backend.console_tail(ONE, 5) == ""

    async def test_a_home_is_never_given_to_another_vm(self, rig: Rig) -> None:
        guest = rig.guest()
        home = await rig.disks.ensure_home(guest.mark, size_mib=64)
        assert await rig.disks.ensure_home(guest.mark, size_mib=64) == home
        if rig.keeps_homes:
            with pytest.raises(VolumeError):
                await rig.disks.ensure_home(replace(guest.mark, vm_uuid="stranger"), size_mib=64)

    async def test_a_home_tells_with_which_image_it_was_used(self, rig: Rig) -> None:
        mark = rig.guest().mark
        after = replace(mark, di_id=DiId(2))
        assert await rig.disks.home_used_with(mark) is None
        for used in (mark, after):
            await rig.disks.ensure_home(used, size_mib=64)
            for asked in (mark, after):
                found = await rig.disks.home_used_with(asked)
                assert found == (used.di_id if rig.keeps_homes else None)
        if rig.keeps_homes:
            with pytest.raises(VolumeError):
                await rig.disks.home_used_with(replace(mark, vm_uuid="stranger"))

    async def test_a_home_is_kept_as_it_was_where_that_can_be(self, rig: Rig) -> None:
        mark = rig.guest().mark
        path = rig.disks.home_aside(ONE, AT)
        if path is None:
            assert not rig.keeps_homes
            return
        assert not await rig.disks.snapshot_home(mark, path)
        assert not await rig.disks.is_home_as_in(mark, path)
        await rig.disks.ensure_home(mark, size_mib=64)
        if await rig.disks.snapshot_home(mark, path):
            assert await rig.disks.is_home_as_in(mark, path)
            again = rig.disks.home_aside(ONE, AT)
            assert again != path or not path.exists()
            with pytest.raises(VolumeError):
                await rig.disks.snapshot_home(replace(mark, vm_uuid="stranger"), path)

    async def test_a_root_is_put_aside_once_and_never_covers_another(self, rig: Rig) -> None:
        guest = rig.guest()
        await rig.disks.clone_root(guest.mark, keep=False)
        path = rig.disks.aside(ONE, AT)
        if path is None:
            assert not rig.disks.needs_image
            return
        assert not await rig.disks.put_aside(TWO, path)
        assert await rig.disks.put_aside(ONE, path)
        assert not await rig.disks.put_aside(ONE, path)
        await rig.disks.clone_root(guest.mark, keep=False)
        again = rig.disks.aside(ONE, AT)
        assert again is not None
        assert again != path or not path.exists()
        await rig.remove(ONE)


async def _next(departures: object) -> Departure:
    async with asyncio.timeout(LONGEST_S):
        departure = await anext(departures)  # type: ignore[call-overload]
    assert isinstance(departure, Departure)
    return departure
