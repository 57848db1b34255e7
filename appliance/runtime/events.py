"""What can happen to a VM: the only input of the VM machine.

An event with an `entry` answers an order given in that entry into a phase; the machine drops it if
the phase has been left since. Events without one come from outside and always count.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from appliance.model import BackendKind, StartedBy, VmId
from appliance.runtime.actions import Action, Question
from appliance.runtime.backend import GuestSpec
from appliance.runtime.blame import HOST, Blame


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened to `vm_id`, or that somebody wants of it."""

    vm_id: VmId
    at: datetime
    cause: str
    """One id, carried from the wish to the last log line."""
    entry: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StartWanted(Event):
    """Somebody wants the VM to run; the row says `starting` already."""

    backend: BackendKind
    started_by: StartedBy
    run: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StopWanted(Event):
    """Somebody wants it to stop and, with `restart`, to start again."""

    restart: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotGranted(Event):
    """It is this VM's turn to boot (`hkd.vm.starting.max`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RootReady(Event):
    """The tag is resolved, the root cloned, the home there: the guest is fully decided."""

    guest: GuestSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestLaunched(Event):
    """The guest's init runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VmaAnswered(Event):
    """The VMA answered a ping."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VmaSilent(Event):
    """The VMA has been silent for longer than it may."""

    silent_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestDeparted(Event):
    """The guest is gone, whoever ended it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestErased(Event):
    """Nothing of the guest is left on the host but its home."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AskDue(Event):
    """It is time to ask the desktop's user to restart; the row says so already."""

    question: Question


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestTold(Event):
    """The VMA has taken the question; `answers` says whether an answer will come."""

    answers: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class UserAnswered(Event):
    """The question is settled, and what was answered is in the row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeUp(Event):
    """The armed deadline of this phase has passed."""

    waited_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Done(Event):
    """An order was carried out, and nothing more is to be said of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionFailed(Event):
    """An order could not be carried out."""

    action: Action
    error: str
    blame: Blame = HOST


EVENT_TYPES: tuple[type[Event], ...] = (
    StartWanted,
    StopWanted,
    SlotGranted,
    RootReady,
    GuestLaunched,
    VmaAnswered,
    VmaSilent,
    GuestDeparted,
    GuestErased,
    AskDue,
    GuestTold,
    UserAnswered,
    TimeUp,
    Done,
    ActionFailed,
)
