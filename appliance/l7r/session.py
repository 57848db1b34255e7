"""The session machine: from "this desktop, please" to the end of the stream (protocol.md 1.7 and 1.9).

Theory of operation. A session first *takes* the VM's row, which has one owner at every commit; whoever
holds it is ordered to leave and given time. The same transaction wishes the VM started if it is stopped.
The session then waits until the *row* says running, lets an X session that is just losing its last client
*settle*, starts X (with retries), looks at it until it listens, *dials* the one connection to nxagent, and
*commits*: the row says connected only if it is still ours. Then come the 101 and the stream.

Events and actions. Each action ends in exactly one event, its outcome. Besides outcomes there is news: the
row as re-read after a change, and the client's leaving. `concerns` says which rows are news worth
interrupting the action under way for; `step` decides. Nothing here performs I/O or reads a clock: time enters
as `event.at`.

Interim replies. An action may carry the text that announces it to the client. Each kind of text is said once
in a session, and only the wait for the VM has two more, when it is long and when the host is at fault: the
native client counts its reads, and gives up at its eleventh (trap T3).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TypeAlias

from appliance.errors import UnexpectedEventError
from appliance.model import SessionId, VmCmd, VmState
from appliance.storage.sessions import SessionRow
from appliance.vma.wire import XState

POLL_TAKEOVER_S = 2.0
SETTLE_S = 8.0
REMIND_S = 60.0
FIRST_LOOK_S = 0.1

ENDING_OTHER = "Ending the session of another client"
STOPPING = "Waiting for the desktop to stop"
STARTING = "Starting the desktop"
STILL_STARTING = "Still starting the desktop"
WAITING = "The desktop cannot start yet"
STARTING_X = "Starting the graphical session"
ESTABLISHED = "Connection established"


class Phase(StrEnum):
    """Where a session stands."""

    TAKING = "taking"
    AWAITING_VM = "awaiting-vm"
    SETTLING = "settling"
    STARTING_X = "starting-x"
    AWAITING_X = "awaiting-x"
    DIALING = "dialing"
    COMMITTING = "committing"
    CONNECTED = "connected"
    ENDED = "ended"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How long a session waits for what, in seconds (settings `internal.l7r.*`)."""

    takeover_s: float
    vm_start_s: float
    x_start_s: float
    x_retries: int
    poll_vm_s: float
    poll_x_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One client's claim on one VM."""

    id: SessionId
    limits: Limits
    phase: Phase = Phase.TAKING
    since: float
    """When the phase began."""
    tries: int = 0
    """How many actions of this phase have failed, or found nothing yet."""
    row: SessionRow | None = None
    awaits_start: bool = False
    """Whether the VM was seen on its way up, or wished started: found stopped after that, it has failed."""
    said: frozenset[str] = frozenset()


# -- events -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something happened, at `at` seconds on the monotonic clock."""

    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked(Event):
    """The client asks for a desktop that it may have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken(Event):
    """The row is ours; if the VM was stopped, it is wished started by the same commit."""

    row: SessionRow


@dataclass(frozen=True, slots=True, kw_only=True)
class Contended(Event):
    """Another session owns the row and has been ordered to leave."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outrun(Event):
    """A newer client contends for the same desktop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowSeen(Event):
    """The row, as just read."""

    row: SessionRow | None


@dataclass(frozen=True, slots=True, kw_only=True)
class XAsked(Event):
    """The VMA took the order to start X, or `failure` says why not; `refused` if in its own words."""

    failure: str | None = None
    refused: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class XSeen(Event):
    """The state of X; None if the VMA gave no answer."""

    state: XState | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialed(Event):
    """The connection to nxagent stands, or `failure` says why not."""

    failure: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Committed(Event):
    """The row says connected, if it was still ours."""

    ours: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamEnded(Event):
    """One of the two ends closed, and what was under way has been delivered."""

    cause: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientLeft(Event):
    """The client is gone before its desktop came."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed(Event):
    """An action could not be carried out at all."""

    cause: str


