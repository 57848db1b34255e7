"""The X session as a pure machine: an event in, the next session and the actions out. Nothing here does I/O.

Theory of operation. One session lives in a VM. nxagent's log lines are the only source of truth about it
(port 4100 is never probed: a bare connection aborts a first start and suspends a resuming session). The
words it prints move the session from phase to phase; requests (`x_start` …) order actions, and what they
did is learnt from the next words. Every phase that may not last has a limit; the shell arms a timer for
`due()`. In short:

    stopped ──x_start──> launching ⇄ provisioning ──"Starting"──> listening ──"started"──> connected
    connected ──HUP──> hanging up ──"Suspending" (or the client is gone)──> suspending ──> suspended
    suspended ──x_start──> preparing ──HUP──> waking ──"Resuming"──> resuming ──> connected
    any ──x_stop, limit, "Terminating", "Aborting"──> stopping ──the launch has ended──> stopped

nxagent loses signals that come within a second of "started" or "suspended"; so they are repeated until the
log shows that one was heard, and not after: HUP toggles. Where nobody connects to a session
that was to be resumed, HUP suspends it again and the user's programs live on; only a first start is ended,
as QVD does with both. Events of an earlier launch carry its number and are dropped.
"""

from __future__ import annotations

import enum
from typing import Any, Mapping, NamedTuple, Optional, Tuple, Union

from appliance.vma.wire import XState


class Phase(enum.Enum):
    """Before the slash: the word written to the state file."""

    STOPPED = "stopped"
    LAUNCHING = "initiating/launching"
    PROVISIONING = "provisioning"
    LISTENING = "starting"
    PREPARING = "initiating/preparing"
    WAKING = "initiating/waking"
    RESUMING = "resuming"
    CONNECTED = "started"
    HANGING_UP = "suspending/asked"
    SUSPENDING = "suspending"
    SUSPENDED = "suspended"
    STOPPING = "terminating"

    @property
    def word(self) -> str:
        return self.value.partition("/")[0]

    @property
    def x_state(self) -> XState:
        return _X_STATES[self]


_X_STATES = {
    Phase.STOPPED: XState.STOPPED,
    Phase.LAUNCHING: XState.STARTING,
    Phase.PROVISIONING: XState.PROVISIONING,
    Phase.LISTENING: XState.LISTENING,
    Phase.PREPARING: XState.STARTING,
    Phase.WAKING: XState.STARTING,
    Phase.RESUMING: XState.LISTENING,
    Phase.CONNECTED: XState.CONNECTED,
    Phase.HANGING_UP: XState.SUSPENDING,
    Phase.SUSPENDING: XState.SUSPENDING,
    Phase.SUSPENDED: XState.SUSPENDED,
    Phase.STOPPING: XState.STOPPING,
}

_BY_WORD = {
    "initiating": Phase.LAUNCHING,
    "provisioning": Phase.PROVISIONING,
    "starting": Phase.LISTENING,
    "resuming": Phase.RESUMING,
    "started": Phase.CONNECTED,
    "resumed": Phase.CONNECTED,
    "suspending": Phase.SUSPENDING,
    "suspended": Phase.SUSPENDED,
    "terminating": Phase.STOPPING,
    "aborting": Phase.STOPPING,
    "terminated": Phase.STOPPING,
    "aborted": Phase.STOPPING,
}

_LIMIT_NAMES = {
    Phase.LAUNCHING: "initiating",
    Phase.PROVISIONING: "provisioning",
    Phase.LISTENING: "listening",
    Phase.PREPARING: "initiating",
    Phase.WAKING: "initiating",
    Phase.RESUMING: "listening",
    Phase.HANGING_UP: "suspending",
    Phase.SUSPENDING: "suspending",
    Phase.STOPPING: "stopping",
}
LIMITS = tuple(sorted(set(_LIMIT_NAMES.values())))
_AWAITING_SIGNAL = (Phase.WAKING, Phase.HANGING_UP, Phase.STOPPING)
_BEFORE_NXAGENT = (Phase.LAUNCHING, Phase.PROVISIONING)
SIGNAL_AGAIN_S = 0.5


class Session(NamedTuple):
    """The session as it is known.

    `since` is the (monotonic) entry into the phase, `signalled` the last signal it has sent. `launch`
    numbers the launches, `attempt` the resumes of one.
    """

    phase: Phase = Phase.STOPPED
    since: float = 0.0
    launch: int = 0
    attempt: int = 0
    signalled: float = 0.0

    @property
    def x_state(self) -> XState:
        return self.phase.x_state

    def due(self, limits: Mapping[str, float]) -> Optional[Tick]:
        """The tick to be posted, and when; None for a phase that may last."""
        name = _LIMIT_NAMES.get(self.phase)
        if name is None:
            return None
        end, again = self.since + limits[name], self.signalled + SIGNAL_AGAIN_S
        if self.phase in _AWAITING_SIGNAL and again < end:
            return Tick(again, final=False)
        return Tick(end, final=True)


# -- events: what is asked and what is seen ----------------------------------------------------------------


class StartWanted(NamedTuple):
    at: float
    params: Mapping[str, str]


class SuspendWanted(NamedTuple):
    at: float


class StopWanted(NamedTuple):
    at: float


class Word(NamedTuple):
    """nxagent, or the launch before it, says that the session is `word` now."""

    at: float
    launch: int
    word: str


class Prepared(NamedTuple):
    """Everything is ready for nxagent to resume (`ok`), or something refused it."""

    at: float
    launch: int
    attempt: int
    ok: bool


class Ended(NamedTuple):
    """The launch and everything it consisted of are gone."""

    at: float
    launch: int


