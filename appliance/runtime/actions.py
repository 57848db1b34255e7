"""What can be done about a VM: the only output of the VM machine.

Each action ends in exactly one event. The actions of one VM are carried out in order. A
`Background` action runs beside them, and for as long as the phase in which it was ordered lasts.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import ClassVar

from appliance.model import BackendKind, VmId
from appliance.runtime.backend import GuestSpec
from appliance.runtime.blame import Blame


class Deadline(StrEnum):
    """The waits of the machine; how long each lasts is a setting."""

    STARTING = "starting"
    SHUTDOWN = "shutdown"
    SIGNAL = "signal"
    RETRY = "retry"
    BACKOFF = "backoff"
    """Before a start that the host could not serve is tried again; longer each time."""


@dataclass(frozen=True, slots=True)
class Action:
    """An order. It fails when `limit_s` seconds have passed."""

    limit_s: ClassVar[float] = 60.0
    survives: ClassVar[bool] = False
    """Whether it is still carried out when the machine has entered another phase meanwhile."""
    saves: ClassVar[bool] = False
    """Whether it writes into the row where the machine is by then, before anything else."""
    heavy: ClassVar[bool] = False
    """Whether only a few of its kind are carried out at once on this host; its limit begins with its turn."""


@dataclass(frozen=True, slots=True)
class Background(Action):
    """An order that lasts at most as long as its phase."""

    limit_s: ClassVar[float] = float("inf")


@dataclass(frozen=True, slots=True)
class SaveState(Action):
    """Write into the row where the machine is by then: the first order of a new state, unless that `saves`.

    What is written is never older than the wishes that were claimed before, so it cannot undo them.
    """

    survives: ClassVar[bool] = True
    saves: ClassVar[bool] = True


@dataclass(frozen=True, slots=True)
class RecordFailure(SaveState):
    """Save the state together with why it came to that: the reason and the console's last lines.

    What follows depends on whose fault it is. All of it is one commit: no end of the daemon loses a reason.
    """

    reason: str
    blame: Blame


@dataclass(frozen=True, slots=True)
class PrepareRoot(Action):
    """Save the state with the image of the tag, clone that, see to the home. Ends in `RootReady`."""

    limit_s: ClassVar[float] = 300.0
    saves: ClassVar[bool] = True


@dataclass(frozen=True, slots=True)
class DefineGuest(Action):
    """Write the guest's configuration."""

    guest: GuestSpec


@dataclass(frozen=True, slots=True)
class FenceGuest(Action):
    """Put the guest's anti-spoofing rules in force."""

    guest: GuestSpec


@dataclass(frozen=True, slots=True)
class LaunchGuest(Action):
    """Start the guest. Ends in `GuestLaunched`."""


@dataclass(frozen=True, slots=True)
class AdoptGuest(Action):
    """Take up a guest that was found running.

    Whatever the VMA answers meanwhile: a guest that nobody follows is never seen to depart.
    """

    survives: ClassVar[bool] = True

    guest: GuestSpec


@dataclass(frozen=True, slots=True)
class WatchVma(Background):
    """Ping the VMA: until its first answer (`VmaAnswered`), or until it is silent too long (`VmaSilent`)."""

    guest: GuestSpec
    starting: bool


@dataclass(frozen=True, slots=True)
class Arm(Background):
    """Wait. Ends in `TimeUp`."""

    deadline: Deadline
    tries: int = 1
    """How often in a row what is waited for has failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What a desktop's user is asked: to restart now, because another image waits."""

    number: int
    """Which question of this run it is."""
    soft: datetime | None = None
    hard: datetime | None = None
    final: bool = False
    """Whether it is the warning before the hard limit."""
    later_s: int | None = None
    """For how long the restart is put off when the user says so; None: it cannot be."""
    postponements: int | None = None
    """How often it can still be put off."""
    withdrawn: bool = False
    """Whether the question is taken back instead: there is nothing to restart for any more."""


@dataclass(frozen=True, slots=True)
class TellGuest(Action):
    """Ask the desktop's user to restart. Ends in `GuestTold`."""

    guest: GuestSpec
    question: Question


@dataclass(frozen=True, slots=True)
class AwaitAnswer(Background):
    """Wait for what the desktop's user answers, maybe for hours. Ends in `UserAnswered`."""

    guest: GuestSpec


@dataclass(frozen=True, slots=True)
class AskPoweroff(Action):
    """Ask the VMA to power the guest off."""

    guest: GuestSpec


@dataclass(frozen=True, slots=True)
class StopGuest(Action):
    """Ask the guest's init to end it."""


@dataclass(frozen=True, slots=True)
class KillGuest(Action):
    """End the guest without asking."""

    heavy: ClassVar[bool] = True


@dataclass(frozen=True, slots=True)
class UnfenceGuest(Action):
    """Remove the guest's rules."""


@dataclass(frozen=True, slots=True)
class KeepRoot(Action):
    """Put the guest's root aside for whoever wants to know why it did not boot."""

    limit_s: ClassVar[float] = 120.0

    reason: str


@dataclass(frozen=True, slots=True)
class EraseGuest(Action):
    """Remove the guest's root and configuration. Ends in `GuestErased`."""

    limit_s: ClassVar[float] = 120.0
    heavy: ClassVar[bool] = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """An action with the VM it is for, and the entry into a phase that gave it."""

    action: Action
    vm_id: VmId
    backend: BackendKind
    entry: int
    cause: str


ACTION_TYPES: tuple[type[Action], ...] = (
    SaveState,
    RecordFailure,
    PrepareRoot,
    DefineGuest,
    FenceGuest,
    LaunchGuest,
    AdoptGuest,
    WatchVma,
    Arm,
    TellGuest,
    AwaitAnswer,
    AskPoweroff,
    StopGuest,
    KillGuest,
    UnfenceGuest,
    KeepRoot,
    EraseGuest,
)
