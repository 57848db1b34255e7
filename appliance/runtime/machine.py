"""The VM machine: `step(machine, event) -> (machine, actions)`, without clock, I/O or logging.

Theory of operation. A VM waits for a boot slot (QUEUED), gets its root (CLONING), is configured,
fenced and started (LAUNCHING), and counts as running once its VMA has answered (AWAITING_VMA, then
MONITORING). A start that fails for the host's sake is cleared away (CLEARING) and waits, longer each
time, before it queues again (WAITING); its row goes on saying that it starts, so that no wish is
lost, and it holds no slot. One that fails for the image's sake ends, and its root is kept.

While a VM runs, its user may be asked to restart it for another image (TellGuest). The answer is waited
for beside all else (AwaitAnswer); a *yes* is written into the row, and comes from there as any wish does.

A stop asks the VMA, then the guest's init (SHUTTING_DOWN). Whatever way a run ends, it goes through
CLEANING, which kills what may still run and removes what is left; only if that fails the VM becomes
a zombie (REAPING) and is tried again until nothing is left.

Laws:
- Each entry into a phase has a number, and its first action saves the state, so that the row runs
  ahead of the effects. Answers to orders of an earlier entry are dropped.
- An end goes on although the database refuses to note it. The row then claims too much, which the next
  start of the daemon knows how to read; a guest that nobody asks to end loses what its user had open.
- Every pair of phase and event is in exactly one of TRANSITIONS, DELAYED (kept until the phase
  changes) and IGNORED.
- A wish to restart survives in the machine and in the row alike.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, TypeAlias

from appliance.errors import UnexpectedEventError
from appliance.model import BackendKind, FailureCause, StartedBy, VmId, VmState
from appliance.runtime.actions import (
    Action,
    AdoptGuest,
    Arm,
    AskPoweroff,
    AwaitAnswer,
    Deadline,
    DefineGuest,
    EraseGuest,
    FenceGuest,
    KeepRoot,
    KillGuest,
    LaunchGuest,
    PrepareRoot,
    RecordFailure,
    SaveState,
    StopGuest,
    TellGuest,
    UnfenceGuest,
    WatchVma,
)
from appliance.runtime.backend import GuestSpec
from appliance.runtime.blame import GUEST, IMAGE, Blame
from appliance.runtime.events import (
    ActionFailed,
    AskDue,
    Done,
    Event,
    GuestDeparted,
    GuestErased,
    GuestLaunched,
    GuestTold,
    RootReady,
    SlotGranted,
    StartWanted,
    StopWanted,
    TimeUp,
    UserAnswered,
    VmaAnswered,
    VmaSilent,
)


class Phase(StrEnum):
    """Before the slash: vm_state, as stored. After it: the HKD's private sub-step."""

    STOPPED = "stopped"
    QUEUED = "starting/queued"
    CLONING = "starting/cloning"
    LAUNCHING = "starting/launching"
    AWAITING_VMA = "starting/awaiting-vma"
    CLEARING = "starting/clearing"
    WAITING = "starting/waiting"
    MONITORING = "running/monitoring"
    SHUTTING_DOWN = "stopping/shutting-down"
    CLEANING = "stopping/cleaning"
    REAPING = "zombie/reaping"

    @property
    def vm_state(self) -> VmState:
        """The state that the row shows."""
        return VmState(self.value.partition("/")[0])


BOOTING = frozenset({Phase.CLONING, Phase.LAUNCHING, Phase.AWAITING_VMA})
"""The phases that occupy a boot slot."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VmMachine:
    """Where a VM is in its life."""

    vm_id: VmId
    backend: BackendKind
    phase: Phase = Phase.STOPPED
    entry: int = 0
    run: int = 0
    started_by: StartedBy | None = None
    guest: GuestSpec | None = None
    restart: bool = False
    signalled: bool = False
    """Whether init was told to end the guest, after the VMA was asked or could not be."""
    retrying: bool = False
    """Whether what failed in this phase is about to be tried again."""
    asking: bool = False
    """Whether the answer of the desktop's user is waited for."""
    asked_again: bool = False
    """Whether another question was put meanwhile, whose answer is to be waited for next."""
    unheard: bool = False
    """Whether waiting for an answer failed, and is about to be tried again."""
    tries: int = 0
    """How often in a row this start has failed for the host's sake."""

    @property
    def is_at_rest(self) -> bool:
        """Whether nothing of the VM runs, or is about to."""
        return self.phase is Phase.STOPPED