class Tick(NamedTuple):
    """It is time to signal again or, if `final`, the limit of the phase."""

    at: float
    final: bool


Event = Union[StartWanted, SuspendWanted, StopWanted, Word, Prepared, Ended, Tick]


# -- actions: orders to the shell --------------------------------------------------------------------------


class Answer(NamedTuple):
    """The value of the request at hand."""

    value: Any


class Refuse(NamedTuple):
    """The request at hand fails, with these words."""

    text: str


class Launch(NamedTuple):
    launch: int
    params: Mapping[str, str]


class Prepare(NamedTuple):
    """Make ready to resume; ends in `Prepared`."""

    launch: int
    attempt: int
    params: Mapping[str, str]


class HangUp(NamedTuple):
    """HUP to nxagent: suspends a connected or listening session, wakes a suspended one."""

    launch: int


class Terminate(NamedTuple):
    launch: int


class Kill(NamedTuple):
    launch: int


class Entered(NamedTuple):
    """The session is in another phase, or has confirmed the one it is in: state file, state hooks, log."""

    phase: Phase


Action = Union[Answer, Refuse, Launch, Prepare, HangUp, Terminate, Kill, Entered]
Step = Tuple[Session, Tuple[Action, ...]]


# -- the machine -------------------------------------------------------------------------------------------


def step(session: Session, event: Event) -> Step:
    """The next session and what to do. Total: no pair of session and event raises."""
    if isinstance(event, StartWanted):
        return _start(session, event)
    if isinstance(event, SuspendWanted):
        return _suspend(session, event)
    if isinstance(event, StopWanted):
        return _stop(session, event)
    if isinstance(event, Tick):
        return _overdue(session, event)
    if event.launch != session.launch or session.phase is Phase.STOPPED:
        return session, ()
    if isinstance(event, Word):
        return _word(session, event)
    if isinstance(event, Prepared):
        return _prepared(session, event)
    return _enter(session, Phase.STOPPED, event.at)


def _enter(session: Session, phase: Phase, at: float, *actions: Action) -> Step:
    return session._replace(phase=phase, since=at, signalled=at), (Entered(phase), *actions)


def _hang_up(session: Session, phase: Phase, at: float, *actions: Action) -> Step:
    return _enter(session, phase, at, *actions, HangUp(session.launch))


def _start(session: Session, event: StartWanted) -> Step:
    if session.phase is Phase.STOPPED:
        fresh = session._replace(launch=session.launch + 1)
        launch = Launch(fresh.launch, event.params)
        return _enter(fresh, Phase.LAUNCHING, event.at, Answer("starting"), launch)
    if session.phase is Phase.SUSPENDED:
        again = session._replace(attempt=session.attempt + 1)
        prepare = Prepare(again.launch, again.attempt, event.params)
        return _enter(again, Phase.PREPARING, event.at, Answer("starting"), prepare)
    refused = f"Can't connect to X session in state {session.x_state}"
    if session.phase is Phase.CONNECTED:
        retry = Refuse(f"{refused}, suspending it, retry later")
        return _hang_up(session, Phase.HANGING_UP, event.at, retry)
    return session, (Refuse(f"{refused}, try again"),)


def _suspend(session: Session, event: SuspendWanted) -> Step:
    if session.phase in (Phase.CONNECTED, Phase.RESUMING):
        return _hang_up(session, Phase.HANGING_UP, event.at, Answer("starting"))
    if session.phase is Phase.LISTENING:  # nothing is there yet to be kept
        return _enter(session, Phase.STOPPING, event.at, Answer("starting"), Terminate(session.launch))
    return session, (Answer(session.x_state.value),)


def _stop(session: Session, event: StopWanted) -> Step:
    if session.phase in (Phase.STOPPED, Phase.STOPPING):
        return session, (Answer(session.x_state.value),)
    return _enter(session, Phase.STOPPING, event.at, Answer("stopping"), Terminate(session.launch))


def _word(session: Session, event: Word) -> Step:
    if session.phase is Phase.STOPPING:
        return session, ()
    phase = _BY_WORD.get(event.word)
    if phase is None:  # an nxagent that we do not understand cannot be followed: end it
        return _enter(session, Phase.STOPPING, event.at, Terminate(session.launch))
    if phase in _BEFORE_NXAGENT and session.phase not in _BEFORE_NXAGENT:
        return session, ()  # overtaken by nxagent's own first word
    if phase is session.phase:
        return session, (Entered(phase),)
    return _enter(session, phase, event.at)


def _prepared(session: Session, event: Prepared) -> Step:
    if session.phase is not Phase.PREPARING or event.attempt != session.attempt:
        return session, ()
    if not event.ok:
        return _enter(session, Phase.SUSPENDED, event.at)
    return _hang_up(session, Phase.WAKING, event.at)


def _overdue(session: Session, event: Tick) -> Step:
    phase = session.phase
    if not event.final:
        again = Terminate(session.launch) if phase is Phase.STOPPING else HangUp(session.launch)
        return session._replace(signalled=event.at), (again,) if phase in _AWAITING_SIGNAL else ()
    if phase is Phase.RESUMING:
        return _hang_up(session, Phase.HANGING_UP, event.at)
    if phase in (Phase.PREPARING, Phase.WAKING):
        return _enter(session, Phase.SUSPENDED, event.at)
    if phase is Phase.STOPPING:
        return session._replace(since=event.at), (Kill(session.launch),)
    if phase in _LIMIT_NAMES:
        return _enter(session, Phase.STOPPING, event.at, Terminate(session.launch))
    return session, ()
