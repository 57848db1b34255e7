"""Limits in a real database: who gets them, when they end, and what becomes of them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import update

from appliance.clock import ManualClock
from appliance.config import Settings
from appliance.filters import Filter
from appliance.model import (
    DiId,
    HostId,
    Limit,
    OsfId,
    SessionId,
    StartedBy,
    UserState,
    Vm,
    VmCmd,
    VmId,
    VmState,
)
from appliance.ops import expiry, images, vms
from appliance.runtime import ageing
from appliance.runtime.ageing import Ager
from appliance.runtime.events import AskDue, Event
from appliance.runtime.machine import Phase
from appliance.storage.ageing import Limits
from appliance.storage.migrate import upgrade
from appliance.storage.runtimes import Placement
from appliance.storage.schema import vm_runtimes
from appliance.storage.store import Store, Tx
from tests.support.store import NOW, furnish, url

HOUR = timedelta(hours=1)
SOFT, HARD = NOW + HOUR, NOW + 9 * HOUR
BOTH: Limits = {Limit.SOFT: SOFT, Limit.HARD: HARD}


@dataclass
class House:
    """A database with the OSF `desktop`, its images 1 (default) and 2, and VMs that run image 1."""

    store: Store
    clock: ManualClock
    host: HostId = field(init=False)
    osf: OsfId = field(init=False)
    old: DiId = field(init=False)
    new: DiId = field(init=False)
    vms: list[VmId] = field(default_factory=list)
    asked: list[Event] = field(default_factory=list)
    rings: int = 0
    settings: dict[str, str] = field(default_factory=dict)

    async def vm(self, place: int = 0) -> Vm:
        """The row of a VM."""
        async with self.store.read() as tx:
            return await tx.vms.get(self.vms[place])

    async def tag(self, di_id: DiId, tag: str = "default", limits: Limits = BOTH) -> int:
        """Move a tag; how many VMs have limits by that."""
        async with self.store.write() as tx:
            return await images.tag(tx, await tx.images.get(di_id), tag, by="test", limits=limits)

    async def set(self, place: int, **columns: object) -> None:
        """Overwrite columns of a runtime row."""
        async with self.store.write() as tx:
            row = update(vm_runtimes).where(vm_runtimes.c.vm_id == self.vms[place])
            await tx.connection.execute(row.values(**columns))

    async def connect(self, place: int, state: UserState = UserState.CONNECTED) -> None:
        """Somebody is at a desktop since now."""
        session = SessionId(f"s{place}")
        await self.set(place, user_state=state, user_state_ts=self.clock.now(), l7r_session=session)

    async def limits(self, place: int = 0) -> tuple[datetime | None, datetime | None]:
        """The limits of a VM."""
        runtime = (await self.vm(place)).runtime
        return runtime.vm_expiration_soft, runtime.vm_expiration_hard

    async def look(self) -> None:
        """Let the HKD look for limits that are due, once."""

        def ring() -> None:
            self.rings += 1

        ager = Ager(
            self.store, lambda: Settings(self.settings), self.host, self.asked.append, ring, self.clock
        )
        await ager.look()

    async def history(self, what: str) -> list[tuple[str, str | None]]:
        """By whom, and to what, as the audit log has it."""
        rows = await self._events(what)
        return [(row[0], row[1]) for row in rows]

    async def _events(self, what: str) -> list[tuple[str, str | None]]:
        async with self.store.read() as tx:
            found = await tx.connection.exec_driver_sql(
                f"SELECT by, now FROM events WHERE what = '{what}' ORDER BY id"
            )
            return [tuple(row) for row in found]


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    upgrade(url(tmp_path))
    clock = ManualClock(NOW)
    store = await Store.open(url(tmp_path), clock)
    house = House(store, clock)
    async with store.write() as tx:
        house.host, user, house.osf, house.old, first = await furnish(tx)
        house.new = await tx.images.reserve_id(house.osf)
        await tx.images.add(
            house.new, house.osf, version="two", path="2-two.tar", sha256="1" * 64, size_bytes=1
        )
        house.vms = [first]
        for number in range(1, 4):
            house.vms.append(
                await tx.vms.add(
                    uuid=f"uuid-{number}x",
                    name=f"web-{number}x",
                    user_id=user,
                    osf_id=house.osf,
                    di_tag="default",
                    ip=f"10.9.0.{number + 6}",
                    subid_slot=number,
                )
            )
        for vm_id in house.vms:
            await run(tx, vm_id, house.host, house.old)
    yield house
    await store.close()


async def run(tx: Tx, vm_id: VmId, host: HostId, di_id: DiId) -> None:
    """Let a VM run an image, as far as rows tell."""
    place = {"vm_address": "10.9.0.9", "vm_vma_port": 3030, "vm_x_port": 5000}
    await tx.connection.execute(
        update(vm_runtimes)
        .where(vm_runtimes.c.vm_id == vm_id)
        .values(
            host_id=host,
            vm_state=VmState.RUNNING,
            vm_phase="running/monitoring",
            current_di_id=di_id,
            started_by=StartedBy.COMMAND,
            run=1,
            **place,
        )
    )


async def test_only_running_vms_of_the_tag_with_another_image_are_limited(house: House) -> None:
    await house.set(1, current_di_id=house.new)
    await house.set(2, vm_state=VmState.STOPPED, current_di_id=None, vm_address=None)
    async with house.store.write() as tx:
        await tx.vms.edit([house.vms[3]], {"di_tag": "pilot"})
    assert await house.tag(house.new) == 1
    assert [await house.limits(place) for place in range(4)] == [(SOFT, HARD)] + [(None, None)] * 3
    assert (await house.history("expire"))[0][1] == (
        f"soft {SOFT.isoformat()}, hard {HARD.isoformat()} for 1 VMs"
    )


async def test_a_limit_that_is_not_given_stays_and_an_empty_one_is_lifted(house: House) -> None:
    await house.tag(house.new)
    later = HARD + HOUR
    await house.tag(house.new, limits={Limit.HARD: later})
    assert await house.limits() == (SOFT, later)
    await house.tag(house.new, limits={Limit.SOFT: None})
    assert await house.limits() == (None, later)
    await house.tag(house.new, limits={})
    assert await house.limits() == (None, later)


async def test_a_tag_that_comes_back_lifts_the_limits(house: House) -> None:
    await house.tag(house.new)
    await house.tag(house.old, limits={})
    assert await house.limits() == (None, None)
    await house.clock.advance(24 * 3600)
    await house.look()
    assert (await house.vm()).runtime.vm_cmd is None


async def test_a_tag_that_is_taken_away_limits_those_that_run_its_image(house: House) -> None:
    await house.set(1, current_di_id=house.new)
    async with house.store.write() as tx:
        di = await tx.images.get(house.old)
        assert await images.untag(tx, di, "default", by="test", limits=BOTH) == 3
    assert await house.limits(0) == (SOFT, HARD)
    assert await house.limits(1) == (None, None)


async def test_limits_of_chosen_vms_hold_only_where_the_image_would_change(house: House) -> None:
    async with house.store.write() as tx:
        assert await expiry.stamp_vms(tx, house.vms, BOTH, by="test") == 0
    async with house.store.write() as tx:
        await images.tag(tx, await tx.images.get(house.new), "pilot", by="test")
        chosen = await tx.vms.find(Filter.where(id=house.vms[0]))
        await vms.edit(tx, Settings({}), chosen, {"di_tag": "pilot"}, by="test")
        assert await expiry.stamp_vms(tx, house.vms, BOTH, by="test") == 1
    assert await house.limits(0) == (SOFT, HARD)
    async with house.store.write() as tx:
        chosen = await tx.vms.find(Filter.where(id=house.vms[0]))
        await vms.edit(tx, Settings({}), chosen, {"di_tag": "default"}, by="test")
    assert await house.limits(0) == (None, None)


@pytest.mark.parametrize("way", ["stop", "restart"])
async def test_no_limit_survives_a_reboot(house: House, way: str) -> None:
    await house.tag(house.new)
    async with house.store.write() as tx:
        place = Placement(di_id=house.old, address="10.9.0.9", vma_port=3030, x_port=5000)
        if way == "restart":
            await tx.runtimes.place(house.vms[0], place)
        else:
            await tx.runtimes.save(
                house.vms[0],
                state=VmState.STOPPED,
                phase="stopped",
                restart=False,
                run=1,
                started_by=None,
                placement=None,
            )
    assert await house.limits() == (None, None)


async def test_a_hard_limit_restarts_whoever_would_be_missed_and_stops_the_others(house: House) -> None:
    await house.connect(1)
    await house.set(1, started_by=StartedBy.CLIENT)
    await house.set(2, started_by=StartedBy.CLIENT)
    await house.tag(house.new, limits={Limit.HARD: HARD})
    await house.clock.advance(9 * 3600 - 1)
    await house.look()
    assert [(await house.vm(place)).runtime.vm_cmd for place in range(4)] == [None] * 4
    await house.clock.advance(1)
    await house.look()
    rows = [(await house.vm(place)).runtime for place in range(3)]
    assert [(row.vm_cmd, row.restart) for row in rows] == [
        (VmCmd.STOP, True),
        (VmCmd.STOP, True),
        (VmCmd.STOP, False),
    ]
    assert house.rings == 1
    await house.look()
    assert house.rings == 1, "what is wished is not wished again"
    told = [now for _, now in await house.history("expire restart")]
    assert told == [f"di {house.new}: hard limit"] * 3
    assert await house.history("expire stop") == [("hkd", f"di {house.new}: hard limit")]


async def test_nobody_is_restarted_into_an_image_that_is_known_not_to_boot(house: House) -> None:
    async with house.store.write() as tx:
        await images.tag(tx, await tx.images.get(house.new), "default", by="test", limits=BOTH)
    await house.set(
        3,
        vm_state=VmState.STOPPED,
        current_di_id=None,
        vm_address=None,
        blocked=True,
        block_cause="image",
        failed_di_id=house.new,
        failures=2,
    )
    await house.clock.advance(10 * 3600)
    await house.look()
    assert (await house.vm()).runtime.vm_cmd is None
    await house.set(3, blocked=False, block_cause=None, failed_di_id=None, failures=0)
    await house.look()
    assert (await house.vm()).runtime.vm_cmd is VmCmd.STOP


async def test_whoever_is_due_is_asked_and_asked_again(house: House) -> None:
    async with house.store.write() as tx:
        await tx.osfs.edit([house.osf], {"postpone_times": 1, "postpone_s": 7200})
    await house.connect(0)
    await house.tag(house.new)
    await house.look()
    assert house.asked == []
    await house.clock.advance(3600)
    await house.look()
    await house.look()
    questions = [event.question for event in house.asked if isinstance(event, AskDue)]
    assert len(questions) == 4
    assert [(q.number, q.soft, q.hard, q.final, q.later_s, q.postponements) for q in questions[:1]] == [
        (1, SOFT, HARD, False, 7200, 1)
    ]
    async with house.store.write() as tx:
        await ageing.settle_answer(tx, house.vms[0], 1, restart=False)
        await ageing.settle_answer(tx, house.vms[0], 1, restart=False)
    runtime = (await house.vm()).runtime
    assert (runtime.expire_answered, runtime.expire_postponed) == (1, 1)
    assert runtime.expire_next_ts == house.clock.now() + 2 * HOUR
    house.asked.clear()
    await house.clock.advance(3600)
    await house.look()
    assert {event.vm_id for event in house.asked} == set(house.vms[1:]), "the first has put it off"


async def test_a_yes_is_a_wish_for_a_restart(house: House) -> None:
    await house.tag(house.new)
    await house.clock.advance(3600)
    await house.look()
    async with house.store.write() as tx:
        await ageing.settle_answer(tx, house.vms[0], 1, restart=True)
    runtime = (await house.vm()).runtime
    assert (runtime.vm_cmd, runtime.restart) == (VmCmd.STOP, True)
    assert ("user:alice", f"di {house.new}") in await house.history("expire restart")


async def test_a_question_of_which_the_guest_knows_nothing_is_put_again(house: House) -> None:
    await house.tag(house.new)
    await house.clock.advance(3600)
    await house.look()
    async with house.store.write() as tx:
        await ageing.settle_answer(tx, house.vms[0], None, restart=True)
        await ageing.settle_answer(tx, house.vms[1], 0, restart=True)
        await ageing.note_silent(tx, house.vms[2], 1)
    rows = [(await house.vm(place)).runtime for place in range(3)]
    assert [row.vm_cmd for row in rows] == [None] * 3
    assert [row.expire_answered for row in rows] == [0, 0, 1]
    house.asked.clear()
    await house.clock.advance(60)
    await house.look()
    assert {event.vm_id for event in house.asked} == set(house.vms[:2])


async def test_whoever_comes_after_a_question_to_nobody_is_asked(house: House) -> None:
    await house.connect(1)
    await house.tag(house.new)
    await house.clock.advance(3600)
    await house.look()
    async with house.store.write() as tx:
        for place in (0, 1):
            await ageing.settle_answer(tx, house.vms[place], 1, restart=False)
        await ageing.note_silent(tx, house.vms[2], 1)
    house.asked.clear()
    await house.clock.advance(60)
    for place in (0, 1, 2):
        await house.connect(place)
    await house.look()
    assert {event.vm_id for event in house.asked} == {house.vms[0], house.vms[2]}, "the second was there"
    await house.look()
    assert len(house.asked) == 2


async def test_a_question_is_taken_back_when_its_limits_are_lifted(house: House) -> None:
    await house.tag(house.new)
    await house.clock.advance(3600)
    await house.look()
    async with house.store.write() as tx:
        await ageing.settle_answer(tx, house.vms[1], 1, restart=False)
    house.asked.clear()
    await house.tag(house.old, limits={})
    await house.look()
    await house.look()
    assert {event.vm_id for event in house.asked} == {house.vms[0], *house.vms[2:]}
    assert {event.question.withdrawn for event in house.asked if isinstance(event, AskDue)} == {True}
    assert len(house.asked) == 3, "only once, as long as it may be under way"
    await house.clock.advance(60)
    await house.look()
    assert len(house.asked) == 6, "whom it did not reach is told again"
    async with house.store.write() as tx:
        for vm_id in house.vms:
            await ageing.note_silent(tx, vm_id, 1)
    await house.clock.advance(60)
    await house.look()
    assert len(house.asked) == 6
    await house.tag(house.new, limits={Limit.SOFT: house.clock.now()})
    await house.look()
    assert {q.question.number for q in house.asked[6:] if isinstance(q, AskDue)} == {2}


async def test_the_hook_of_the_host_is_told_of_each_limit_once(house: House) -> None:
    await house.tag(house.new)
    for hours in (1, 1, 7):
        await house.clock.advance(hours * 3600)
        await house.look()
    async with house.store.read() as tx:
        told = [json.loads(notice.concerned) for notice in await tx.notices.find()]
    limits = [(one["limit"], one["vm"]["id"]) for one in told if "limit" in one]
    assert limits == [("soft", vm) for vm in house.vms] + [("hard", vm) for vm in house.vms]
    (first, *_) = [one for one in told if "limit" in one]
    assert (first["user"]["login"], first["osf"]["name"], first["by"]) == ("alice", "desktop", "hkd")


async def test_no_more_than_a_batch_move_at_once(house: House) -> None:
    await house.tag(house.new)
    house.settings = {"expire.batch": "2"}
    await house.clock.advance(9 * 3600)
    await house.look()
    await house.look()
    moving = [place for place in range(4) if (await house.vm(place)).runtime.vm_cmd is VmCmd.STOP]
    assert moving == [0, 1]
    there = {"vm_cmd": None, "restart": False, "vm_expiration_soft": None, "vm_expiration_hard": None}
    await house.set(0, current_di_id=house.new, **there)
    await house.look()
    assert (await house.vm(2)).runtime.vm_cmd is VmCmd.STOP
    assert (await house.vm(3)).runtime.vm_cmd is None


async def test_who_waits_for_the_host_takes_no_place_in_a_batch(house: House) -> None:
    await house.set(1, vm_state=VmState.STARTING, vm_phase=Phase.CLONING)
    async with house.store.read() as tx:
        assert await tx.ageing.moving(house.host) == 1
    await house.set(1, vm_phase=Phase.WAITING)
    async with house.store.read() as tx:
        assert await tx.ageing.moving(house.host) == 0


async def test_an_image_that_boots_elsewhere_is_not_known_not_to_boot(house: House) -> None:
    await house.tag(house.new)
    for place in (2, 3):
        await house.set(place, failed_di_id=house.new, failures=1)
    await house.clock.advance(9 * 3600)
    await house.look()
    assert (await house.vm()).runtime.vm_cmd is None, "it has failed twice, and runs nowhere"
    await house.set(1, current_di_id=house.new)
    await house.look()
    assert (await house.vm()).runtime.vm_cmd is VmCmd.STOP


async def test_who_lies_idle_or_stays_too_long(house: House) -> None:
    async with house.store.write() as tx:
        await tx.osfs.edit([house.osf], {"idle_limit_s": 7200, "session_limit_s": 3600})
    for place in range(4):
        await house.set(place, vm_state_ts=NOW)
    await house.connect(0)
    await house.clock.advance(3600)
    await house.look()
    first = (await house.vm(0)).runtime
    assert (first.user_cmd, first.vm_cmd) == ("abort", None)
    await house.clock.advance(3600)
    await house.look()
    rows = [(await house.vm(place)).runtime for place in range(4)]
    assert [(row.vm_cmd, row.restart) for row in rows] == [(None, False)] + [(VmCmd.STOP, False)] * 3


async def test_the_vms_of_another_host_are_its_own_affair(house: House) -> None:
    async with house.store.write() as tx:
        other = await tx.hosts.add("node2", "127.0.0.2")
    await house.set(0, host_id=other)
    await house.tag(house.new)
    await house.clock.advance(10 * 3600)
    await house.look()
    assert (await house.vm(0)).runtime.vm_cmd is None
    assert (await house.vm(1)).runtime.vm_cmd is VmCmd.STOP


async def test_who_is_concerned_is_told_beforehand(house: House) -> None:
    await house.tag(house.new, limits={})
    await house.set(1, current_di_id=house.new)
    async with house.store.read() as tx:
        found = await expiry.concerned(tx, house.osf, "default")
    assert [(vm.id, vm.user) for vm in found] == [
        (vm_id, "alice") for vm_id in (house.vms[0], *house.vms[2:])
    ]