Step: TypeAlias = tuple[VmMachine, tuple[Action, ...]]
Transition: TypeAlias = Callable[[VmMachine, Any], Step]

TRANSITIONS: dict[tuple[Phase, type[Event]], Transition] = {}


def on(*phases: Phase, event: type[Event]) -> Callable[[Transition], Transition]:
    """Declare what `event` means in `phases`."""

    def register(transition: Transition) -> Transition:
        for phase in phases:
            assert (phase, event) not in TRANSITIONS, f"declared twice: {phase} {event.__name__}"
            TRANSITIONS[phase, event] = transition
        return transition

    return register


def is_stale(vm: VmMachine, event: Event) -> bool:
    """Whether `event` answers an order of an earlier entry into a phase."""
    return event.entry is not None and event.entry != vm.entry


def is_unwritten(event: ActionFailed) -> bool:
    """Whether all that failed is to write down where the VM is; the orders that came with it still stand."""
    return isinstance(event.action, SaveState)


def is_delayed(vm: VmMachine, event: Event) -> bool:
    """Whether `event` is to be kept until the phase changes."""
    return (vm.phase, type(event)) in DELAYED


def step(vm: VmMachine, event: Event) -> Step:
    """What `event` makes of the VM, and what is to be done about it.

    :raises UnexpectedEventError: nothing is declared about it, or it is to be delayed
    """
    if is_stale(vm, event) or (vm.phase, type(event)) in IGNORED:
        return vm, ()
    try:
        transition = TRANSITIONS[vm.phase, type(event)]
    except KeyError:
        raise UnexpectedEventError(f"VM {vm.vm_id}: {type(event).__name__} in {vm.phase}") from None
    return transition(vm, event)


def enter(
    vm: VmMachine,
    phase: Phase,
    *actions: Action,
    saved: SaveState | PrepareRoot | None = None,
    **changes: Any,
) -> Step:
    """Enter `phase` anew: another entry number, the state saved first, and why if there is a reason."""
    unasked = {"asking": False, "asked_again": False, "unheard": False}
    entered = replace(vm, phase=phase, entry=vm.entry + 1, retrying=False, **{**unasked, **changes})
    return entered, (saved or SaveState(), *actions)


# --- entries --------------------------------------------------------------------------------------


def queue(vm: VmMachine, *, started_by: StartedBy, run: int) -> Step:
    """Begin a run."""
    begun = replace(vm, started_by=started_by, run=run, restart=False, signalled=False, tries=0)
    return enter(begun, Phase.QUEUED, guest=None)


def rest(vm: VmMachine) -> Step:
    """Nothing of the guest is left: stop here, or begin the run that was asked for meanwhile."""
    if vm.restart:
        return queue(vm, started_by=vm.started_by or StartedBy.COMMAND, run=vm.run + 1)
    return enter(vm, Phase.STOPPED, guest=None, started_by=None, signalled=False, tries=0)


def clean(vm: VmMachine, reason: str | None = None, blame: Blame = GUEST) -> Step:
    """End the run: make sure that nothing runs, and remove what is left.

    A root that did not boot is kept, if there was one.
    """
    if reason is None:
        return enter(vm, Phase.CLEANING, *removal())
    keep = (KeepRoot(reason),) if blame.cause is FailureCause.IMAGE and vm.guest is not None else ()
    return enter(vm, Phase.CLEANING, *removal(*keep), saved=RecordFailure(reason, blame))


