"""The X session machine, as scores: given a phase, on an event, expect a phase and actions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.vma.wire import XState
from appliance.vma.xsession import (
    LIMITS,
    Answer,
    Ended,
    Entered,
    Event,
    HangUp,
    Kill,
    Launch,
    Phase,
    Prepare,
    Prepared,
    Refuse,
    Session,
    StartWanted,
    StopWanted,
    SuspendWanted,
    Terminate,
    Tick,
    Word,
    step,
)

AT = 100.0
WORDS = (
    "initiating", "provisioning", "starting", "started", "suspending", "suspended", "resuming", "resumed",
    "terminating", "terminated", "aborting", "aborted", "gibberish",
)  # fmt: skip


def given_in(phase: Phase) -> Session:
    return Session(phase, since=90.0, launch=3, attempt=2, signalled=90.0)


def play(session: Session, *events: Event) -> Session:
    for event in events:
        session, _ = step(session, event)
    return session


@pytest.mark.parametrize(
    ("phase", "event", "then", "actions"),
    [
        (Phase.SUSPENDED, StartWanted(AT, {}), Phase.PREPARING, [Answer("starting"), Prepare(3, 3, {})]),
        (Phase.PREPARING, Prepared(AT, 3, 2, True), Phase.WAKING, [HangUp(3)]),
        (Phase.PREPARING, Prepared(AT, 3, 1, True), Phase.PREPARING, []),
        (Phase.PREPARING, Prepared(AT, 3, 2, False), Phase.SUSPENDED, []),
        (Phase.CONNECTED, SuspendWanted(AT), Phase.HANGING_UP, [Answer("starting"), HangUp(3)]),
        (Phase.SUSPENDED, SuspendWanted(AT), Phase.SUSPENDED, [Answer("suspended")]),
        (Phase.STOPPED, SuspendWanted(AT), Phase.STOPPED, [Answer("stopped")]),
        (Phase.CONNECTED, StopWanted(AT), Phase.STOPPING, [Answer("stopping"), Terminate(3)]),
        (Phase.LAUNCHING, StopWanted(AT), Phase.STOPPING, [Answer("stopping"), Terminate(3)]),
        (Phase.STOPPING, StopWanted(AT), Phase.STOPPING, [Answer("stopping")]),
        (Phase.LAUNCHING, Word(AT, 3, "starting"), Phase.LISTENING, []),
        (Phase.LISTENING, Word(AT, 3, "initiating"), Phase.LISTENING, []),
        (Phase.CONNECTED, Word(AT, 3, "suspended"), Phase.SUSPENDED, []),
        (Phase.CONNECTED, Word(AT, 2, "terminated"), Phase.CONNECTED, []),
        (Phase.CONNECTED, Word(AT, 3, "gibberish"), Phase.STOPPING, [Terminate(3)]),
        (Phase.STOPPING, Word(AT, 3, "resumed"), Phase.STOPPING, []),
        (Phase.LAUNCHING, Tick(AT, True), Phase.STOPPING, [Terminate(3)]),
        (Phase.LISTENING, Tick(AT, True), Phase.STOPPING, [Terminate(3)]),
        (Phase.RESUMING, Tick(AT, True), Phase.HANGING_UP, [HangUp(3)]),
        (Phase.WAKING, Tick(AT, False), Phase.WAKING, [HangUp(3)]),
        (Phase.HANGING_UP, Tick(AT, False), Phase.HANGING_UP, [HangUp(3)]),
        (Phase.HANGING_UP, Tick(AT, True), Phase.STOPPING, [Terminate(3)]),
        (Phase.WAKING, Tick(AT, True), Phase.SUSPENDED, []),
        (Phase.STOPPING, Tick(AT, False), Phase.STOPPING, [Terminate(3)]),
        (Phase.CONNECTED, Tick(AT, False), Phase.CONNECTED, []),
        (Phase.SUSPENDING, Tick(AT, True), Phase.STOPPING, [Terminate(3)]),
        (Phase.STOPPING, Tick(AT, True), Phase.STOPPING, [Kill(3)]),
        (Phase.CONNECTED, Tick(AT, True), Phase.CONNECTED, []),
        (Phase.CONNECTED, Ended(AT, 3), Phase.STOPPED, []),
        (Phase.CONNECTED, Ended(AT, 2), Phase.CONNECTED, []),
    ],
)
def test_score(phase: Phase, event: Event, then: Phase, actions: list[object]) -> None:
    session, done = step(given_in(phase), event)
    assert session.phase is then
    assert [action for action in done if not isinstance(action, Entered)] == actions


def test_a_start_of_a_stopped_session_launches_once() -> None:
    params = {"qvd.vm.user.name": "alice"}
    session, actions = step(Session(), StartWanted(AT, params))
    assert actions == (Entered(Phase.LAUNCHING), Answer("starting"), Launch(1, params))
    session, actions = step(session, StartWanted(AT, params))
    assert actions == (Refuse("Can't connect to X session in state starting, try again"),)


def test_a_start_while_connected_suspends_and_refuses() -> None:
    session, actions = step(given_in(Phase.CONNECTED), StartWanted(AT, {}))
    refused = Refuse("Can't connect to X session in state connected, suspending it, retry later")
    assert actions == (Entered(Phase.HANGING_UP), refused, HangUp(3))
    assert session.x_state is XState.SUSPENDING
    again, actions = step(session, StartWanted(AT, {}))
    assert HangUp(3) not in actions, "a second HUP would wake it again"
    assert again == session


def test_signals_are_repeated_until_the_limit_of_the_phase() -> None:
    limits = dict.fromkeys(LIMITS, 2.0)
    for phase in (Phase.HANGING_UP, Phase.WAKING, Phase.STOPPING):
        session = Session(phase, since=AT, launch=3, signalled=AT)
        ticks: list[Tick] = []
        while not ticks or not ticks[-1].final:
            tick = session.due(limits)
            assert tick is not None
            ticks.append(tick)
            session, _ = step(session, tick)
        assert [tick.at - AT for tick in ticks] == [0.5, 1.0, 1.5, 2.0]


def test_every_phase_that_may_not_last_has_a_limit() -> None:
    limits = dict.fromkeys(LIMITS, 10.0)
    lasting = {phase for phase in Phase if given_in(phase).due(limits) is None}
    assert lasting == {Phase.STOPPED, Phase.CONNECTED, Phase.SUSPENDED}


EVENTS = st.one_of(
    st.builds(StartWanted, st.just(AT), st.just({})),
    st.builds(SuspendWanted, st.just(AT)),
    st.builds(StopWanted, st.just(AT)),
    st.builds(Word, st.just(AT), st.integers(0, 3), st.sampled_from(WORDS)),
    st.builds(Prepared, st.just(AT), st.integers(0, 3), st.integers(0, 3), st.booleans()),
    st.builds(Ended, st.just(AT), st.integers(0, 3)),
    st.builds(Tick, st.just(AT), st.booleans()),
)


@given(st.lists(EVENTS, max_size=40))
def test_whatever_happens_one_launch_lives_and_requests_are_answered_once(events: list[Event]) -> None:
    session, alive = Session(), 0
    for event in events:
        before = session
        session, actions = step(session, event)
        answers = [action for action in actions if isinstance(action, (Answer, Refuse))]
        assert len(answers) == isinstance(event, (StartWanted, SuspendWanted, StopWanted))
        launches = sum(isinstance(action, Launch) for action in actions)
        alive += launches
        if before.phase is not Phase.STOPPED and session.phase is Phase.STOPPED:
            assert isinstance(event, Ended), "only the end of its processes ends a session"
            alive -= 1
        assert alive == (session.phase is not Phase.STOPPED)


@given(st.lists(EVENTS, max_size=40))
def test_from_anywhere_a_stop_reaches_stopped(events: list[Event]) -> None:
    session = play(Session(), *events)
    session = play(session, StopWanted(AT), Ended(AT, session.launch))
    assert session.phase is Phase.STOPPED
