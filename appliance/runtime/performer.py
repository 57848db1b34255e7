"""Action -> effect -> event: the one dispatch. Whatever an effect raises becomes `ActionFailed`."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from appliance.clock import Clock
from appliance.config import (
    HOME_SNAPSHOTS,
    KEPT_ROOT_DAYS,
    START_DELAY_FIRST,
    START_DELAY_LONGEST,
    STOP_SHUTDOWN_S,
    STOP_SIGNAL_S,
    VM_HEAVY_MAX,
    VM_OVERLAY_PERSISTENT,
    VMA_GRACE_STARTING,
    VMA_TIMEOUT,
    ZOMBIE_DELAY_S,
    Key,
    Settings,
)
from appliance.errors import (
    ApplianceError,
    BackendError,
    BlockedError,
    GuestError,
    ImageError,
    VmaRefusedError,
)
from appliance.filters import Filter
from appliance.log import facts
from appliance.model import NO_DI, BackendKind, InstallationId, KeptKind, VmId, VmState
from appliance.ops import failures, home_snapshots, osfs
from appliance.runtime import ageing, vma_monitor
from appliance.runtime.actions import (
    AdoptGuest,
    Arm,
    AskPoweroff,
    AwaitAnswer,
    Background,
    Deadline,
    DefineGuest,
    EraseGuest,
    FenceGuest,
    KeepRoot,
    KillGuest,
    LaunchGuest,
    Order,
    PrepareRoot,
    Question,
    RecordFailure,
    SaveState,
    StopGuest,
    TellGuest,
    UnfenceGuest,
    WatchVma,
)
from appliance.runtime.backend import Backend, Disks, Fences, GuestSpec
from appliance.runtime.blame import HOST, Blame, backoff_s, blame_of
from appliance.runtime.capacity import measured
from appliance.runtime.events import (
    ActionFailed,
    Done,
    Event,
    GuestErased,
    GuestLaunched,
    GuestTold,
    RootReady,
    TimeUp,
    UserAnswered,
    VmaAnswered,
    VmaSilent,
)
from appliance.runtime.guests import describe, placement
from appliance.runtime.machine import VmMachine
from appliance.runtime.supervisor import Perform
from appliance.signals import ChangeFeed
from appliance.storage.store import Store, Tx
from appliance.vma_client import Answer, VmaClient

logger = logging.getLogger(__name__)

CONSOLE_LINES = 200
ANSWER_WAIT_S = 25.0
"""How long a VMA may keep a call that waits for its user's answer."""
ANSWER_PAUSE_S = 2.0
OVERDUE_S = 10.0
"""How long an order may take to end once its time is over: a thread goes on until the kernel answers it."""
E = TypeVar("E", bound=Event)

DEADLINES: Mapping[Deadline, Key[float]] = {
    Deadline.STARTING: VMA_GRACE_STARTING,
    Deadline.SHUTDOWN: STOP_SHUTDOWN_S,
    Deadline.SIGNAL: STOP_SIGNAL_S,
    Deadline.RETRY: ZOMBIE_DELAY_S,
}


@dataclass(frozen=True, slots=True)
class Equipment:
    """What runs the VMs of one kind."""

    backend: Backend
    disks: Disks
    fences: Fences


def fences_of(equipment: Mapping[BackendKind, Equipment]) -> list[Fences]:
    """The fences of all kinds, each once: those who share a bridge share them."""
    return list({id(kit.fences): kit.fences for kit in equipment.values()}.values())