def retreat(vm: VmMachine, failed: ActionFailed) -> Step:
    """Undo a start that the host cannot serve now, to begin it again later."""
    record = RecordFailure(failed.error, failed.blame)
    return enter(vm, Phase.CLEARING, *removal(), saved=record, tries=vm.tries + 1)


def removal(*keep: KeepRoot) -> tuple[Action, ...]:
    """The orders that leave nothing of a guest but its home, and what is to be kept."""
    return (KillGuest(), UnfenceGuest(), *keep, EraseGuest())


def shut_down(vm: VmMachine, *, restart: bool, reason: str | None = None) -> Step:
    """Ask the guest to end: through its VMA if that is alive, else through its init."""
    record = RecordFailure(reason, GUEST) if reason else None
    if vm.guest is not None and vm.phase is Phase.MONITORING and reason is None:
        asking: tuple[Action, ...] = (AskPoweroff(vm.guest), Arm(Deadline.SHUTDOWN))
        return enter(vm, Phase.SHUTTING_DOWN, *asking, restart=restart, signalled=False)
    telling: tuple[Action, ...] = (StopGuest(), Arm(Deadline.SIGNAL))
    return enter(vm, Phase.SHUTTING_DOWN, *telling, saved=record, restart=restart, signalled=True)


# --- starting -------------------------------------------------------------------------------------


@on(Phase.STOPPED, event=StartWanted)
def _begin(vm: VmMachine, event: StartWanted) -> Step:
    return queue(replace(vm, backend=event.backend), started_by=event.started_by, run=event.run)


@on(Phase.QUEUED, event=SlotGranted)
def _clone(vm: VmMachine, event: SlotGranted) -> Step:
    return enter(vm, Phase.CLONING, saved=PrepareRoot())


@on(Phase.QUEUED, Phase.WAITING, event=StopWanted)
def _leave_the_queue(vm: VmMachine, event: StopWanted) -> Step:
    return rest(replace(vm, restart=event.restart))


@on(Phase.CLONING, event=RootReady)
def _launch(vm: VmMachine, event: RootReady) -> Step:
    guest = event.guest
    return enter(vm, Phase.LAUNCHING, DefineGuest(guest), FenceGuest(guest), LaunchGuest(), guest=guest)


@on(Phase.LAUNCHING, event=GuestLaunched)
def _await_vma(vm: VmMachine, event: GuestLaunched) -> Step:
    assert vm.guest is not None
    return enter(vm, Phase.AWAITING_VMA, WatchVma(vm.guest, starting=True), Arm(Deadline.STARTING))


@on(Phase.AWAITING_VMA, event=VmaAnswered)
def _run(vm: VmMachine, event: VmaAnswered) -> Step:
    assert vm.guest is not None
    return enter(vm, Phase.MONITORING, WatchVma(vm.guest, starting=False), tries=0)


@on(Phase.AWAITING_VMA, event=TimeUp)
def _give_up_waiting(vm: VmMachine, event: TimeUp) -> Step:
    waited = f"within {event.waited_s:g} s"
    return clean(vm, f"the VMA gave no answer {waited}: is it in the image, and started at boot?", IMAGE)


@on(Phase.AWAITING_VMA, event=GuestDeparted)
def _ended_while_booting(vm: VmMachine, event: GuestDeparted) -> Step:
    return clean(vm, "the guest ended while it was booting", IMAGE)


@on(Phase.CLONING, Phase.LAUNCHING, Phase.CLEARING, event=StopWanted)
def _abandon_start(vm: VmMachine, event: StopWanted) -> Step:
    return clean(replace(vm, restart=event.restart))


@on(Phase.CLONING, Phase.LAUNCHING, Phase.AWAITING_VMA, Phase.QUEUED, event=ActionFailed)
def _start_failed(vm: VmMachine, event: ActionFailed) -> Step:
    if event.blame.cause is FailureCause.HOST:
        return retreat(vm, event)
    return clean(vm, event.error, event.blame)


