"""Lets VMs grow old: looks who is due (`expiry`), writes wishes into rows, and has questions put.

Everything is decided and written in one transaction, from rows as they are then: nobody is restarted for
what was true a moment ago, and what a daemon has begun before it died, its successor finds in the rows.
A restart is a wish like any other. A question is noted first and put afterwards; one that was noted and
not put comes again.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from datetime import timedelta

from appliance.clock import Clock
from appliance.config import Settings
from appliance.errors import StoreError
from appliance.filters import Filter
from appliance.log import facts
from appliance.model import AgeingVm, HookEvent, HostId, UserState, VmId
from appliance.ops import notices, vms
from appliance.runtime import expiry
from appliance.runtime.actions import Question
from appliance.runtime.events import AskDue, Event
from appliance.runtime.expiry import Cadence, Deed, Plan
from appliance.storage.store import Store, Tx

logger = logging.getLogger(__name__)

AT_ONCE = 500
"""With so many desktops is dealt in one transaction, as nobody else can write meanwhile."""
LOOK_S = 0.5
"""A limit acts within a second of its time, also when somebody sets the host's clock."""
ASK_AGAIN_S = 60.0
"""When a question is put again that a guest did not take."""
NOTHING = Plan(due=(), next_look=None)
BY_HKD = "hkd"


class Ager:
    """Looks after the limits of one host's VMs."""

    def __init__(
        self,
        store: Store,
        settings: Callable[[], Settings],
        host_id: HostId,
        post: Callable[[Event], None],
        ring: Callable[[], None],
        clock: Clock,
        pause_s: float = LOOK_S,
    ) -> None:
        """`post` takes questions that are due; `ring` is called when wishes have been written."""
        self._pause_s = pause_s
        self._store = store
        self._settings = settings
        self._host_id = host_id
        self._post = post
        self._ring = ring
        self._clock = clock

    async def run(self) -> None:
        """Look whenever somebody has committed something or a VM is due, for ever."""
        commits = await self._store.watch_commits()
        plan, stale = NOTHING, True
        try:
            while True:
                try:
                    stale = await commits.changed() or stale
                    if stale or (plan.next_look is not None and plan.next_look <= self._clock.now()):
                        plan = await self.look()
                        stale = bool(plan.due)
                except StoreError as exc:
                    logger.error("limits cannot be looked at", extra=facts(error=exc))
                    plan, stale = NOTHING, True
                if len(plan.due) < AT_ONCE:
                    await self._clock.sleep(self._pause_s)
        finally:
            await commits.close()

    async def look(self) -> Plan:
        """Do what is due now, or as much of it as goes at once; what was, and when to look again."""
        cadence = Cadence.of(self._settings())
        async with self._store.read() as tx:
            plan = await self._plan(tx, cadence)
        if not plan.due:
            return plan
        plan, questions = await self._store.at_once(lambda tx: self._do(tx, cadence))
        if any(deed not in expiry.TO_GUESTS for _, deed in plan.due):
            self._ring()
        for vm, question in questions:
            cause = uuid.uuid4().hex[:6]
            self._post(AskDue(vm_id=vm.id, at=self._clock.now(), cause=cause, question=question))
        return plan

    async def _do(self, tx: Tx, cadence: Cadence) -> tuple[Plan, Sequence[tuple[AgeingVm, Question]]]:
        plan = await self._plan(tx, cadence)
        for vm, deed in plan.due:
            logger.info("due", extra=facts(vm=vm.id, deed=deed, di=vm.current_di_id, next=vm.next_di_id))
        await _move(tx, [(vm, deed) for vm, deed in plan.due if deed in expiry.RESTARTS])
        await vms.stop(tx, _ids(plan, Deed.STOP), by=BY_HKD)
        await vms.disconnect(tx, _ids(plan, Deed.DISCONNECT), by=BY_HKD)
        await _tell_host(tx, plan)
        questions = [
            (vm, await self._question(tx, vm, deed, cadence))
            for vm, deed in plan.due
            if deed in expiry.TO_GUESTS
        ]
        return plan, questions

    async def _plan(self, tx: Tx, cadence: Cadence) -> Plan:
        moving = await tx.ageing.moving(self._host_id) if cadence.batch else 0
        plan = expiry.plan(await tx.ageing.concerned(self._host_id), self._clock.now(), cadence, moving)
        return replace(plan, due=plan.due[:AT_ONCE])

    async def _question(self, tx: Tx, vm: AgeingVm, deed: Deed, cadence: Cadence) -> Question:
        now, final = self._clock.now(), deed is Deed.WARN
        if deed is Deed.WITHDRAW:
            number = await tx.ageing.withdraw(vm.id, again=now + timedelta(seconds=ASK_AGAIN_S))
            await tx.log.append(by=BY_HKD, what="expire withdraw", object=f"vm {vm.id}")
            return Question(number=number, withdrawn=True)
        again = expiry.next_question(vm, now, cadence)
        number = await tx.ageing.ask(vm.id, again=again, warned=final)
        await tx.log.append(
            by=BY_HKD,
            what="expire warn" if final else "expire ask",
            object=f"vm {vm.id}",
            was=f"di {vm.current_di_id}",
            now=f"di {vm.next_di_id}",
        )
        left = expiry.postponements(vm)
        return Question(
            number=number,
            soft=vm.vm_expiration_soft,
            hard=vm.vm_expiration_hard,
            final=final,
            later_s=vm.ageing.postpone_s if left else None,
            postponements=left,
        )


