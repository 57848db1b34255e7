"""Repository of limits: which VMs run another image than they would boot, until when, and what was asked."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, case, or_, select, true, update

from appliance.model import AgeingVm, BlockCause, DiId, HostId, Limit, OsfId, VmId, VmState
from appliance.storage.connection import Connection
from appliance.storage.osfs import AGEING, policy
from appliance.storage.runtimes import UNASKED, UNLIMITED, would_boot
from appliance.storage.schema import di_tags, osfs, users, vm_runtimes, vms

ROW = vm_runtimes.c
_blocking = vm_runtimes.alias("blocking")
FIELDS = AgeingVm.__dataclass_fields__.keys() - {"ageing", "next_is_bad"}
IN_USE = (VmState.STARTING, VmState.RUNNING, VmState.DEBUGGING)

Limits = Mapping[Limit, datetime | None]
"""The limits that are given: an instant, or None to lift it. One that is absent stays as it is."""

NO_LIMITS: Limits = {}


class Ageing:
    """The limits of VMs."""

    def __init__(self, connection: Connection, at: datetime) -> None:
        self._connection = connection
        self._at = at

    async def concerned(self, host_id: HostId) -> list[AgeingVm]:
        """The VMs in use on a host that have a limit, or whose OSF has one for lying idle or staying."""
        has_limit = or_(
            ROW.vm_expiration_soft.is_not(None),
            ROW.vm_expiration_hard.is_not(None),
            osfs.c.idle_limit_s.is_not(None),
            osfs.c.session_limit_s.is_not(None),
        )
        return await self._find(ROW.host_id == host_id, ROW.vm_state.in_(IN_USE), has_limit)

    async def differing(
        self, *, osf_id: OsfId | None = None, tag: str | None = None, ids: Collection[VmId] | None = None
    ) -> list[AgeingVm]:
        """The VMs that run another image than they would boot: of an OSF, of a tag, or of these."""
        which: list[ColumnElement[bool]] = [true()]
        if osf_id is not None:
            which.append(vms.c.osf_id == osf_id)
        if tag is not None:
            which.append(vms.c.di_tag == tag)
        if ids is not None:
            which.append(vms.c.id.in_(ids))
        return await self._find(
            *which, ROW.current_di_id.is_not(None), ROW.current_di_id.is_distinct_from(di_tags.c.di_id)
        )

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
        over = update(vm_runtimes).where(limited, ROW.current_di_id == would_boot()).values(**UNLIMITED)
        return (await self._connection.execute(over)).rowcount

    async def ask(self, vm_id: VmId, *, again: datetime, warned: bool) -> int:
        """Note that a VM is asked now, and when it is asked again; returns which question this is."""
        values = {"expire_asked": ROW.expire_asked + 1, "expire_next_ts": again}
        if warned:
            values["expire_warned"] = True
        asked = update(vm_runtimes).where(ROW.vm_id == vm_id).values(**values).returning(ROW.expire_asked)
        return int((await self._connection.execute(asked)).scalar_one())

    async def ask_anew(self, vm_id: VmId, *, at: datetime) -> None:
        """A question has not reached its VM: it is put again at `at`, a warning at once."""
        await self._connection.execute(
            update(vm_runtimes).where(ROW.vm_id == vm_id).values(expire_next_ts=at, expire_warned=False)
        )

    async def answer(self, vm_id: VmId, ask: int, *, again: datetime | None, postponed: bool) -> bool:
        """Note the answer to a question, once; `again` says when to ask next, None that it stays as it is."""
        values: dict[str, Any] = {"expire_answered": ask}
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
        values = {f"vm_expiration_{limit}": at for limit, at in limits.items()} | UNASKED
        if not limits:
            return 0
        alive = (ROW.vm_state != VmState.STOPPED, ROW.current_di_id.is_not(None))
        stamped = update(vm_runtimes).where(*alive, *which).values(**values)
        return (await self._connection.execute(stamped)).rowcount

    async def _find(self, *which: ColumnElement[bool]) -> list[AgeingVm]:
        rows = (await self._connection.execute(_SELECT.where(*which).order_by(vms.c.id))).all()
        return [_vm(row) for row in rows]


def _select() -> Select[Any]:
    blocks = and_(_blocking.c.block_cause == BlockCause.IMAGE, _blocking.c.failed_di_id == di_tags.c.di_id)
    bad = select(_blocking.c.vm_id).where(blocks).correlate(di_tags).exists()
    follows = and_(di_tags.c.osf_id == vms.c.osf_id, di_tags.c.tag == vms.c.di_tag)
    return (
        select(
            vms.c.id,
            vms.c.name,
            users.c.login.label("user"),
            *(ROW[name] for name in FIELDS - {"id", "name", "user", "next_di_id"}),
            di_tags.c.di_id.label("next_di_id"),
            case((bad, True), else_=False).label("next_is_bad"),
            *(osfs.c[name] for name in AGEING),
        )
        .join(vm_runtimes, ROW.vm_id == vms.c.id)
        .join(osfs, osfs.c.id == vms.c.osf_id)
        .join(users, users.c.id == vms.c.user_id)
        .outerjoin(di_tags, follows)
    )


_SELECT = _select()


def _vm(row: Any) -> AgeingVm:
    values = row._mapping
    return AgeingVm(
        **{name: values[name] for name in FIELDS}, next_is_bad=bool(row.next_is_bad), ageing=policy(row)
    )