# --- waiting for the host -------------------------------------------------------------------------


@on(Phase.CLEARING, event=GuestErased)
def _wait(vm: VmMachine, event: GuestErased) -> Step:
    return enter(vm, Phase.WAITING, Arm(Deadline.BACKOFF, vm.tries), guest=None)


@on(Phase.CLEARING, event=ActionFailed)
def _cannot_clear(vm: VmMachine, event: ActionFailed) -> Step:
    if is_unwritten(event):
        return vm, ()
    return _cannot_clean(replace(vm, restart=True), event)


@on(Phase.WAITING, event=TimeUp)
def _begin_again(vm: VmMachine, event: TimeUp) -> Step:
    return enter(vm, Phase.QUEUED)


# --- running --------------------------------------------------------------------------------------


@on(Phase.MONITORING, Phase.AWAITING_VMA, event=StopWanted)
def _stop(vm: VmMachine, event: StopWanted) -> Step:
    return shut_down(vm, restart=event.restart)


@on(Phase.MONITORING, event=VmaSilent)
def _stop_silent(vm: VmMachine, event: VmaSilent) -> Step:
    return shut_down(vm, restart=False, reason=f"the VMA has been silent for {event.silent_s:.0f} s")


@on(Phase.MONITORING, event=GuestDeparted)
def _ended_by_itself(vm: VmMachine, event: GuestDeparted) -> Step:
    return clean(vm, "the guest ended by itself", GUEST)


@on(Phase.MONITORING, event=ActionFailed)
def _listen_later(vm: VmMachine, event: ActionFailed) -> Step:
    """Whatever it was is done again later; a guest that may have been asked, or not, tells by its answer."""
    told = isinstance(event.action, TellGuest)
    lost = isinstance(event.action, AwaitAnswer) or (told and not vm.asking)
    again = vm.asked_again or (told and vm.asking)
    return _try_again_later(replace(vm, unheard=vm.unheard or lost, asked_again=again), event)


@on(Phase.WAITING, Phase.STOPPED, event=ActionFailed)
def _try_again_later(vm: VmMachine, event: ActionFailed) -> Step:
    return (vm, ()) if vm.retrying else (replace(vm, retrying=True), (Arm(Deadline.RETRY),))


@on(Phase.MONITORING, event=TimeUp)
def _converge(vm: VmMachine, event: TimeUp) -> Step:
    assert vm.guest is not None
    again = (SaveState(), AdoptGuest(vm.guest), FenceGuest(vm.guest))
    if not vm.unheard:
        return replace(vm, retrying=False), again
    return replace(vm, retrying=False, asking=True, unheard=False), (*again, AwaitAnswer(vm.guest))


@on(Phase.MONITORING, event=AskDue)
def _ask(vm: VmMachine, event: AskDue) -> Step:
    assert vm.guest is not None
    return vm, (TellGuest(vm.guest, event.question),)


@on(Phase.MONITORING, event=GuestTold)
def _listen(vm: VmMachine, event: GuestTold) -> Step:
    assert vm.guest is not None
    if vm.asking:
        return replace(vm, asked_again=vm.asked_again or event.answers), ()
    return (replace(vm, asking=True), (AwaitAnswer(vm.guest),)) if event.answers else (vm, ())


@on(Phase.MONITORING, event=UserAnswered)
def _heard(vm: VmMachine, event: UserAnswered) -> Step:
    assert vm.guest is not None
    heard = replace(vm, asking=vm.asked_again, asked_again=False)
    return heard, (AwaitAnswer(vm.guest),) if vm.asked_again else ()


# --- stopping -------------------------------------------------------------------------------------


@on(Phase.SHUTTING_DOWN, event=GuestDeparted)
def _ended_as_asked(vm: VmMachine, event: GuestDeparted) -> Step:
    return clean(vm)


