"""The HKD's rows: wishes claimed, states saved, sessions reset, failures recorded."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import (
    ScalarSelect,
    Update,
    and_,
    bindparam,
    case,
    false,
    func,
    literal,
    null,
    or_,
    select,
    update,
)

from appliance.model import (
    BackendKind,
    BlockCause,
    DiId,
    FailureCause,
    HostId,
    StartedBy,
    UserState,
    VmCmd,
    VmId,
    VmState,
)
from appliance.storage.connection import Connection
from appliance.storage.schema import di_tags, osfs, vm_counters, vm_runtimes, vms

ROW = vm_runtimes.c
NO_FAILURE = dict.fromkeys(("failure", "failure_console", "failure_cause", "failed_at", "waits_for"))
NO_COUNT = {"failed_di_id": None, "failures": 0}
BEFORE = (
    *(ROW.vm_state, ROW.vm_state_ts, ROW.vm_phase),
    *(ROW.run, ROW.current_di_id, ROW.block_cause, ROW.waits_for),
)
PLACE = ("current_di_id", "vm_address", "vm_vma_port", "vm_x_port")
UNPLACED: dict[str, Any] = dict.fromkeys(
    (*PLACE, "vm_ssh_port", "vm_vnc_port", "vm_mon_port", "vm_serial_port")
)
LIFTED: dict[str, Any] = {
    "vm_expiration_soft": None,
    "vm_expiration_hard": None,
    "expire_next_ts": None,
    "expire_warned": False,
    "expire_untold": False,
    "expire_unseen": False,
    "expire_postponed": 0,
}
UNLIMITED: dict[str, Any] = LIFTED | {"expire_asked": 0, "expire_answered": 0}
"""No limit survives a reboot: it was about the image that ran before."""
UNDER_WAY = (VmState.STARTING, VmState.RUNNING, VmState.DEBUGGING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A wish taken from a row: nobody else will take it."""

    vm_id: VmId
    backend: BackendKind
    wish: VmCmd
    restart: bool
    started_by: StartedBy
    run: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where a run of a VM can be reached, and from which image it was made, if from any."""

    di_id: DiId | None
    address: str
    vma_port: int
    x_port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Was:
    """What a row said before a state was saved."""

    vm_state: VmState
    current_di_id: DiId | None
    block_cause: BlockCause | None
    waits_for: str | None


class Runtimes:
    """The runtime rows as the HKD writes them."""

    def __init__(self, connection: Connection, at: datetime) -> None:
        self._connection = connection
        self._at = at

    async def claim(self, host_id: HostId) -> list[Claim]:
        """Take every wish of this host's VMs: stops first, each kind in one UPDATE (protocol.md 5.3).

        A claimed stop says `stopping`, and whether a start follows, in the same UPDATE; a stop of a VM
        that has stopped meanwhile is nothing, or the start that was to follow.
        """
        stops = await self._claimed(
            and_(ROW.host_id == host_id, ROW.vm_cmd == VmCmd.STOP, ROW.vm_state != VmState.STOPPED),
            vm_cmd=null(),
            vm_state=case(
                (ROW.vm_state.in_(UNDER_WAY), literal(VmState.STOPPING, ROW.vm_state.type)),
                else_=ROW.vm_state,
            ),
            vm_state_ts=case(
                (ROW.vm_state.in_(UNDER_WAY), literal(self._at, ROW.vm_state_ts.type)), else_=ROW.vm_state_ts
            ),
        )
        await self._connection.execute(
            update(vm_runtimes)
            .where(ROW.host_id == host_id, ROW.vm_cmd == VmCmd.STOP, ROW.vm_state == VmState.STOPPED)
            .values(
                vm_cmd=case((ROW.restart, literal(VmCmd.START, ROW.vm_cmd.type)), else_=null()), restart=False
            )
        )
        starts = await self._claimed(
            and_(ROW.host_id == host_id, ROW.vm_cmd == VmCmd.START, ROW.vm_state == VmState.STOPPED),
            vm_cmd=null(),
            vm_state=VmState.STARTING,
            vm_state_ts=self._at,
            vm_phase="starting/queued",
            run=ROW.run + 1,
            **NO_FAILURE,
        )
        return [
            *(self._as_claim(row, VmCmd.STOP) for row in stops),
            *(self._as_claim(row, VmCmd.START) for row in starts),
        ]

    async def save(
        self,
        vm_id: VmId,
        *,
        state: VmState,
        phase: str,
        restart: bool,
        run: int,
        started_by: StartedBy | None,
        placement: Placement | None,
    ) -> Was | None:
        """Write where a VM is in its life; returns what the row said before, None if there is no such VM.

        A wish that nobody has claimed yet is kept as it is; when the VM has ended, a restart becomes a start.
        The reason of a failure is kept until the VM runs or another run begins: while its start waits, too.
        """
        before = (await self._connection.execute(_BEFORE, {"vm": vm_id})).first()
        if before is None:
            return None
        placed = placement is not None and state is not VmState.STOPPED
        saving = _saving(state, another_run=run != before.run, placed=placed)
        values: dict[str, Any] = {
            "vm": vm_id,
            "state": state,
            "phase": phase,
            "since": before.vm_state_ts if before.vm_state is state else self._at,
            "run": run,
            "started_by": started_by,
            "restart": restart,
        }
        if placement is not None and placed:
            values |= _placing(placement)
        await self._connection.execute(saving, values)
        if before.vm_phase != phase:
            await self._count(vm_id, phase, before.vm_state, state)
        return Was(
            vm_state=before.vm_state,
            current_di_id=before.current_di_id,
            block_cause=before.block_cause,
            waits_for=before.waits_for,
        )

    async def place(self, vm_id: VmId, placement: Placement) -> None:
        """Say which image a starting VM is being made from, before anything is made.

        Limits end here: whatever they were about, the VM now boots what its tag points at.
        """
        await self._connection.execute(_PLACING, {"vm": vm_id, **_placing(placement)})

    async def record_failure(
        self, vm_id: VmId, reason: str, console: str, cause: FailureCause, *, waits_for: str | None = None
    ) -> None:
        """Keep why a run ended, whose fault it is, what the console showed last, and what is waited for."""
        values = {"failure": reason, "failure_console": console or None, "failure_cause": cause}
        await self._connection.execute(
            update(vm_runtimes)
            .where(ROW.vm_id == vm_id)
            .values(**values, failed_at=self._at, waits_for=waits_for)
        )

    async def count_failures(self, vm_id: VmId, di_id: DiId, number: int) -> None:
        """Remember how many runs in a row an image has failed."""
        await self._connection.execute(
            update(vm_runtimes).where(ROW.vm_id == vm_id).values(failed_di_id=di_id, failures=number)
        )

    async def block(self, vm_ids: Collection[VmId], cause: BlockCause) -> list[VmId]:
        """Block VMs; returns those that were not blocked for this cause before.

        A block by hand takes the place of an image's; not the other way round.
        """
        concerned = (
            ROW.block_cause.is_distinct_from(cause)
            if cause is BlockCause.ADMIN
            else ROW.block_cause.is_(None)
        )
        return await self._changed(
            update(vm_runtimes)
            .where(ROW.vm_id.in_(vm_ids), concerned)
            .values(blocked=True, block_cause=cause)
        )

    async def unblock(self, vm_ids: Collection[VmId]) -> list[VmId]:
        """Lift any block of VMs and forget what counted against their images; returns which were blocked."""
        blocked = await self._connection.scalars(
            select(ROW.vm_id).where(ROW.vm_id.in_(vm_ids), ROW.blocked).order_by(ROW.vm_id)
        )
        found = [VmId(vm_id) for vm_id in blocked]
        await self._connection.execute(
            update(vm_runtimes)
            .where(ROW.vm_id.in_(vm_ids))
            .values(blocked=False, block_cause=None, **NO_COUNT)
        )
        return found

    async def forget_other_images(self) -> list[VmId]:
        """Forget what was counted against an image that its VM would not boot any more.

        Blocks that rested on it are lifted; returns whose.
        """
        left = and_(ROW.failed_di_id.is_not(None), ROW.failed_di_id.is_distinct_from(would_boot()))
        lifted = await self._changed(
            update(vm_runtimes)
            .where(left, ROW.block_cause == BlockCause.IMAGE)
            .values(blocked=False, block_cause=None, **NO_COUNT)
        )
        await self._connection.execute(update(vm_runtimes).where(left).values(**NO_COUNT))
        return lifted

    async def blocked_by(self, di_id: DiId) -> int:
        """How many VMs are blocked because of an image."""
        blocked = (ROW.block_cause == BlockCause.IMAGE, ROW.failed_di_id == di_id)
        return await self._connection.scalar(select(func.count()).where(*blocked)) or 0

    async def blocking_images(self) -> list[DiId]:
        """The images because of which VMs are blocked."""
        found = await self._connection.scalars(
            select(ROW.failed_di_id).where(ROW.block_cause == BlockCause.IMAGE).distinct()
        )
        return [DiId(di_id) for di_id in found if di_id is not None]

    async def waiting_for(self, part: str) -> int:
        """How many VMs wait for a part of their host."""
        return await self._connection.scalar(select(func.count()).where(ROW.waits_for == part)) or 0

    async def found_here(self, vm_ids: Collection[VmId], host_id: HostId) -> None:
        """These VMs run on this host: say so in rows that know of no host, or of no run."""
        await self._connection.execute(
            update(vm_runtimes)
            .where(ROW.vm_id.in_(vm_ids), or_(ROW.host_id.is_(None), ROW.vm_state == VmState.STOPPED))
            .values(host_id=host_id)
        )

    async def begin_again(self, host_id: HostId, *, but: Collection[VmId]) -> None:
        """The host has booted: what ran on it is wanted again, but for these, which run already.

        To be called in the transaction that notes the boot. Whoever comes later cannot know of it.
        """
        await self._connection.execute(
            update(vm_runtimes)
            .where(
                ROW.host_id == host_id,
                ROW.vm_state.in_((VmState.RUNNING, VmState.DEBUGGING)),
                ROW.vm_id.not_in(but),
            )
            .values(
                vm_state=VmState.STARTING,
                vm_state_ts=self._at,
                vm_phase="starting/queued",
                run=ROW.run + 1,
                started_by=StartedBy.HOST,
                **NO_FAILURE,
                **UNPLACED,
                **UNLIMITED,
            )
        )

    async def reset_sessions(self, host_id: HostId) -> int:
        """Client connections died with the process that held them: say so in every row of this host (T9)."""
        result = await self._connection.execute(
            update(vm_runtimes)
            .where(
                ROW.user_state != UserState.DISCONNECTED,
                or_(ROW.l7r_host_id == host_id, ROW.l7r_host_id.is_(None)),
            )
            .values(
                user_state=UserState.DISCONNECTED,
                user_state_ts=self._at,
                user_cmd=null(),
                l7r_host_id=None,
                l7r_pid=None,
                l7r_session=None,
            )
        )
        return result.rowcount

    async def _claimed(self, which: Any, **values: Any) -> list[Any]:
        result = await self._connection.execute(
            update(vm_runtimes)
            .where(which)
            .values(**values)
            .returning(ROW.vm_id, ROW.restart, ROW.started_by, ROW.run)
        )
        rows = result.all()
        if not rows:
            return []
        kinds = await self._connection.execute(
            select(vms.c.id, osfs.c.backend)
            .join(osfs, vms.c.osf_id == osfs.c.id)
            .where(vms.c.id.in_([row.vm_id for row in rows]))
        )
        backend = {row.id: row.backend for row in kinds}
        return [(row, backend[row.vm_id]) for row in rows]

    async def _changed(self, row: Any) -> list[VmId]:
        return sorted(await self._connection.scalars(row.returning(ROW.vm_id)))

    @staticmethod
    def _as_claim(claimed: Any, wish: VmCmd) -> Claim:
        row, backend = claimed
        return Claim(
            vm_id=VmId(row.vm_id),
            backend=backend,
            wish=wish,
            restart=row.restart,
            started_by=row.started_by or StartedBy.COMMAND,
            run=row.run,
        )

    async def _count(self, vm_id: VmId, phase: str, before: VmState, state: VmState) -> None:
        if phase == "starting/cloning":
            column = vm_counters.c.run_attempts
        elif state is VmState.RUNNING and before is VmState.STARTING:
            column = vm_counters.c.run_ok
        else:
            return
        await self._connection.execute(_COUNTING[column.name], {"vm": vm_id})


def _stopped_values() -> dict[str, Any]:
    """A stopped VM holds nothing: no host (trap T7) unless a restart asked for meanwhile needs it."""
    start_follows = or_(ROW.vm_cmd == VmCmd.START, and_(ROW.vm_cmd == VmCmd.STOP, ROW.restart))
    return {
        **UNPLACED,
        "restart": False,
        "vm_cmd": case((start_follows, literal(VmCmd.START, ROW.vm_cmd.type)), else_=null()),
        "host_id": case((start_follows, ROW.host_id), else_=null()),
        "vma_ok_ts": None,
        **UNLIMITED,
    }


def _proven_values() -> dict[str, Any]:
    """The image boots after all: nothing is counted against it, and no block of this VM rests on it."""
    by_image = ROW.block_cause == BlockCause.IMAGE
    return NO_COUNT | {
        "blocked": case((by_image, false()), else_=ROW.blocked),
        "block_cause": case((by_image, null()), else_=ROW.block_cause),
    }


def would_boot() -> ScalarSelect[Any]:
    """The DI that the VM of a runtime row would boot next."""
    return (
        select(di_tags.c.di_id)
        .join(vms, and_(vms.c.osf_id == di_tags.c.osf_id, vms.c.di_tag == di_tags.c.tag))
        .where(vms.c.id == ROW.vm_id)
        .correlate(vm_runtimes)
        .scalar_subquery()
    )


@cache
def _saving(state: VmState, *, another_run: bool, placed: bool) -> Update:
    """The statement that saves a state; there are few, and to build one takes longer than to execute it."""
    values: dict[str, Any] = {
        "vm_state": bindparam("state"),
        "vm_phase": bindparam("phase"),
        "vm_state_ts": bindparam("since"),
        "run": bindparam("run"),
        "started_by": bindparam("started_by"),
        "restart": case(
            (ROW.vm_cmd == VmCmd.STOP, ROW.restart), else_=bindparam("restart", type_=ROW.restart.type)
        ),
    }
    if state is VmState.STOPPED:
        values |= _stopped_values()
    else:
        values["vm_cmd"] = case((ROW.vm_cmd == VmCmd.START, null()), else_=ROW.vm_cmd)
    if state not in (VmState.STARTING, VmState.ZOMBIE):
        values["waits_for"] = None
    if state is VmState.RUNNING:
        values |= NO_FAILURE | _proven_values()
    elif another_run:
        values |= NO_FAILURE
    if placed:
        values |= {name: bindparam(f"to_{name}") for name in PLACE}
    elif state is VmState.STARTING:
        values |= UNPLACED
    return update(vm_runtimes).where(ROW.vm_id == bindparam("vm")).values(**values)


def _placing(placement: Placement) -> dict[str, Any]:
    place = (placement.di_id, placement.address, placement.vma_port, placement.x_port)
    return {f"to_{name}": value for name, value in zip(PLACE, place, strict=True)}


_BEFORE = select(*BEFORE).where(ROW.vm_id == bindparam("vm"))
_PLACING = (
    update(vm_runtimes)
    .where(ROW.vm_id == bindparam("vm"), ROW.vm_state != VmState.STOPPED)
    .values({name: bindparam(f"to_{name}") for name in PLACE} | UNLIMITED)
)
_COUNTING = {
    column.name: update(vm_counters)
    .where(vm_counters.c.vm_id == bindparam("vm"))
    .values({column: column + 1})
    for column in (vm_counters.c.run_attempts, vm_counters.c.run_ok)
}