class Performer:
    """Carries out orders."""

    def __init__(
        self,
        store: Store,
        settings: Callable[[], Settings],
        installation: InstallationId,
        equipment: Mapping[BackendKind, Equipment],
        feed: ChangeFeed,
        clock: Clock,
        machine: Callable[[VmId], VmMachine | None],
        around: Callable[[Perform], Perform] = lambda effect: effect,
        ring: Callable[[], None] = lambda: None,
    ) -> None:
        """`machine` tells where a VM is in its life now; `around` is put between orders and their effects.

        `ring` is called when a wish has been written.
        """
        self._ring = ring
        self._store = store
        self._settings = settings
        self._installation = installation
        self._equipment = equipment
        self._feed = feed
        self._clock = clock
        self._machine = machine
        self._heavy = asyncio.Semaphore(settings()[VM_HEAVY_MAX])
        self._effect = around(self._perform)

    async def __call__(self, order: Order) -> Event:
        """Carry out `order`; the event says how it ended."""
        limit = order.action.limit_s
        try:
            async with self._turn(order), asyncio.timeout(None if limit == float("inf") else limit):
                with overdue(order):
                    return await self._effect(order)
        except ApplianceError as exc:
            return self._failed(order, str(exc), blame_of(exc))
        except TimeoutError:
            return self._failed(order, f"{type(order.action).__name__} did not end within {limit:g} s", HOST)
        except Exception as exc:
            logger.exception("effect raised", extra=facts(vm=order.vm_id, cause=order.cause))
            error = f"{type(order.action).__name__} failed: {type(exc).__name__}: {exc}"
            return self._failed(order, error, blame_of(exc))

    async def _perform(self, order: Order) -> Event:
        match order.action:
            case KillGuest() | UnfenceGuest() | KeepRoot() | EraseGuest() if (
                order.backend not in self._equipment
            ):
                return self._event(order, GuestErased)  # Nothing is left where nothing can be made.
            case RecordFailure(reason, blame):
                await self._record_failure(order, reason, blame)
            case SaveState():
                lasting = not self._comes_up(order.vm_id)
                await self._store.at_once(lambda tx: self._save(tx, order.vm_id), lasting=lasting)
                self._feed.announce(order.vm_id)
            case PrepareRoot():
                return self._event(order, RootReady, guest=await self._prepare_root(order))
            case DefineGuest(guest):
                await self._kit(order).backend.define(guest)
            case FenceGuest(guest):
                await self._kit(order).fences.fence(guest)
            case LaunchGuest():
                await self._kit(order).backend.launch(order.vm_id)
                return self._event(order, GuestLaunched)
            case AdoptGuest(guest):
                await self._kit(order).backend.adopt(guest)
            case WatchVma(guest, starting):
                return await self._watch(order, guest, starting=starting)
            case Arm(deadline, tries):
                wait_s = self._wait_s(deadline, tries)
                await self._clock.sleep(wait_s)
                return self._event(order, TimeUp, waited_s=wait_s)
            case TellGuest(guest, question):
                return self._event(order, GuestTold, answers=await self._tell(order, guest, question))
            case AwaitAnswer(guest):
                await self._await_answer(order, guest)
                return self._event(order, UserAnswered)
            case AskPoweroff(guest):
                await self._ask_poweroff(order, guest)
            case StopGuest():
                await self._kit(order).backend.stop(order.vm_id)
            case KillGuest():
                await self._kit(order).backend.kill(order.vm_id)
            case UnfenceGuest():
                await self._kit(order).fences.unfence(order.vm_id)
            case KeepRoot(reason):
                await self._keep_root(order, reason)
            case EraseGuest():
                await self._kit(order).backend.erase(order.vm_id)
                if not self._settings()[VM_OVERLAY_PERSISTENT]:
                    await self._kit(order).disks.erase_root(order.vm_id)
                return self._event(order, GuestErased)
            case other:
                raise AssertionError(f"nobody performs {other}")
        return self._event(order, Done)

    def _turn(self, order: Order) -> AbstractAsyncContextManager[None]:
        return self._heavy if order.action.heavy else nullcontext()

    def _wait_s(self, deadline: Deadline, tries: int) -> float:
        settings = self._settings()
        if deadline is Deadline.BACKOFF:
            first_s, longest_s = settings[START_DELAY_FIRST], settings[START_DELAY_LONGEST]
            return backoff_s(tries, first_s=first_s, longest_s=longest_s)
        return settings[DEADLINES[deadline]]

    def _failed(self, order: Order, error: str, blame: Blame) -> ActionFailed:
        return self._event(order, ActionFailed, action=order.action, error=error, blame=blame)

    def _event(self, order: Order, kind: type[E], **values: Any) -> E:
        return kind(vm_id=order.vm_id, at=self._clock.now(), cause=order.cause, entry=order.entry, **values)

    def _kit(self, order: Order) -> Equipment:
        try:
            return self._equipment[order.backend]
        except KeyError:
            raise BackendError(
                f"this host has no backend {order.backend}: no OSF had it when the daemon began",
                hint="run scripts/setup --service again, or restart the daemon; desktops run on",
            ) from None

    def _comes_up(self, vm_id: VmId) -> bool:
        """Whether a VM is on its way to run. A power cut ends its guest, and the wish in its row remains."""
        vm = self._machine(vm_id)
        return vm is not None and vm.phase.vm_state in (VmState.STARTING, VmState.RUNNING)

    async def _save(self, tx: Tx, vm_id: VmId) -> None:
        vm = self._machine(vm_id)
        if vm is None:
            return
        was = await tx.runtimes.save(
            vm_id,
            state=vm.phase.vm_state,
            phase=vm.phase,
            restart=vm.restart,
            run=vm.run,
            started_by=vm.started_by,
            placement=placement(vm.guest, self._settings()) if vm.guest else None,
        )
        if was is not None:
            await failures.overcome(tx, vm_id, was, now=vm.phase.vm_state)

    async def _record_failure(self, order: Order, reason: str, blame: Blame) -> None:
        try:
            tail = await self._kit(order).backend.console_tail(order.vm_id, CONSOLE_LINES)
        except ApplianceError as exc:
            tail = f"the console cannot be read: {exc}"

        async def record(tx: Tx) -> None:
            await self._save(tx, order.vm_id)
            await failures.record(
                tx, order.vm_id, reason=reason, console=tail, cause=blame.cause, lacks=blame.lacks
            )

        await self._store.at_once(record)
        self._feed.announce(order.vm_id)
        logger.warning(
            "run failed", extra=facts(vm=order.vm_id, cause=order.cause, blame=blame.cause, reason=reason)
        )

    async def _keep_root(self, order: Order, reason: str) -> None:
        """Put a failed root aside, its row first: what the rows do not know of would never be purged.

        The newest of each VM is kept. One that cannot be kept is no reason to leave the VM uncleaned.
        """
        settings, disks, now = self._settings(), self._kit(order).disks, self._clock.now()
        aside = disks.aside(order.vm_id, now)
        if aside is None or settings[VM_OVERLAY_PERSISTENT]:
            return
        until = now + timedelta(days=settings[KEPT_ROOT_DAYS])
        async with self._store.write() as tx:
            vm = await tx.vms.get(order.vm_id)
            older = await tx.kept.find(Filter.where(kind=KeptKind.ROOT, vm_id=vm.id))
            await tx.kept.end_now([kept.id for kept in older])
            await tx.kept.add(
                KeptKind.ROOT, aside, vm_id=vm.id, vm=vm.name, owner=vm.user, reason=reason, until=until
            )
        try:
            moved = await disks.put_aside(order.vm_id, aside)
        except ApplianceError as exc:
            logger.warning("failed root not kept", extra=facts(vm=order.vm_id, error=exc))
            moved = False
        if not moved:
            async with self._store.write() as tx:
                await tx.kept.forget_path(aside)

    async def _prepare_root(self, order: Order) -> GuestSpec:
        settings, disks = self._settings(), self._kit(order).disks

        async def saved_and_placed(tx: Tx) -> GuestSpec:
            await self._save(tx, order.vm_id)
            return await self._place(tx, order, settings)

        guest = await self._store.at_once(saved_and_placed, lasting=False)
        self._feed.announce(order.vm_id)
        await disks.clone_root(guest.mark, keep=guest.keep_root, limit_mib=guest.root_mib)
        await home_snapshots.before_image(self._store, disks, guest.mark, most=settings[HOME_SNAPSHOTS])
        await disks.ensure_home(guest.mark, size_mib=guest.home_mib)
        return guest

    async def _place(self, tx: Tx, order: Order, settings: Settings) -> GuestSpec:
        """Resolve the tag of a VM, and say so in its row before anything is made."""
        vm = await tx.vms.get(order.vm_id)
        osf = await tx.osfs.get(vm.osf_id)
        if reason := osfs.too_much(osf, has_mib=osfs.memory_mib(measured()[1]), has_cpus=os.cpu_count() or 0):
            raise BackendError(reason, hint=f"qa osf edit memory= cpus= -f name={osf.name}")
        di_id = vm.next_di_id
        if di_id is None and self._kit(order).disks.needs_image:
            raise ImageError(
                f"no image of OSF {vm.osf} carries the tag {vm.di_tag}",
                hint=f"qa di add path=FILE osf={vm.osf}, or qa di tag di_id=N tag={vm.di_tag}",
            )
        if vm.next_di_blocked:
            raise BlockedError(
                f"the image {vm.next_di} of OSF {vm.osf} is blocked", hint=f"qa di unblock -f id={di_id}"
            )
        guest = describe(vm, osf, NO_DI if di_id is None else di_id, settings, self._installation)
        await tx.runtimes.place(vm.id, placement(guest, settings))
        return guest

    async def _watch(self, order: Order, guest: GuestSpec, *, starting: bool) -> Event:
        settings = self._settings()
        place = placement(guest, settings)
        if starting:
            await vma_monitor.until_answer(place, settings, self._clock)
            return self._event(order, VmaAnswered)
        silent = await vma_monitor.until_silence(place, settings, self._clock)
        return self._event(order, VmaSilent, silent_s=silent)

    async def _tell(self, order: Order, guest: GuestSpec, question: Question) -> bool:
        """Put a question to a guest; whether an answer will come.

        One that does not say whether it was told says so when it is asked for the answer.
        """
        if question.withdrawn:
            return await self._take_back(order, guest, question.number)
        try:
            answers = await self._vma(guest).expire(
                _database_text(question.soft),
                _database_text(question.hard),
                ask=question.number,
                final=question.final,
                later_s=question.later_s,
                postponements=question.postponements,
                now=_database_text(self._clock.now()),
            )
        except GuestError as exc:
            logger.warning("the guest may not have been asked", extra=facts(vm=order.vm_id, error=exc))
            return True
        if not answers:
            await self._store.at_once(lambda tx: ageing.note_silent(tx, order.vm_id, question.number))
        return answers

    async def _take_back(self, order: Order, guest: GuestSpec, number: int) -> bool:
        """Tell a guest that a question is void; one that cannot be told is told later."""
        try:
            await self._vma(guest).withdraw_expire(ask=number)
        except GuestError as exc:
            logger.warning("the question was not withdrawn", extra=facts(vm=order.vm_id, error=exc))
            return False
        await self._store.at_once(lambda tx: ageing.note_silent(tx, order.vm_id, number))
        return False

    async def _await_answer(self, order: Order, guest: GuestSpec) -> None:
        """Wait until the user of a desktop has answered, and write what it was."""
        while True:
            try:
                said = await self._vma(guest).expire_answer(ANSWER_WAIT_S)
            except VmaRefusedError:
                await self._store.at_once(lambda tx: ageing.note_silent(tx, order.vm_id))
                return
            except GuestError as exc:
                logger.debug("no answer yet", extra=facts(vm=order.vm_id, error=exc))
            else:
                if said.answer is not Answer.ASKING:
                    break
            await self._clock.sleep(ANSWER_PAUSE_S)
        number = None if said.answer is Answer.NONE else said.ask
        restart = said.answer is Answer.RESTART
        await self._store.at_once(lambda tx: ageing.settle_answer(tx, order.vm_id, number, restart=restart))
        self._ring()

    def _vma(self, guest: GuestSpec) -> VmaClient:
        settings = self._settings()
        place = placement(guest, settings)
        return VmaClient(place.address, place.vma_port, timeout_s=settings[VMA_TIMEOUT])

    async def _ask_poweroff(self, order: Order, guest: GuestSpec) -> None:
        try:
            await self._vma(guest).poweroff()
        finally:
            if not self._kit(order).backend.sees_departures:
                await self._kit(order).backend.stop(order.vm_id)


def _database_text(at: datetime | None) -> str | None:
    """An instant as hooks expect it: as QVD's database would show it (protocol.md 3.3)."""
    return None if at is None else at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")


@contextmanager
def overdue(order: Order) -> Iterator[None]:
    """Tell if an order goes on long after its time, because what it waits for cannot be interrupted."""

    def tell() -> None:
        action = type(order.action).__name__
        logger.error("an order cannot be interrupted", extra=facts(vm=order.vm_id, action=action))

    if isinstance(order.action, Background):
        yield
        return
    timer = asyncio.get_running_loop().call_later(order.action.limit_s + OVERDUE_S, tell)
    try:
        yield
    finally:
        timer.cancel()