@on(Phase.SHUTTING_DOWN, event=TimeUp)
def _press_on(vm: VmMachine, event: TimeUp) -> Step:
    return clean(vm) if vm.signalled else shut_down(vm, restart=vm.restart)


@on(Phase.SHUTTING_DOWN, event=ActionFailed)
def _cannot_ask(vm: VmMachine, event: ActionFailed) -> Step:
    if is_unwritten(event):
        return vm, ()
    return clean(vm) if vm.signalled else shut_down(vm, restart=vm.restart)


@on(Phase.SHUTTING_DOWN, Phase.CLEANING, Phase.REAPING, event=StopWanted)
def _note_restart(vm: VmMachine, event: StopWanted) -> Step:
    noted = replace(vm, restart=event.restart)
    return noted, (SaveState(),)


@on(Phase.CLEANING, Phase.REAPING, event=GuestErased)
def _cleaned(vm: VmMachine, event: GuestErased) -> Step:
    return rest(vm)


@on(Phase.CLEANING, event=ActionFailed)
def _cannot_clean(vm: VmMachine, event: ActionFailed) -> Step:
    if is_unwritten(event):
        return vm, ()
    return enter(vm, Phase.REAPING, Arm(Deadline.RETRY), saved=RecordFailure(event.error, event.blame))


@on(Phase.REAPING, event=ActionFailed)
def _cannot_reap(vm: VmMachine, event: ActionFailed) -> Step:
    if is_unwritten(event):
        return vm, ()
    return enter(vm, Phase.REAPING, Arm(Deadline.RETRY))


@on(Phase.REAPING, event=TimeUp)
def _reap(vm: VmMachine, event: TimeUp) -> Step:
    return enter(vm, Phase.REAPING, *removal())


@on(Phase.STOPPED, event=StopWanted)
def _start_after_all(vm: VmMachine, event: StopWanted) -> Step:
    return rest(replace(vm, restart=event.restart))


@on(Phase.STOPPED, event=TimeUp)
def _save_again(vm: VmMachine, event: TimeUp) -> Step:
    return replace(vm, retrying=False), (SaveState(),)


# --- what changes nothing -------------------------------------------------------------------------

DELAYED: frozenset[tuple[Phase, type[Event]]] = frozenset(
    {
        (Phase.LAUNCHING, GuestDeparted),
        (Phase.SHUTTING_DOWN, StartWanted),
        (Phase.CLEANING, StartWanted),
        (Phase.REAPING, StartWanted),
    }
)
"""Kept, and looked at again when the phase has changed."""

IGNORED: frozenset[tuple[Phase, type[Event]]] = frozenset(
    {(phase, Done) for phase in Phase}
    | {(phase, StartWanted) for phase in Phase if phase.vm_state in (VmState.STARTING, VmState.RUNNING)}
    | {(phase, SlotGranted) for phase in Phase if phase is not Phase.QUEUED}
    | {(phase, RootReady) for phase in Phase if phase is not Phase.CLONING}
    | {(phase, GuestLaunched) for phase in Phase if phase is not Phase.LAUNCHING}
    | {(phase, VmaAnswered) for phase in Phase if phase is not Phase.AWAITING_VMA}
    | {
        (phase, event)
        for phase in Phase
        for event in (VmaSilent, AskDue, GuestTold, UserAnswered)
        if phase is not Phase.MONITORING
    }
    | {
        (phase, GuestErased)
        for phase in Phase
        if phase not in (Phase.CLEARING, Phase.CLEANING, Phase.REAPING)
    }
    | {
        (phase, GuestDeparted)
        for phase in Phase
        if phase not in (Phase.LAUNCHING, Phase.AWAITING_VMA, Phase.MONITORING, Phase.SHUTTING_DOWN)
    }
    | {
        (phase, TimeUp)
        for phase in (Phase.QUEUED, Phase.CLONING, Phase.LAUNCHING, Phase.CLEARING, Phase.CLEANING)
    }
)
"""Without meaning in that phase."""
