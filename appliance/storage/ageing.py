"""Repository of limits: which VMs run another image than they would boot, until when, and what was asked."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, func, or_, select, update

from appliance.model import AgeingVm, DiId, HostId, Limit, OsfId, VmCmd, VmId, VmState
from appliance.storage.connection import Connection
from appliance.storage.osfs import AGEING, policy
from appliance.storage.runtimes import LIFTED, would_boot
from appliance.storage.schema import di_tags, dis, osfs, users, vm_runtimes, vms

ROW = vm_runtimes.c
FIELDS = AgeingVm.__dataclass_fields__.keys() - {"ageing", "next_is_bad"}
BAD_AFTER = 2
"""An image that has failed so often, on whichever VMs, and runs nowhere, is known not to boot."""
WAITS = "starting/waiting"
"""The phase of a VM that waits for its host, as the row has it."""
IN_USE = (VmState.STARTING, VmState.RUNNING, VmState.DEBUGGING)

NEW: dict[Limit, dict[str, Any]] = {
    Limit.SOFT: {"expire_next_ts": None, "expire_untold": False, "expire_unseen": False},
    Limit.HARD: {"expire_warned": False},
}
"""What a new limit makes of the questions before it: only a new soft one is asked for anew."""
Limits = Mapping[Limit, datetime | None]
"""The limits that are given: an instant, or None to lift it. One that is absent stays as it is."""

NO_LIMITS: Limits = {}


class Ageing:
    """The limits of VMs."""

    def __init__(self, connection: Connection, at: datetime) -> None:
        self._connection = connection
        self._at = at

    async def concerned(self, host_id: HostId) -> list[AgeingVm]:
        """The VMs in use on a host that have a limit or an open question, or limits by their OSF."""
        has_limit = or_(
            ROW.vm_expiration_soft.is_not(None),
            ROW.vm_expiration_hard.is_not(None),
            osfs.c.idle_limit_s.is_not(None),
            osfs.c.session_limit_s.is_not(None),
            ROW.expire_answered < ROW.expire_asked,
        )
        return await self._find(ROW.host_id == host_id, ROW.vm_state.in_(IN_USE), has_limit)

    async def stamp_followers(
        self, osf_id: OsfId, tag: str, limits: Limits, *, but: DiId | None = None, running: DiId | None = None
    ) -> int:
        """Give limits to the VMs that follow a tag: to those that run any image `but` one, or only one.

        Returns how many have them now.
        """
        follow = select(vms.c.id).where(vms.c.osf_id == osf_id, vms.c.di_tag == tag)
        image = ROW.current_di_id != but if running is None else ROW.current_di_id == running
        return await self._stamp(limits, ROW.vm_id.in_(follow), image)

    async def stamp(self, ids: Collection[VmId], limits: Limits) -> int:
        """Give limits to those of these VMs that run another image than they would boot; returns how many."""
        return await self._stamp(limits, ROW.vm_id.in_(ids), ROW.current_di_id.is_distinct_from(would_boot()))

    async def settle(self) -> int:
        """Lift every limit of VMs that run what they would boot: it is over. Returns how many there were."""
        limited = or_(ROW.vm_expiration_soft.is_not(None), ROW.vm_expiration_hard.is_not(None))
        over = update(vm_runtimes).where(limited, ROW.current_di_id == would_boot()).values(**LIFTED)
        return (await self._connection.execute(over)).rowcount

    async def in_use(self, osf_id: OsfId, tag: str) -> list[AgeingVm]:
        """The VMs in use that follow a tag."""
        return await self._find(
            vms.c.osf_id == osf_id,
            vms.c.di_tag == tag,
            ROW.vm_state.in_(IN_USE),
            ROW.current_di_id.is_not(None),
        )

    async def moving(self, host_id: HostId) -> int:
        """How many VMs of a host stop or start now, or are to stop; not those that wait for the host."""
        moves = or_(
            and_(ROW.vm_state == VmState.STARTING, ROW.vm_phase.is_distinct_from(WAITS)),
            ROW.vm_state == VmState.STOPPING,
            and_(ROW.vm_state == VmState.RUNNING, ROW.vm_cmd == VmCmd.STOP),
        )
        found = await self._connection.scalar(
            select(func.count()).select_from(vm_runtimes).where(ROW.host_id == host_id, moves)
        )
        return int(found or 0)

    async def ask(self, vm_id: VmId, *, again: datetime, warned: bool) -> int:
        """Note that a VM is asked now, and when it is asked again; returns which question this is."""
        values = {"expire_asked": ROW.expire_asked + 1, "expire_next_ts": again}
        values |= {"expire_untold": False, "expire_unseen": False}
        if warned:
            values["expire_warned"] = True
        asked = update(vm_runtimes).where(ROW.vm_id == vm_id).values(**values).returning(ROW.expire_asked)
        return int((await self._connection.execute(asked)).scalar_one())

    async def ask_anew(self, vm_id: VmId, *, at: datetime) -> None:
        """The open question has not reached its VM: it is put again at `at`.

        With limits that are newer than the question it is as with all new limits.
        """
        is_open = (ROW.expire_answered < ROW.expire_asked, ROW.expire_next_ts.is_not(None))
        await self._connection.execute(
            update(vm_runtimes)
            .where(ROW.vm_id == vm_id, *is_open)
            .values(expire_next_ts=at, expire_untold=True)
        )

    async def withdraw(self, vm_id: VmId, *, again: datetime) -> int:
        """Note that the open question of a VM is taken back now, and when that is tried again; its number."""
        values = {"expire_next_ts": again, "expire_untold": True}
        taken_back = update(vm_runtimes).where(ROW.vm_id == vm_id).values(**values)
        found = await self._connection.execute(taken_back.returning(ROW.expire_asked))
        return int(found.scalar_one())

    async def answer(
        self,
        vm_id: VmId,
        ask: int,
        *,
        again: datetime | None = None,
        postponed: bool = False,
        unseen: bool = False,
    ) -> bool:
        """Note the answer to a question, once; `again` says when to ask next, None that it stays as it is.

        `unseen`: nobody was there who could have answered.
        """
        values: dict[str, Any] = {"expire_answered": ask, "expire_untold": False, "expire_unseen": unseen}
        if again is not None:
            values["expire_next_ts"] = again
        if postponed:
            values["expire_postponed"] = ROW.expire_postponed + 1
        noted = (
            update(vm_runtimes)
            .where(ROW.vm_id == vm_id, ROW.expire_answered < ask, ROW.expire_asked >= ask)
            .values(**values)
        )
        return (await self._connection.execute(noted)).rowcount == 1

    async def get(self, vm_id: VmId) -> AgeingVm | None:
        """One VM, if it is in use."""
        found = await self._find(ROW.vm_id == vm_id, ROW.vm_state.in_(IN_USE))
        return found[0] if found else None

    async def _stamp(self, limits: Limits, *which: ColumnElement[bool]) -> int:
        if not limits:
            return 0
        values: dict[str, Any] = {}
        for limit, at in limits.items():
            values |= {f"vm_expiration_{limit}": at, **NEW[limit]}
        alive = (ROW.vm_state != VmState.STOPPED, ROW.current_di_id.is_not(None), *which)
        stamped = await self._connection.execute(update(vm_runtimes).where(*alive).values(**values))
        if None in limits.values():
            lifted = (ROW.vm_expiration_soft.is_(None), ROW.vm_expiration_hard.is_(None))
            await self._connection.execute(update(vm_runtimes).where(*alive, *lifted).values(**LIFTED))
        return stamped.rowcount

    async def _find(self, *which: ColumnElement[bool]) -> list[AgeingVm]:
        rows = (await self._connection.execute(_SELECT.where(*which).order_by(vms.c.id))).all()
        bad = await self.bad_images() if rows else set()
        return [_vm(row, bad) for row in rows]

    async def bad_images(self) -> set[DiId]:
        """The DIs into which nobody is to be restarted: blocked, or known not to boot."""
        blocked = await self._connection.scalars(select(dis.c.id).where(dis.c.blocked))
        return await self.failing_images() | {DiId(di_id) for di_id in blocked}

    async def holding_back(self) -> dict[DiId, int]:
        """The DIs that are known not to boot, and how many VMs have limits that do not move them there."""
        if not (failing := await self.failing_images()):
            return {}
        limited = or_(ROW.vm_expiration_soft.is_not(None), ROW.vm_expiration_hard.is_not(None))
        held = select(would_boot().label("di"), func.count().label("held")).where(limited)
        rows = await self._connection.execute(held.where(would_boot().in_(failing)).group_by("di"))
        return {DiId(row.di): row.held for row in rows}

    async def failing_images(self) -> set[DiId]:
        """The DIs that are known not to boot: they have failed again and again, and nothing runs them."""
        failed = (
            select(ROW.failed_di_id)
            .where(ROW.failed_di_id.is_not(None))
            .group_by(ROW.failed_di_id)
            .having(func.sum(ROW.failures) >= BAD_AFTER)
        )
        failing = {DiId(di_id) for di_id in await self._connection.scalars(failed)}
        if not failing:
            return failing
        runs = select(ROW.current_di_id).where(
            ROW.vm_state == VmState.RUNNING, ROW.current_di_id.in_(failing)
        )
        return failing - set(await self._connection.scalars(runs.distinct()))


def _select() -> Select[Any]:
    follows = and_(di_tags.c.osf_id == vms.c.osf_id, di_tags.c.tag == vms.c.di_tag)
    return (
        select(
            vms.c.id,
            vms.c.name,
            users.c.login.label("user"),
            *(ROW[name] for name in FIELDS - {"id", "name", "user", "next_di_id"}),
            di_tags.c.di_id.label("next_di_id"),
            *(osfs.c[name] for name in AGEING),
        )
        .join(vm_runtimes, ROW.vm_id == vms.c.id)
        .join(osfs, osfs.c.id == vms.c.osf_id)
        .join(users, users.c.id == vms.c.user_id)
        .outerjoin(di_tags, follows)
    )


_SELECT = _select()


def _vm(row: Any, bad: Collection[DiId]) -> AgeingVm:
    values = {name: row._mapping[name] for name in FIELDS}
    return AgeingVm(**values, next_is_bad=row.next_di_id in bad, ageing=policy(row))
