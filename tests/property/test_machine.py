"""Crash anywhere: whatever happens to the machine or its process, the row and the host agree in the end."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from appliance.model import BackendKind, StartedBy, VmState
from appliance.runtime.actions import (
    Action,
    Arm,
    AwaitAnswer,
    Background,
    EraseGuest,
    KillGuest,
    LaunchGuest,
    PrepareRoot,
    SaveState,
    StopGuest,
    TellGuest,
    WatchVma,
)
from appliance.runtime.adopt import adopt
from appliance.runtime.blame import HOST, IMAGE, Blame
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
from appliance.runtime.machine import Phase, VmMachine, is_delayed, step
from tests.support.machines import GUEST, NOW, QUESTION, VM_ID, machine
from tests.support.rows import vm_row


class Life(RuleBasedStateMachine):
    """One VM on a host that fails at random, under a daemon that may die between any two effects."""

    @initialize()
    def begin(self) -> None:
        self.machine: VmMachine = machine(Phase.STOPPED)
        self.orders: deque[tuple[int, Action]] = deque()
        self.delayed: list[Event] = []
        self.row = self.machine
        self.runs = False
        self.root = False
        self.background: set[type[Action]] = set()

    # --- the daemon ---------------------------------------------------------------------------

    def post(self, kind: type[Event], *, entry: int | None = None, **values: Any) -> None:
        self.happen(kind(vm_id=VM_ID, at=NOW, cause="test", entry=entry, **values))

    def happen(self, event: Event) -> None:
        if is_delayed(self.machine, event):
            self.delayed.append(event)
            return
        before = self.machine
        self.machine, actions = step(before, event)
        if self.machine.entry != before.entry:
            self.orders = deque((entry, action) for entry, action in self.orders if action.survives)
            self.background.clear()
        self.take(actions)
        if self.machine.entry != before.entry:
            again, self.delayed = self.delayed, []
            for event in again:
                self.happen(event)

    def take(self, actions: tuple[Action, ...]) -> None:
        for action in actions:
            if isinstance(action, Background):
                assert not (isinstance(action, AwaitAnswer) and AwaitAnswer in self.background)
                self.background.add(type(action))
            else:
                self.orders.append((self.machine.entry, action))

    def carry_out(self) -> None:
        entry, action = self.orders.popleft()
        match action:
            case SaveState():
                self.row = self.machine
            case PrepareRoot():
                self.root = True
                return self.post(RootReady, entry=entry, guest=GUEST)
            case LaunchGuest():
                assert not self.runs, "a second guest on one root"
                assert self.root
                self.runs = True
                return self.post(GuestLaunched, entry=entry)
            case TellGuest():
                return self.post(GuestTold, entry=entry, answers=True)
            case StopGuest() | KillGuest() if self.runs:
                self.runs = False
                self.post(GuestDeparted)
            case EraseGuest():
                assert not self.runs, "erased under a running guest"
                self.root = False
                return self.post(GuestErased, entry=entry)
        return self.post(Done, entry=entry)

    # --- what may happen ----------------------------------------------------------------------

    @precondition(lambda self: self.orders)
    @rule()
    def effect_succeeds(self) -> None:
        self.carry_out()

    @precondition(lambda self: self.orders)
    @rule(done_all_the_same=st.booleans(), blame=st.sampled_from([HOST, IMAGE]))
    def effect_fails(self, done_all_the_same: bool, blame: Blame) -> None:
        entry, action = self.orders.popleft()
        if done_all_the_same and isinstance(action, LaunchGuest):
            assert not self.runs
            self.runs = True
        self.post(ActionFailed, entry=entry, action=action, error="failed", blame=blame)

    @precondition(lambda self: self.row.phase is self.machine.phase is Phase.STOPPED)
    @rule()
    def start_is_claimed(self) -> None:
        run = self.row.run + 1
        self.row = replace(self.row, phase=Phase.QUEUED, run=run)
        self.post(StartWanted, backend=BackendKind.LXC, started_by=StartedBy.COMMAND, run=run)

    @precondition(lambda self: self.row.phase is not Phase.STOPPED)
    @rule(restart=st.booleans())
    def stop_is_claimed(self, restart: bool) -> None:
        ends = self.row.phase.vm_state in (VmState.STOPPING, VmState.ZOMBIE)
        self.row = replace(self.row, phase=self.row.phase if ends else Phase.SHUTTING_DOWN, restart=restart)
        self.post(StopWanted, restart=restart)

    @precondition(lambda self: self.machine.phase is Phase.QUEUED)
    @rule()
    def slot_is_granted(self) -> None:
        self.post(SlotGranted, entry=self.machine.entry)

    @precondition(lambda self: Arm in self.background)
    @rule()
    def time_is_up(self) -> None:
        self.background.discard(Arm)
        self.post(TimeUp, entry=self.machine.entry, waited_s=1.0)

    @precondition(lambda self: WatchVma in self.background and self.runs)
    @rule()
    def vma_speaks_or_not(self) -> None:
        if self.machine.phase is Phase.AWAITING_VMA:
            self.post(VmaAnswered, entry=self.machine.entry)
        else:
            self.post(VmaSilent, entry=self.machine.entry, silent_s=400.0)

    @rule()
    def a_question_is_due(self) -> None:
        self.post(AskDue, question=QUESTION)

    @precondition(lambda self: AwaitAnswer in self.background)
    @rule()
    def the_user_answers(self) -> None:
        assert self.machine.asking
        self.background.discard(AwaitAnswer)
        self.post(UserAnswered, entry=self.machine.entry)

    @precondition(lambda self: self.runs)
    @rule()
    def guest_ends(self) -> None:
        self.runs = False
        self.post(GuestDeparted)

    @rule(rebooted=st.booleans())
    def daemon_dies_and_comes_back(self, rebooted: bool) -> None:
        if rebooted:
            self.runs = False
        self.orders.clear()
        self.delayed.clear()
        self.background.clear()
        row = vm_row(self.row)
        found = adopt(row, GUEST if self.runs else None, backend=BackendKind.LXC, rebooted=rebooted)
        if found is None:
            self.machine = replace(machine(Phase.STOPPED), run=self.row.run)
        else:
            self.machine, actions = found
            self.take(actions)

    # --- what always holds --------------------------------------------------------------------

    @invariant()
    def the_row_is_never_behind_the_host(self) -> None:
        assert not self.runs or self.row.phase is not Phase.STOPPED

    @invariant()
    def a_start_that_is_to_follow_is_in_the_row(self) -> None:
        starts = self.row.phase.vm_state is VmState.STARTING
        assert not self.machine.restart or self.row.restart or starts

    def teardown(self) -> None:
        """A stop and enough time end every story with nothing left on the host."""
        if not hasattr(self, "machine"):
            return
        self.post(StopWanted, restart=False)
        for _ in range(200):
            if self.orders:
                self.carry_out()
            elif Arm in self.background:
                self.time_is_up()
            else:
                break
        assert self.machine.phase is Phase.STOPPED
        assert self.row.phase is Phase.STOPPED
        assert not self.runs


Life.TestCase.settings = settings(max_examples=300, stateful_step_count=40, deadline=None)
TestLife = Life.TestCase
