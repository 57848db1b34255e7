"""The shell of the VM machines: posts events, carries out orders, keeps stories.

`post` is synchronous and runs to quiescence: there is no `await` between reading a machine and
storing it. Orders of one VM are carried out one after the other in its lane; those of different VMs
side by side. When a machine enters another phase, orders of the phase it left are dropped, the one
being carried out is cancelled, and its timers and watches end.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from appliance.clock import Clock
from appliance.log import facts
from appliance.model import BackendKind, VmId
from appliance.runtime.actions import Action, Background, EraseGuest, Order, SaveState, UnfenceGuest
from appliance.runtime.events import ActionFailed, Event, SlotGranted, StartWanted
from appliance.runtime.machine import BOOTING, Phase, VmMachine, is_delayed, is_stale, step

logger = logging.getLogger(__name__)

STORY_LENGTH = 50

Perform: TypeAlias = Callable[[Order], Awaitable[Event]]


@dataclass(frozen=True, slots=True)
class Chapter:
    """One step in the story of a VM."""

    event: Event
    before: Phase
    after: Phase
    actions: tuple[Action, ...]


@dataclass(slots=True)
class Lane:
    """What is being done, and still to be done, about one VM."""

    pending: deque[Order] = field(default_factory=deque)
    current: Order | None = None
    current_task: asyncio.Task[None] | None = None
    worker: asyncio.Task[None] | None = None
    background: set[asyncio.Task[None]] = field(default_factory=set)
    delayed: list[Event] = field(default_factory=list)
    cause: str = ""
    story: deque[Chapter] = field(default_factory=lambda: deque(maxlen=STORY_LENGTH))


class Supervisor:
    """Owns the map of machines."""

    def __init__(
        self,
        perform: Perform,
        tasks: asyncio.TaskGroup,
        clock: Clock,
        boot_slots: Callable[[], int],
        noticed: Callable[[VmMachine], None] = lambda machine: None,
    ) -> None:
        """`boot_slots()` is how many may boot at once; `noticed` is told of each machine that changed."""
        self._perform = perform
        self._tasks = tasks
        self._clock = clock
        self._boot_slots = boot_slots
        self._machines: dict[VmId, VmMachine] = {}
        self._lanes: dict[VmId, Lane] = {}
        self._inbox: deque[Event] = deque()
        self._waiting: dict[VmId, None] = {}
        self._booting: set[VmId] = set()
        self._stepping = False
        self._noticed = noticed

    def adopt(self, machine: VmMachine, actions: Iterable[Action], cause: str) -> None:
        """Take over a machine as found, with its first orders."""
        logger.info("adopted", extra=facts(vm=machine.vm_id, phase=machine.phase, cause=cause))
        self._lane(machine.vm_id).cause = cause
        self._store(machine)
        self._order(machine, tuple(actions), cause)
        self._admit()

    def post(self, event: Event) -> None:
        """Let `event` happen, with everything that follows from it at once."""
        self._inbox.append(event)
        if self._stepping:
            return
        self._stepping = True
        try:
            while self._inbox:
                self._happen(self._inbox.popleft())
                self._admit()
        finally:
            self._stepping = False

    @property
    def is_idle(self) -> bool:
        """Whether every event posted was taken: between two of its calls, anything else is a fault."""
        return not self._stepping and not self._inbox

    async def settle(self) -> None:
        """Return once every order is carried out, but for those that last as long as a phase."""
        while workers := [lane.worker for lane in self._lanes.values() if lane.worker is not None]:
            if all(worker.done() for worker in workers):
                return
            await asyncio.wait(workers)

    def machine(self, vm_id: VmId) -> VmMachine | None:
        """Where a VM is; None if it has not been heard of."""
        return self._machines.get(vm_id)

    async def tidy(self, vm_id: VmId, backend: BackendKind, cause: str) -> bool:
        """Erase what is left of a VM at rest, in its lane; false if it is busy, or was wanted meanwhile."""
        machine = self._machines.get(vm_id) or VmMachine(vm_id=vm_id, backend=backend)
        lane = self._lane(vm_id)
        if not machine.is_at_rest or lane.pending or lane.current is not None:
            return False
        self._order(machine, (UnfenceGuest(), EraseGuest()), cause)
        assert lane.worker is not None
        await asyncio.wait([lane.worker])
        now = self._machines.get(vm_id)
        return now is None or now.is_at_rest

    def forget(self, *, but: Collection[VmId]) -> None:
        """Let go of the machines and stories of VMs that are no more: all that do nothing, but these."""
        for vm_id, lane in list(self._lanes.items()):
            machine = self._machines.get(vm_id)
            rests = machine is None or machine.is_at_rest
            waited_for = lane.pending or lane.background or lane.delayed
            works = lane.worker is not None and not lane.worker.done()
            if vm_id not in but and rests and not waited_for and not works:
                del self._lanes[vm_id]
                self._machines.pop(vm_id, None)

    def cause(self, vm_id: VmId) -> str:
        """What last moved a VM: the cause of whatever follows from it by itself."""
        return self._lane(vm_id).cause

    def machines(self) -> Sequence[VmMachine]:
        """Every machine."""
        return list(self._machines.values())

    def story(self, vm_id: VmId) -> Sequence[Chapter]:
        """The last steps of a VM."""
        lane = self._lanes.get(vm_id)
        return list(lane.story) if lane else ()

    def _happen(self, event: Event) -> None:
        before = self._machines.get(event.vm_id)
        if before is None:
            if not isinstance(event, StartWanted):
                return
            before = VmMachine(vm_id=event.vm_id, backend=event.backend)
        lane = self._lane(event.vm_id)
        if is_stale(before, event):
            return
        lane.cause = event.cause
        if isinstance(event, ActionFailed):
            logger.error(
                "action failed",
                extra=facts(
                    vm=event.vm_id,
                    action=type(event.action).__name__,
                    phase=before.phase,
                    cause=event.cause,
                    error=event.error,
                ),
            )
        if is_delayed(before, event):
            lane.delayed.append(event)
            return
        after, actions = step(before, event)
        self._store(after)
        if actions or after is not before:
            lane.story.append(Chapter(event, before.phase, after.phase, actions))
        if after.entry != before.entry:
            self._leave(lane)
            logger.info(
                "phase changed",
                extra=facts(
                    vm=event.vm_id,
                    phase=after.phase,
                    was=before.phase,
                    event=type(event).__name__,
                    cause=event.cause,
                ),
            )
            if after.phase is Phase.REAPING and before.phase is not Phase.REAPING:
                self.tell(event.vm_id)
            self._inbox.extend(lane.delayed)
            lane.delayed.clear()
        self._order(after, actions, event.cause)

    def tell(self, vm_id: VmId) -> None:
        """Log the story of a VM."""
        for chapter in self.story(vm_id):
            logger.warning(
                "story",
                extra=facts(
                    vm=vm_id,
                    at=chapter.event.at.isoformat(),
                    event=type(chapter.event).__name__,
                    was=chapter.before,
                    phase=chapter.after,
                    actions=",".join(type(action).__name__ for action in chapter.actions) or None,
                ),
            )

    def _admit(self) -> None:
        """Grant free boot slots to those who wait, longest first."""
        if not self._waiting:
            return
        free = self._boot_slots() - len(self._booting)
        granted = {event.vm_id for event in self._inbox if isinstance(event, SlotGranted)}
        for vm_id in list(self._waiting)[: max(0, free)]:
            if vm_id not in granted:
                entry = self._machines[vm_id].entry
                self.post(
                    SlotGranted(vm_id=vm_id, at=self._clock.now(), cause=self.cause(vm_id), entry=entry)
                )

    def _store(self, machine: VmMachine) -> None:
        self._machines[machine.vm_id] = machine
        if machine.phase is Phase.QUEUED:
            self._waiting.setdefault(machine.vm_id)
        else:
            self._waiting.pop(machine.vm_id, None)
        if machine.phase in BOOTING:
            self._booting.add(machine.vm_id)
        else:
            self._booting.discard(machine.vm_id)
        self._noticed(machine)

    def _lane(self, vm_id: VmId) -> Lane:
        return self._lanes.setdefault(vm_id, Lane())

    def _leave(self, lane: Lane) -> None:
        lane.pending = deque(order for order in lane.pending if order.action.survives)
        if lane.current_task is not None and lane.current is not None and not lane.current.action.survives:
            lane.current_task.cancel()
        for task in lane.background:
            task.cancel()
        lane.background.clear()

    def _order(self, machine: VmMachine, actions: tuple[Action, ...], cause: str) -> None:
        lane = self._lane(machine.vm_id)
        for action in actions:
            order = Order(
                action=action, vm_id=machine.vm_id, backend=machine.backend, entry=machine.entry, cause=cause
            )
            name = f"{type(action).__name__} of VM {machine.vm_id}"
            if isinstance(action, Background):
                task = self._tasks.create_task(self._carry_out(order), name=name)
                lane.background.add(task)
                task.add_done_callback(lane.background.discard)
            elif action.saves and lane.pending and type(lane.pending[-1].action) is SaveState:
                lane.pending[-1] = order  # one write is enough: it tells where the machine is by then
            else:
                lane.pending.append(order)
        if lane.pending and (lane.worker is None or lane.worker.done()):
            lane.worker = self._tasks.create_task(self._work(lane), name=f"lane of VM {machine.vm_id}")

    async def _work(self, lane: Lane) -> None:
        while lane.pending:
            lane.current = lane.pending.popleft()
            lane.current_task = self._tasks.create_task(self._carry_out(lane.current))
            await asyncio.wait([lane.current_task])
            lane.current = lane.current_task = None

    async def _carry_out(self, order: Order) -> None:
        begun = self._clock.monotonic()
        outcome = await self._perform(order)
        logger.debug(
            "order carried out",
            extra=facts(
                vm=order.vm_id,
                action=type(order.action).__name__,
                event=type(outcome).__name__,
                took=f"{self._clock.monotonic() - begun:.4f}s",
                cause=order.cause,
            ),
        )
        self.post(outcome)
