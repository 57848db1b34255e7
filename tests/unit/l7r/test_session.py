"""The session machine, read like a score: given phase, on event, expect phase and action."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.errors import UnexpectedEventError
from appliance.l7r import session as m
from appliance.l7r.session import Limits, Phase, Session, concerns, step
from appliance.model import DiId, SessionId, UserCmd, UserState, VmCmd, VmId, VmState
from appliance.storage.sessions import SessionRow
from appliance.vma.wire import XState

ME, OTHER = SessionId("me"), SessionId("other")
LIMITS = Limits(takeover_s=30, vm_start_s=270, x_start_s=10, x_retries=20, poll_vm_s=2, poll_x_s=1)
RUNNING = SessionRow(
    vm_id=VmId(7),
    vm_state=VmState.RUNNING,
    vm_cmd=None,
    run=1,
    failure=None,
    current_di_id=DiId(1),
    vm_address="10.3.1.7",
    vm_vma_port=3030,
    vm_x_port=4100,
    user_state=UserState.CONNECTING,
    user_cmd=None,
    session=ME,
)
ABORTED = replace(RUNNING, user_cmd=UserCmd.ABORT)
TAKEN_BY_OTHER = replace(RUNNING, session=OTHER)
STOPPED = replace(RUNNING, vm_state=VmState.STOPPED)


def at(phase: Phase, **more: Any) -> Session:
    return Session(id=ME, limits=LIMITS, phase=phase, since=0.0, row=RUNNING, **more)


def waiting(row: SessionRow, session: Session | None = None, now: float = 1.0) -> m.Step:
    return step(session or at(Phase.AWAITING_VM), m.RowSeen(at=now, row=row))


def test_a_warm_connect_from_asking_to_the_stream() -> None:
    session = Session(id=ME, limits=LIMITS, since=0.0)
    said = []
    for event, phase, action in (
        (m.Asked(at=0), Phase.TAKING, m.TakeOver()),
        (m.Taken(at=0, row=RUNNING), Phase.SETTLING, m.LookAtX()),
        (m.XSeen(at=0, state=XState.SUSPENDED), Phase.STARTING_X, m.StartX()),
        (m.XAsked(at=0), Phase.AWAITING_X, m.LookAtX(after_s=0.1)),
        (m.XSeen(at=0.1, state=XState.STARTING), Phase.AWAITING_X, m.LookAtX(after_s=0.1)),
        (m.XSeen(at=0.2, state=XState.LISTENING), Phase.DIALING, m.Dial()),
        (m.Dialed(at=0.2), Phase.COMMITTING, m.Commit()),
        (m.Committed(at=0.2, ours=True), Phase.CONNECTED, m.Switch()),
        (m.StreamEnded(at=9, cause="the client left"), Phase.ENDED, m.Close(cause="the client left")),
    ):
        session, found = step(session, event)
        said += [found.say] if found.say else []
        assert (session.phase, replace(found, say=None)) == (phase, action)
    assert said == [m.STARTING_X, m.ESTABLISHED]


def test_a_contended_row_is_tried_again_until_the_time_is_up() -> None:
    session, action = step(at(Phase.TAKING), m.Contended(at=1))
    assert action == m.TakeOver(wait_s=2, say=m.ENDING_OTHER)
    session, action = step(session, m.Contended(at=29.5))
    assert action == m.TakeOver(wait_s=0.5)
    session, action = step(session, m.Contended(at=30))
    assert isinstance(action, m.Refuse)
    assert action.status == 503


def test_an_older_contender_makes_room_for_a_newer() -> None:
    assert isinstance(step(at(Phase.TAKING), m.Outrun(at=1))[1], m.Refuse)


def test_a_stopped_vm_whose_start_is_wished_is_waited_for() -> None:
    session, action = waiting(replace(STOPPED, vm_cmd=VmCmd.START))
    assert action == m.AwaitRow(at_most_s=2, say=m.STARTING)
    assert session.awaits_start
    session, action = waiting(replace(RUNNING, vm_state=VmState.STARTING), session)
    assert action == m.AwaitRow(at_most_s=2)
    session, action = waiting(RUNNING, session)
    assert (session.phase, action) == (Phase.STARTING_X, m.StartX(say=m.STARTING_X))


def test_a_start_that_the_host_hinders_says_why_once_and_at_the_end() -> None:
    hindered = replace(RUNNING, vm_state=VmState.STARTING, failure="the pool is full")
    session, action = waiting(replace(hindered, failure=None))
    assert action == m.AwaitRow(at_most_s=2, say=m.STARTING)
    session, action = waiting(hindered, session)
    assert action == m.AwaitRow(at_most_s=2, say=f"{m.WAITING}: the pool is full")
    session, action = waiting(replace(hindered, failure="the pool is full still"), session)
    assert action == m.AwaitRow(at_most_s=2)
    _, action = waiting(hindered, session, now=270)
    assert isinstance(action, m.Refuse)
    assert action.cause == "the desktop was not ready within 270 s: the pool is full"


def test_a_vm_that_stops_is_started_once_it_has_stopped() -> None:
    session, action = waiting(replace(RUNNING, vm_state=VmState.STOPPING))
    assert action == m.AwaitRow(at_most_s=2, say=m.STOPPING)
    session, action = waiting(STOPPED, session)
    assert action == m.WishStart(say=m.STARTING)
    session, action = waiting(replace(STOPPED, failure="the image has no VMA"), session)
    assert isinstance(action, m.Refuse)
    assert "the image has no VMA" in action.cause


def test_a_zombie_is_refused() -> None:
    assert isinstance(waiting(replace(RUNNING, vm_state=VmState.ZOMBIE))[1], m.Refuse)


def test_a_vm_without_an_address_is_refused() -> None:
    assert isinstance(waiting(replace(RUNNING, vm_address=None))[1], m.Refuse)


def test_a_start_that_takes_too_long_is_refused() -> None:
    starting = replace(RUNNING, vm_state=VmState.STARTING)
    assert isinstance(waiting(starting, now=269)[1], m.AwaitRow)
    assert isinstance(waiting(starting, now=270)[1], m.Refuse)


def test_a_long_wait_says_so_once() -> None:
    session, starting = at(Phase.AWAITING_VM), replace(RUNNING, vm_state=VmState.STARTING)
    said = []
    for now in range(0, 260, 2):
        session, action = waiting(starting, session, now=now)
        said += [action.say] if action.say else []
    assert said == [m.STARTING, m.STILL_STARTING]


@pytest.mark.parametrize("row", [None, ABORTED, TAKEN_BY_OTHER, STOPPED, replace(RUNNING, run=2)])
@pytest.mark.parametrize("phase", sorted(m.BUSY))
def test_losing_the_row_or_the_vm_ends_any_phase(phase: Phase, row: SessionRow | None) -> None:
    assert concerns(at(phase), row)
    session, action = step(at(phase), m.RowSeen(at=1, row=row))
    assert session.phase is Phase.ENDED
    assert isinstance(action, m.Close if phase is Phase.CONNECTED else m.Refuse)


@pytest.mark.parametrize("phase", sorted(m.BUSY))
def test_an_unchanged_row_is_no_news(phase: Phase) -> None:
    assert not concerns(at(phase), RUNNING)


def test_a_stream_outlives_the_order_to_stop_until_the_vm_has_stopped() -> None:
    stopping = replace(RUNNING, vm_state=VmState.STOPPING)
    assert not concerns(at(Phase.CONNECTED), stopping)
    assert concerns(at(Phase.AWAITING_X), stopping)


def test_x_that_just_loses_its_client_is_left_to_settle() -> None:
    session, action = step(at(Phase.SETTLING), m.XSeen(at=1, state=XState.CONNECTED))
    assert isinstance(action, m.LookAtX)
    session, action = step(session, m.XSeen(at=2, state=XState.SUSPENDED))
    assert isinstance(action, m.StartX)
    _, action = step(at(Phase.SETTLING), m.XSeen(at=m.SETTLE_S, state=XState.CONNECTED))
    assert isinstance(action, m.StartX)


def test_x_start_is_tried_again_so_often_and_no_more() -> None:
    session, tries = at(Phase.STARTING_X), 0
    action: m.Action = m.StartX()
    while isinstance(action, m.StartX):
        tries += 1
        session, action = step(session, m.XAsked(at=tries, failure="try again", refused=True))
        assert not isinstance(action, m.StartX) or action.after_s == LIMITS.poll_x_s
    assert tries == LIMITS.x_retries + 1
    assert isinstance(action, m.Refuse)


@pytest.mark.parametrize("state", [None, XState.STARTING])
def test_x_has_its_time_to_listen(state: XState | None) -> None:
    assert isinstance(step(at(Phase.AWAITING_X), m.XSeen(at=9.9, state=state))[1], m.LookAtX)
    assert isinstance(step(at(Phase.AWAITING_X), m.XSeen(at=10, state=state))[1], m.Refuse)


def test_provisioning_takes_as_long_as_it_takes() -> None:
    session, action = step(at(Phase.AWAITING_X), m.XSeen(at=500, state=XState.PROVISIONING))
    assert action == m.LookAtX(after_s=1)
    assert isinstance(step(session, m.XSeen(at=505, state=XState.STARTING))[1], m.LookAtX)


@pytest.mark.parametrize(
    "state", [XState.CONNECTED, XState.SUSPENDED, XState.SUSPENDING, XState.STOPPING, XState.STOPPED]
)
def test_any_other_state_of_x_is_a_failure(state: XState) -> None:
    assert isinstance(step(at(Phase.AWAITING_X), m.XSeen(at=1, state=state))[1], m.Refuse)


def test_nobody_dials_twice() -> None:
    assert isinstance(step(at(Phase.DIALING), m.Dialed(at=1, failure="refused"))[1], m.Refuse)


def test_a_row_lost_at_the_last_moment_is_refused() -> None:
    assert isinstance(step(at(Phase.COMMITTING), m.Committed(at=1, ours=False))[1], m.Refuse)


@pytest.mark.parametrize("phase", sorted(set(Phase) - {Phase.ENDED}))
def test_a_client_that_leaves_ends_any_phase(phase: Phase) -> None:
    session, action = step(at(phase), m.ClientLeft(at=1))
    assert (session.phase, action) == (Phase.ENDED, m.Close(cause="the client left"))


def test_an_impossible_event_is_our_own_fault() -> None:
    with pytest.raises(UnexpectedEventError):
        step(at(Phase.TAKING), m.Dialed(at=1))


OUTCOMES: dict[type[m.Action], Any] = {
    m.TakeOver: st.one_of(
        st.sampled_from(list(VmState)).map(lambda s: ("Taken", s)), st.just(("Contended", None))
    ),
    m.WishStart: st.sampled_from(list(VmState)).map(lambda s: ("RowSeen", s)),
    m.AwaitRow: st.sampled_from(list(VmState)).map(lambda s: ("RowSeen", s)),
    m.StartX: st.sampled_from([None, "try again"]).map(lambda f: ("XAsked", f)),
    m.LookAtX: st.sampled_from([*XState, None]).map(lambda s: ("XSeen", s)),
    m.Dial: st.sampled_from([None, "refused"]).map(lambda f: ("Dialed", f)),
    m.Commit: st.booleans().map(lambda ours: ("Committed", ours)),
    m.Switch: st.just(("StreamEnded", "the client left")),
}


@given(st.data())
def test_whatever_happens_a_session_ends_and_stays_within_its_budget(data: st.DataObject) -> None:
    """At most seven 102s before the 101: the native client gives up at its eleventh read (trap T3)."""
    session, now, said = Session(id=ME, limits=LIMITS, since=0.0), 0.0, 0
    event: m.Event = m.Asked(at=now)
    for _ in range(2000):
        session, action = step(session, event)
        said += action.say is not None
        if isinstance(action, m.Refuse | m.Close):
            break
        waits = isinstance(action, m.AwaitRow | m.TakeOver)
        now += data.draw(st.sampled_from([100.0, 30.0, 2.0])) if waits else 0.5
        event = outcome(data.draw(OUTCOMES[type(action)]), now)
    else:
        pytest.fail("the session never ends")
    assert session.phase is Phase.ENDED
    assert said <= 7


def outcome(drawn: tuple[str, Any], now: float) -> m.Event:
    kind, value = drawn
    match kind:
        case "Contended":
            return m.Contended(at=now)
        case "Taken":
            return m.Taken(at=now, row=replace(RUNNING, vm_state=value))
        case "RowSeen":
            return m.RowSeen(at=now, row=replace(RUNNING, vm_state=value, failure=str(now)))
        case "XAsked":
            return m.XAsked(at=now, failure=value, refused=True)
        case "XSeen":
            return m.XSeen(at=now, state=value)
        case "Dialed":
            return m.Dialed(at=now, failure=value)
        case "Committed":
            return m.Committed(at=now, ours=value)
    return m.StreamEnded(at=now, cause=value)
