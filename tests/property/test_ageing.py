"""A hostile world: images, people and the daemon do as they please, and no limit does what it should not."""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import insert, update

from appliance.errors import ApplianceError, ImageError
from appliance.model import DiId, Limit, SessionId, StartedBy, UserState, VmId, VmState
from appliance.ops import expiry, images, vms
from appliance.storage import schema
from appliance.storage.ageing import Limits
from appliance.storage.schema import vm_runtimes
from appliance.vma.wire import Answer
from tests.support.asked_vma import Users
from tests.support.host import Rig, rig
from tests.support.moved import MovedClock

VMS = [VmId(1), VmId(2)]
DIS = [DiId(1), DiId(2), DiId(3)]
DAY = timedelta(days=1)
QUIET_S = 15.0
"""How long the world may take in truth to do what is long due on its calendar."""
NOTES = """
CREATE TABLE noted (vm INTEGER, was TEXT, hard INTEGER, runs INTEGER, next INTEGER, by TEXT);
CREATE TRIGGER note AFTER INSERT ON events WHEN NEW.what IN ('expire restart', 'expire stop')
BEGIN
  INSERT INTO noted SELECT r.vm_id, NEW.now, (SELECT r.vm_expiration_hard <= NEW.at), r.current_di_id,
    (SELECT t.di_id FROM di_tags t JOIN vms v ON v.osf_id = t.osf_id AND v.di_tag = t.tag
      WHERE v.id = r.vm_id), NEW.by
  FROM vm_runtimes r WHERE 'vm ' || r.vm_id = NEW.object;
END;
"""
"""What is true of a VM at the moment in which it is restarted or stopped for its age."""

Step: TypeAlias = tuple[Any, ...]

both = st.tuples(st.integers(0, 30), st.integers(30, 200)).map(
    lambda minutes: dict(zip((Limit.SOFT, Limit.HARD), minutes, strict=True))
)
either = st.fixed_dictionaries(
    {}, optional={limit: st.none() | st.integers(0, 100) for limit in (Limit.SOFT, Limit.HARD)}
)
limits = st.one_of(both, both, both, either)
policies = st.fixed_dictionaries(
    {
        "expire_idle": st.booleans(),
        "expire_on_disconnect": st.booleans(),
        "postpone_times": st.just(2),
        "postpone_s": st.sampled_from([60, 7200]),
        "expire_warn_s": st.sampled_from([0, 900]),
    }
)
a_vm = st.sampled_from(VMS)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("start"), a_vm),
        st.tuples(st.just("stop"), a_vm, st.booleans()),
        st.tuples(st.just("tag"), st.sampled_from(DIS), limits),
        st.tuples(st.just("tag"), st.sampled_from(DIS), limits),
        st.tuples(st.just("limit"), a_vm, limits),
        st.tuples(st.just("come"), a_vm),
        st.tuples(st.just("leave"), a_vm),
        st.tuples(st.just("answer"), a_vm, st.sampled_from([Answer.RESTART, Answer.LATER])),
        st.tuples(st.just("break"), st.sampled_from(DIS), st.booleans()),
        st.tuples(st.just("depart"), a_vm),
        st.tuples(st.just("policy"), policies),
        *[st.tuples(st.just("pass"), st.integers(0, 100))] * 3,
        st.tuples(st.just("settle")),
        st.tuples(st.just("kill")),
    ),
    min_size=5,
    max_size=30,
)


