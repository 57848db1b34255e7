"""The VM machine, read like a score: given phase, on event, expect phase and actions."""

from __future__ import annotations

from dataclasses import replace

import pytest

from appliance.errors import UnexpectedEventError
from appliance.model import FailureCause
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
from appliance.runtime.blame import GUEST as GUEST_FAULT
from appliance.runtime.blame import HOST, IMAGE, Blame
from appliance.runtime.events import (
    EVENT_TYPES,
    ActionFailed,
    AskDue,
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
from appliance.runtime.machine import DELAYED, IGNORED, TRANSITIONS, Phase, VmMachine, step
from tests.support.machines import GUEST, NOW, VM_ID, machine
from tests.support.machines import sample_event as event

REMOVAL = [KillGuest, UnfenceGuest, EraseGuest]
KEEPING = [KillGuest, UnfenceGuest, KeepRoot, EraseGuest]


def stop_wanted(*, restart: bool = False) -> Event:
    return event(StopWanted, restart=restart)


def failed(action: Action, blame: Blame = HOST) -> Event:
    return event(ActionFailed, action=action, blame=blame)


SCORE: list[tuple[Phase, Event, Phase, list[type[Action]]]] = [
    (Phase.STOPPED, event(StartWanted), Phase.QUEUED, [SaveState]),
    (Phase.STOPPED, stop_wanted(restart=True), Phase.QUEUED, [SaveState]),
    (Phase.STOPPED, stop_wanted(), Phase.STOPPED, [SaveState]),
    (Phase.QUEUED, event(SlotGranted), Phase.CLONING, [PrepareRoot]),
    (Phase.QUEUED, stop_wanted(), Phase.STOPPED, [SaveState]),
    (Phase.QUEUED, stop_wanted(restart=True), Phase.QUEUED, [SaveState]),
    (
        Phase.CLONING,
        event(RootReady),
        Phase.LAUNCHING,
        [SaveState, DefineGuest, FenceGuest, LaunchGuest],
    ),
    (Phase.CLONING, stop_wanted(), Phase.CLEANING, [SaveState, *REMOVAL]),
    (Phase.CLONING, failed(PrepareRoot(), IMAGE), Phase.CLEANING, [RecordFailure, *REMOVAL]),
    (Phase.CLONING, failed(PrepareRoot()), Phase.CLEARING, [RecordFailure, *REMOVAL]),
    (Phase.CLEARING, event(GuestErased), Phase.WAITING, [SaveState, Arm]),
    (Phase.CLEARING, stop_wanted(), Phase.CLEANING, [SaveState, *REMOVAL]),
    (Phase.CLEARING, failed(EraseGuest()), Phase.REAPING, [RecordFailure, Arm]),
    (Phase.WAITING, event(TimeUp), Phase.QUEUED, [SaveState]),
    (Phase.WAITING, stop_wanted(), Phase.STOPPED, [SaveState]),
    (Phase.WAITING, stop_wanted(restart=True), Phase.QUEUED, [SaveState]),
    (Phase.WAITING, failed(SaveState()), Phase.WAITING, [Arm]),
    (Phase.LAUNCHING, event(GuestLaunched), Phase.AWAITING_VMA, [SaveState, WatchVma, Arm]),
    (Phase.LAUNCHING, failed(LaunchGuest(), IMAGE), Phase.CLEANING, [RecordFailure, *KEEPING]),
    (Phase.LAUNCHING, failed(LaunchGuest()), Phase.CLEARING, [RecordFailure, *REMOVAL]),
    (Phase.AWAITING_VMA, event(VmaAnswered), Phase.MONITORING, [SaveState, WatchVma]),
    (Phase.AWAITING_VMA, event(TimeUp), Phase.CLEANING, [RecordFailure, *KEEPING]),
    (Phase.AWAITING_VMA, event(GuestDeparted), Phase.CLEANING, [RecordFailure, *KEEPING]),
    (Phase.AWAITING_VMA, stop_wanted(), Phase.SHUTTING_DOWN, [SaveState, StopGuest, Arm]),
    (Phase.MONITORING, stop_wanted(), Phase.SHUTTING_DOWN, [SaveState, AskPoweroff, Arm]),
    (
        Phase.MONITORING,
        event(VmaSilent),
        Phase.SHUTTING_DOWN,
        [RecordFailure, StopGuest, Arm],
    ),
    (Phase.MONITORING, event(GuestDeparted), Phase.CLEANING, [RecordFailure, *REMOVAL]),
    (Phase.MONITORING, failed(AdoptGuest(GUEST)), Phase.MONITORING, [Arm]),
    (Phase.MONITORING, event(TimeUp), Phase.MONITORING, [SaveState, AdoptGuest, FenceGuest]),
    (Phase.MONITORING, event(AskDue), Phase.MONITORING, [TellGuest]),
    (Phase.MONITORING, event(GuestTold), Phase.MONITORING, [AwaitAnswer]),
    (Phase.MONITORING, event(GuestTold, answers=False), Phase.MONITORING, []),
    (Phase.SHUTTING_DOWN, event(GuestDeparted), Phase.CLEANING, [SaveState, *REMOVAL]),
    (Phase.SHUTTING_DOWN, event(TimeUp), Phase.SHUTTING_DOWN, [SaveState, StopGuest, Arm]),
    (Phase.SHUTTING_DOWN, failed(AskPoweroff(GUEST)), Phase.SHUTTING_DOWN, [SaveState, StopGuest, Arm]),
    (Phase.CLEANING, event(GuestErased), Phase.STOPPED, [SaveState]),
    (Phase.CLEANING, failed(KillGuest()), Phase.REAPING, [RecordFailure, Arm]),
    (Phase.REAPING, event(TimeUp), Phase.REAPING, [SaveState, *REMOVAL]),
    (Phase.REAPING, failed(EraseGuest()), Phase.REAPING, [SaveState, Arm]),
    (Phase.REAPING, event(GuestErased), Phase.STOPPED, [SaveState]),
]


@pytest.mark.parametrize(("given", "on", "phase", "actions"), SCORE)
def test_score(given: Phase, on: Event, phase: Phase, actions: list[type[Action]]) -> None:
    after, ordered = step(machine(given), on)
    assert after.phase is phase
    assert [type(action) for action in ordered] == actions


def test_every_pair_of_phase_and_event_is_declared_exactly_once() -> None:
    for phase in Phase:
        for kind in EVENT_TYPES:
            homes = [(phase, kind) in table for table in (TRANSITIONS, DELAYED, IGNORED)]
            assert sum(homes) == 1, f"{phase} {kind.__name__} is declared {sum(homes)} times"


def test_an_answer_to_an_earlier_entry_changes_nothing() -> None:
    vm = machine(Phase.AWAITING_VMA)
    assert step(vm, event(TimeUp, entry=vm.entry - 1)) == (vm, ())


def test_an_undeclared_pair_is_an_error_of_ours() -> None:
    class Nonsense(Event):
        pass

    with pytest.raises(UnexpectedEventError, match="Nonsense in stopped"):
        step(machine(Phase.STOPPED), Nonsense(vm_id=VM_ID, at=NOW, cause="test"))


def test_a_signalled_guest_that_does_not_end_is_killed() -> None:
    asked, _ = step(machine(Phase.MONITORING), stop_wanted())
    signalled, actions = step(asked, event(TimeUp))
    assert actions[1:] == (StopGuest(), Arm(Deadline.SIGNAL))
    killed, _ = step(signalled, event(TimeUp))
    assert killed.phase is Phase.CLEANING


ENDING = [Phase.SHUTTING_DOWN, Phase.CLEANING, Phase.CLEARING, Phase.REAPING]


@pytest.mark.parametrize("phase", ENDING)
@pytest.mark.parametrize("unwritten", [SaveState(), RecordFailure("it ended", HOST)])
def test_a_database_that_refuses_neither_hastens_an_end_nor_holds_it_up(
    phase: Phase, unwritten: Action
) -> None:
    vm = machine(phase)
    assert step(vm, failed(unwritten)) == (vm, ())


@pytest.mark.parametrize("phase", [Phase.MONITORING, Phase.STOPPED])
def test_however_much_fails_at_once_is_tried_again_once(phase: Phase) -> None:
    vm = machine(phase)
    for _ in range(2):
        vm, actions = step(vm, failed(SaveState()))
        assert actions == (Arm(Deadline.RETRY),)
        vm, actions = step(vm, failed(FenceGuest(GUEST)))
        assert actions == ()
        vm, actions = step(vm, event(TimeUp))
        assert SaveState() in actions


@pytest.mark.parametrize("phase", [Phase.MONITORING, Phase.AWAITING_VMA, Phase.LAUNCHING, Phase.CLONING])
def test_a_restart_wanted_at_any_time_leads_to_a_second_run(phase: Phase) -> None:
    vm, _ = step(machine(phase), stop_wanted(restart=True))
    if vm.phase is Phase.SHUTTING_DOWN:
        vm, _ = step(vm, event(GuestDeparted))
    assert vm.restart
    vm, actions = step(vm, event(GuestErased))
    assert vm.phase is Phase.QUEUED
    assert vm.run == machine(phase).run + 1
    assert not vm.restart
    assert isinstance(actions[0], SaveState)


@pytest.mark.parametrize("image", [event(TimeUp), event(GuestDeparted), failed(SaveState(), IMAGE)])
def test_an_image_that_does_not_boot_is_blamed_and_its_root_kept(image: Event) -> None:
    _, (record, *_, keep, _) = step(machine(Phase.AWAITING_VMA), image)
    assert isinstance(record, RecordFailure)
    assert record.blame is IMAGE
    assert keep == KeepRoot(record.reason)


@pytest.mark.parametrize("own", [event(GuestDeparted), event(VmaSilent)])
def test_a_guest_that_had_been_running_blames_neither_image_nor_host(own: Event) -> None:
    _, actions = step(machine(Phase.MONITORING), own)
    assert [action.blame for action in actions if isinstance(action, RecordFailure)] == [GUEST_FAULT]
    assert KeepRoot not in {type(action) for action in actions}


def test_a_start_that_the_host_fails_is_the_same_run_however_often_it_is_tried() -> None:
    vm = machine(Phase.CLONING)
    for tries in (1, 2, 3):
        vm, (record, *_) = step(vm, failed(PrepareRoot(), Blame(FailureCause.HOST, "pool")))
        assert record == RecordFailure("the pool is full", Blame(FailureCause.HOST, "pool"))
        vm, actions = step(vm, event(GuestErased))
        assert actions == (SaveState(), Arm(Deadline.BACKOFF, tries))
        vm, _ = step(vm, event(TimeUp))
        assert (vm.phase, vm.run, vm.guest) == (Phase.QUEUED, machine(Phase.CLONING).run, None)
        vm, _ = step(vm, event(SlotGranted))
    vm, _ = step(vm, event(RootReady))
    vm, _ = step(vm, event(GuestLaunched))
    vm, _ = step(vm, event(VmaAnswered))
    assert vm.tries == 0


def test_a_wish_to_restart_ends_the_waiting_and_counts_anew() -> None:
    vm, _ = step(replace(machine(Phase.WAITING), tries=9), stop_wanted(restart=True))
    assert (vm.phase, vm.tries, vm.run) == (Phase.QUEUED, 0, 2)


def test_what_cannot_be_cleared_away_starts_once_it_can() -> None:
    vm, _ = step(machine(Phase.CLEARING), failed(EraseGuest()))
    assert vm.restart
    vm, _ = step(vm, event(TimeUp))
    vm, _ = step(vm, event(GuestErased))
    assert vm.phase is Phase.QUEUED


def test_one_answer_is_waited_for_however_often_is_asked() -> None:
    asked, _ = step(machine(Phase.MONITORING), event(GuestTold))
    assert asked.asking
    again, actions = step(asked, event(AskDue))
    assert [type(action) for action in actions] == [TellGuest]
    told, actions = step(again, event(GuestTold))
    assert actions == ()
    heard, actions = step(told, event(UserAnswered))
    assert heard.asking
    assert [type(action) for action in actions] == [AwaitAnswer], "it may be the answer to the first"
    answered, actions = step(heard, event(UserAnswered))
    assert (answered.asking, actions) == (False, ())
    ended, _ = step(again, stop_wanted())
    assert not ended.asking


def test_a_later_stop_cancels_the_restart() -> None:
    vm, _ = step(machine(Phase.MONITORING), stop_wanted(restart=True))
    vm, actions = step(vm, stop_wanted())
    assert not vm.restart
    assert [type(action) for action in actions] == [SaveState]
    vm, _ = step(vm, event(GuestDeparted))
    vm, _ = step(vm, event(GuestErased))
    assert vm.phase is Phase.STOPPED


def test_each_entry_saves_the_state_first() -> None:
    for given, on, _, _ in SCORE:
        before = machine(given)
        after, actions = step(before, on)
        if after.entry != before.entry:
            assert actions[0].saves


def test_phases_map_to_states() -> None:
    assert {phase.vm_state.value for phase in Phase} == {
        "stopped",
        "starting",
        "running",
        "stopping",
        "zombie",
    }
    assert isinstance(machine(Phase.STOPPED), VmMachine)