# -- actions ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """An order to the shell; `say` is the interim reply that announces it."""

    say: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TakeOver(Action):
    """Wait for the row to change, at most `wait_s`, then take it: Taken, Contended or Outrun."""

    wait_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class WishStart(Action):
    """Have a host assigned and the VM started, in one transaction: RowSeen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AwaitRow(Action):
    """Do nothing for `at_most_s`, then look: RowSeen."""

    at_most_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StartX(Action):
    """Call `x_start` after a pause: XAsked."""

    after_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LookAtX(Action):
    """Call `x_state` after a pause: XSeen."""

    after_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Dial(Action):
    """Open the one connection to nxagent: Dialed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit(Action):
    """Write `connected` if the row is still ours: Committed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Switch(Action):
    """Send the 101, then forward until an end closes: StreamEnded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refuse(Action):
    """The end, before the 101: an error reply; the connection stays usable."""

    cause: str
    status: int = 503


@dataclass(frozen=True, slots=True, kw_only=True)
class Close(Action):
    """The end, when no status can be sent (any more)."""

    cause: str


Step: TypeAlias = tuple[Session, Action]

BUSY = frozenset(
    {Phase.SETTLING, Phase.STARTING_X, Phase.AWAITING_X, Phase.DIALING, Phase.COMMITTING, Phase.CONNECTED}
)


def concerns(session: Session, row: SessionRow | None) -> bool:
    """Whether a re-read row is news for which the action under way should be interrupted."""
    if session.phase is Phase.AWAITING_VM:
        return row != session.row
    return session.phase in BUSY and _objection(session, row) is not None


def step(session: Session, event: Event) -> Step:
    """What comes next.

    :raises UnexpectedEventError: the event cannot happen in this phase
    """
    match session.phase, event:
        case _, ClientLeft():
            return replace(session, phase=Phase.ENDED), Close(cause="the client left")
        case _, Failed(cause=cause):
            return _refuse(session, cause)
        case Phase.TAKING, Asked():
            return session, TakeOver()
        case Phase.TAKING, Contended():
            return _contend(session, event.at)
        case Phase.TAKING, Outrun():
            return _refuse(session, "a newer client wants this desktop")
        case Phase.TAKING, Taken(row=row):
            return _await_vm(_enter(session, Phase.AWAITING_VM, event.at), row, event.at)
        case Phase.AWAITING_VM, RowSeen(row=row):
            return _await_vm(session, row, event.at)
        case phase, RowSeen(row=row) if phase in BUSY:
            return _refuse(session, _objection(session, row) or "the desktop changed hands")
        case Phase.SETTLING, XSeen(state=state):
            return _settle(session, state, event.at)
        case Phase.STARTING_X, XAsked():
            return _x_asked(session, event)
        case Phase.AWAITING_X, XSeen(state=state):
            return _x_seen(session, state, event.at)
        case Phase.DIALING, Dialed(failure=None):
            return _enter(session, Phase.COMMITTING, event.at), Commit()
        case Phase.DIALING, Dialed(failure=failure):
            return _refuse(session, f"the graphical session cannot be reached: {failure}")
        case Phase.COMMITTING, Committed(ours=True):
            return _saying(_enter(session, Phase.CONNECTED, event.at), Switch(), ESTABLISHED)
        case Phase.COMMITTING, Committed(ours=False):
            return _refuse(session, "the desktop changed hands or stopped")
        case Phase.CONNECTED, StreamEnded(cause=cause):
            return replace(session, phase=Phase.ENDED), Close(cause=cause)
    raise UnexpectedEventError(f"{type(event).__name__} in phase {session.phase}: {session}")


def _contend(session: Session, at: float) -> Step:
    left = session.since + session.limits.takeover_s - at
    if left <= 0:
        return _refuse(session, "another client holds the desktop and does not let go")
    return _saying(session, TakeOver(wait_s=min(POLL_TAKEOVER_S, left)), ENDING_OTHER)