@dataclass
class World:
    """Two desktops, three images, and everybody who does something to them."""

    host: Rig
    clock: MovedClock
    users: Users
    daemon: AsyncExitStack = field(default_factory=AsyncExitStack)

    async def begin(self) -> None:
        """Start the daemon."""
        await self.daemon.enter_async_context(self.host.hkd())

    async def populate(self) -> None:
        """Let every desktop run."""
        for vm_id in VMS:
            await self.host.wish("start", vm_id)
        for vm_id in VMS:
            await self.host.until_state(vm_id, VmState.RUNNING)

    async def do(self, step: Step) -> None:
        """Let something happen."""
        match step:
            case ("start", vm_id):
                await self._written(vms.start, [vm_id], by="test", started_by=StartedBy.COMMAND)
            case ("stop", vm_id, restart):
                await self._written(vms.stop, [vm_id], by="test", restart=restart)
            case ("tag", di_id, given):
                async with self.host.store.write() as tx:
                    di = await tx.images.get(di_id)
                    await images.tag(tx, di, "default", by="test", limits=self._dates(given))
            case ("limit", vm_id, given):
                await self._written(expiry.stamp_vms, [vm_id], self._dates(given), by="test")
            case ("come", vm_id):
                await self._session(vm_id, UserState.CONNECTED)
            case ("leave", vm_id):
                await self._session(vm_id, UserState.DISCONNECTED)
            case ("answer", vm_id, answer):
                self.users.answers(vm_id, answer)
            case ("break", di_id, True):
                self.host.backend.bad_images[di_id] = ImageError("it does not boot")
            case ("break", di_id, False):
                self.host.backend.bad_images.pop(di_id, None)
            case ("depart", vm_id):
                if vm_id in self.host.backend.running:
                    self.host.backend.depart(vm_id)
            case ("policy", policy):
                async with self.host.store.write() as tx:
                    await tx.osfs.edit([osf.id for osf in await tx.osfs.find()], policy)
            case ("pass", minutes):
                self.clock.ahead += timedelta(minutes=minutes)
                await self.settle()
            case ("settle",):
                await self.settle()
            case ("kill",):
                await self.daemon.aclose()
                await self.begin()

    async def settle(self) -> None:
        """Have the limits looked at now, however busy this machine is."""
        assert self.host.ager is not None
        await self.host.ager.look()
        await asyncio.sleep(0.05)
        await self.check()

    async def check(self) -> None:
        """What holds at every commit."""
        async with self.host.store.read() as tx:
            for vm in await tx.vms.find():
                runtime = vm.runtime
                if runtime.vm_expiration_soft or runtime.vm_expiration_hard:
                    differs = runtime.current_di_id != vm.next_di_id
                    assert differs, f"{vm.name} has limits and runs what it would boot"
                    assert runtime.vm_state is not VmState.STOPPED
            for was, hard, runs, following, by in await tx.connection.exec_driver_sql(
                "SELECT was, hard, runs, next, by FROM noted"
            ):
                assert runs != following, f"restarted for the image that it ran: {was}"
                assert hard or not was.endswith("hard limit"), "a hard limit came early"
                assert by == "hkd" or by.startswith("user:")

    async def calm_down(self) -> None:
        """From now on everybody behaves, and all desktops are to be on one other image within a day."""
        self.host.backend.bad_images.clear()
        async with self.host.store.write() as tx:
            await vms.unblock(tx, VMS, by="test")
            runs = (await tx.vms.get(VMS[0])).runtime.current_di_id
            other = await tx.images.get(next(di for di in DIS if di != runs))
            await images.tag(tx, other, "default", by="test")
            due = {Limit.HARD: self.clock.now() + DAY}
            await expiry.stamp_vms(tx, VMS, due, by="test")
        await asyncio.sleep(0.1)
        self.clock.ahead += DAY + timedelta(seconds=60)
        async with asyncio.timeout(QUIET_S):
            while not await self._is_current():
                await asyncio.sleep(0.05)
        await self.check()

    async def _is_current(self) -> bool:
        async with self.host.store.read() as tx:
            found = await tx.vms.find()
        return all(
            vm.runtime.vm_cmd is None
            and (
                vm.runtime.vm_state is VmState.STOPPED
                or (vm.runtime.vm_state is VmState.RUNNING and not vm.outdated)
            )
            for vm in found
        )

    def _dates(self, given: dict[Limit, int | None]) -> Limits:
        now = self.clock.now()
        return {
            limit: None if minutes is None else now + timedelta(minutes=minutes)
            for limit, minutes in given.items()
        }

    async def _written(self, act: Any, *words: Any, **named: Any) -> None:
        try:
            async with self.host.store.write() as tx:
                await act(tx, *words, **named)
        except ApplianceError:
            return

    async def _session(self, vm_id: VmId, state: UserState) -> None:
        session = None if state is UserState.DISCONNECTED else SessionId("s")
        async with self.host.store.write() as tx:
            await tx.connection.execute(
                update(vm_runtimes)
                .where(vm_runtimes.c.vm_id == vm_id, vm_runtimes.c.vm_state == VmState.RUNNING)
                .values(user_state=state, user_state_ts=self.clock.now(), user_cmd=None, l7r_session=session)
            )


async def happen(directory: Path, story: Sequence[Step]) -> None:
    """Let a story happen, and the world come to rest."""
    clock, users = MovedClock(), Users()
    async with rig(directory, desktops=len(VMS), clock=clock, vma=users.vma) as host:
        host.look_s = 0.02
        host.backend.launched = users.reboots
        async with host.store.write() as tx:
            for di_id in DIS[1:]:
                await tx.connection.execute(
                    insert(schema.dis).values(
                        id=di_id,
                        osf_id=1,
                        path=f"{di_id}.tar",
                        version=f"v{di_id}",
                        sha256="",
                        size_bytes=1,
                        created=tx.at,
                    )
                )
        connection = sqlite3.connect(directory / "qvd.db")
        connection.executescript(NOTES)
        connection.close()
        world = World(host, clock, users)
        async with world.daemon:
            await world.begin()
            await world.populate()
            for step in story:
                await world.do(step)
            await world.check()
            await world.calm_down()


@pytest.mark.timeout(300)
@settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(steps)
@example([("tag", DiId(2), {Limit.SOFT: 10, Limit.HARD: 200}), ("pass", 20), ("pass", 100)])
@example([("tag", DiId(2), {Limit.HARD: 10}), ("kill",), ("tag", DiId(1), {}), ("pass", 20)])
@example([("tag", DiId(2), {Limit.HARD: 10}), ("stop", VmId(1), True), ("settle",), ("pass", 20)])
def test_whatever_happens_limits_do_no_harm_and_their_work(story: list[Step]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(happen(Path(directory), story))