async def settle_answer(tx: Tx, vm_id: VmId, number: int | None, *, restart: bool) -> None:
    """Write what a desktop's user has answered to a question, and if it is *yes* the wish that follows.

    None, or a `number` that was answered before: the guest does not know the question, so it is put again.
    A *yes* to what is void by now restarts nobody.
    """
    vm = await tx.ageing.get(vm_id)
    if vm is None:
        return
    if number is None or number <= vm.expire_answered:
        await tx.ageing.ask_anew(vm_id, at=tx.at + timedelta(seconds=ASK_AGAIN_S))
        return
    restart = restart and expiry.may_restart(vm)
    until = None if restart else expiry.put_off(vm, tx.at)
    unseen = vm.user_state is not UserState.CONNECTED
    if not await tx.ageing.answer(vm_id, number, again=until, postponed=until is not None, unseen=unseen):
        return
    by = f"user:{vm.user}"[:64]
    if restart:
        await vms.stop(tx, [vm_id], by=by, restart=True)
    await tx.log.append(
        by=by,
        what="expire restart" if restart else "expire later",
        object=f"vm {vm.id}",
        was=f"di {vm.current_di_id}",
        now=f"di {vm.next_di_id}" if restart else str(until or ""),
    )


async def note_silent(tx: Tx, vm_id: VmId, number: int | None = None) -> None:
    """Write that nobody will answer a question, or any: no hook asks, or the VMA tells no answers."""
    vm = await tx.ageing.get(vm_id)
    if vm is not None:
        unseen = vm.user_state is not UserState.CONNECTED
        await tx.ageing.answer(vm_id, vm.expire_asked if number is None else number, unseen=unseen)


async def _move(tx: Tx, due: Collection[tuple[AgeingVm, Deed]]) -> None:
    """Wish VMs stopped for their age, and started again unless nobody would miss them until then."""
    for comes_back in (True, False):
        ids = [vm.id for vm, _ in due if vm.comes_back is comes_back]
        await vms.stop(tx, ids, by=BY_HKD, restart=comes_back)
    for vm, deed in due:
        await tx.log.append(
            by=BY_HKD,
            what="expire restart" if vm.comes_back else "expire stop",
            object=f"vm {vm.id}",
            was=f"di {vm.current_di_id}",
            now=f"di {vm.next_di_id}: {deed}",
        )


async def _tell_host(tx: Tx, plan: Plan) -> None:
    """Let the host's hook know of limits that have been reached, each once."""
    reached = {vm.id: limit for vm, deed in plan.due if (limit := expiry.reached(vm, deed)) is not None}
    concerned = await tx.vms.find(Filter.among("id", reached)) if reached else []
    notes = [{**notices.of_vm(vm), "limit": reached[vm.id], "by": BY_HKD} for vm in concerned]
    await notices.put_all(tx, HookEvent.LIMIT_REACHED, notes)


def _ids(plan: Plan, deed: Deed) -> list[VmId]:
    return [vm.id for vm, due in plan.due if due is deed]