def _await_vm(session: Session, row: SessionRow | None, at: float) -> Step:
    lost = _lost(session, row)
    if lost is not None:
        return _refuse(session, lost)
    assert row is not None
    session = replace(session, row=row)
    match row.vm_state:
        case VmState.RUNNING if not row.is_placed:
            return _refuse(session, "the desktop runs, but nobody knows where")
        case VmState.RUNNING if session.awaits_start:
            return _start_x(session, at)
        case VmState.RUNNING:
            return _enter(session, Phase.SETTLING, at), LookAtX()
        case VmState.ZOMBIE:
            return _refuse(
                session, "the desktop could not be stopped cleanly; an administrator must look at it"
            )
        case VmState.STOPPED if row.vm_cmd is not VmCmd.START and session.awaits_start:
            return _refuse(session, f"the desktop did not start: {row.failure or 'its start was called off'}")
        case VmState.STOPPED if row.vm_cmd is not VmCmd.START:
            return _saying(replace(session, awaits_start=True), WishStart(), STARTING)
        case VmState.STOPPING:
            text = STOPPING
        case _:
            session, text = replace(session, awaits_start=True), STARTING
    hindered = f": {row.failure}" if row.vm_state is VmState.STARTING and row.failure else ""
    waited = at - session.since
    if waited >= session.limits.vm_start_s:
        reason = f"the desktop was not ready within {session.limits.vm_start_s:g} s{hindered}"
        return _refuse(session, reason)
    pause = AwaitRow(at_most_s=min(session.limits.poll_vm_s, session.limits.vm_start_s - waited))
    if hindered:
        return _saying(session, pause, WAITING, hindered)
    return _saying(session, pause, STILL_STARTING if waited >= REMIND_S else text)


def _settle(session: Session, state: XState | None, at: float) -> Step:
    """Let nxagent notice that its last client is gone: `x_start` meanwhile could send it a second HUP."""
    losing_a_client = state in (XState.CONNECTED, XState.SUSPENDING)
    if losing_a_client and at - session.since < SETTLE_S:
        return replace(session, tries=session.tries + 1), LookAtX(after_s=_pause(session))
    return _start_x(session, at)


def _start_x(session: Session, at: float) -> Step:
    return _saying(_enter(session, Phase.STARTING_X, at), StartX(), STARTING_X)


def _x_asked(session: Session, answer: XAsked) -> Step:
    if answer.failure is None:
        return _enter(session, Phase.AWAITING_X, answer.at), LookAtX(after_s=FIRST_LOOK_S)
    if session.tries >= session.limits.x_retries:
        return _refuse(session, f"the graphical session cannot be started: {answer.failure}")
    pause = session.limits.poll_x_s if answer.refused else _pause(session)
    return replace(session, tries=session.tries + 1), StartX(after_s=pause)


def _x_seen(session: Session, state: XState | None, at: float) -> Step:
    match state:
        case XState.LISTENING:
            return _enter(session, Phase.DIALING, at), Dial()
        case XState.PROVISIONING:
            return replace(session, since=at), LookAtX(after_s=session.limits.poll_x_s)
        case None | XState.STARTING:
            if at - session.since >= session.limits.x_start_s:
                return _refuse(session, f"X did not listen within {session.limits.x_start_s:g} s")
            return replace(session, tries=session.tries + 1), LookAtX(after_s=_pause(session))
    return _refuse(session, f"the graphical session did not start: it is {state}")


def _objection(session: Session, row: SessionRow | None) -> str | None:
    """Why a session with a running VM may not go on; None if it may."""
    lost = _lost(session, row)
    if lost is not None:
        return lost
    assert row is not None
    assert session.row is not None
    alive = {VmState.RUNNING, VmState.STOPPING} if session.phase is Phase.CONNECTED else {VmState.RUNNING}
    if row.vm_state not in alive or row.run != session.row.run:
        return f"the desktop went to {row.vm_state}"
    return None


def _lost(session: Session, row: SessionRow | None) -> str | None:
    if row is None:
        return "the desktop does not exist any more"
    if not row.held_by(session.id):
        return "the session was ended by a newer client or by an administrator"
    return None


def _refuse(session: Session, cause: str) -> Step:
    ended = replace(session, phase=Phase.ENDED)
    return ended, Close(cause=cause) if session.phase is Phase.CONNECTED else Refuse(cause=cause)


def _enter(session: Session, phase: Phase, at: float) -> Session:
    return replace(session, phase=phase, since=at, tries=0)


def _saying(session: Session, action: Action, text: str, more: str = "") -> Step:
    if text in session.said:
        return session, action
    return replace(session, said=session.said | {text}), replace(action, say=text + more)


def _pause(session: Session) -> float:
    return min(session.limits.poll_x_s, FIRST_LOOK_S * (1 << min(session.tries, 16)))
