"""Which VMs are due for their age, what is to be done about each, and when to look again. Pure.

A VM that runs another image than its tag leads to may have a soft limit, from which on its user is asked
to restart it, and a hard one, at which it is restarted. The hard limit wins over everything, postponing
included; at the soft limit nobody is restarted who did not agree, unless the policy of the OSF moves
desktops at which nobody is. A VM that runs what it would boot anyway is never restarted, nor is one
restarted into an image that is known not to boot: its user keeps a desktop that works.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from appliance.config import EXPIRE_BATCH, EXPIRE_GRACE, EXPIRE_REPEAT, EXPIRE_REPEAT_LEAST, Settings
from appliance.model import AgeingVm, UserState, VmCmd, VmState

LONG_AGO = datetime.min.replace(tzinfo=UTC)
ESCALATION = 4
"""The time that is left is spent in as many steps: the nearer the hard limit, the more often is asked."""


class Deed(StrEnum):
    """What a VM is due for; the first of several counts."""

    WITHDRAW = "a question that is void"
    EXPIRE = "hard limit"
    LEFT = "its user left an expired desktop"
    IDLE = "nobody is at an expired desktop"
    WARN = "warning before the hard limit"
    ASK = "soft limit"
    STOP = "idle for too long"
    DISCONNECT = "connected for too long"


RESTARTS = (Deed.EXPIRE, Deed.LEFT, Deed.IDLE)
QUESTIONS = (Deed.WARN, Deed.ASK)
SOFT = "soft"
REACHED = {
    Deed.EXPIRE: "hard",
    Deed.LEFT: SOFT,
    Deed.IDLE: SOFT,
    Deed.ASK: SOFT,
    Deed.STOP: "idle",
    Deed.DISCONNECT: "session",
}
"""The limits that are reached by these, as hooks are told of them."""
TO_GUESTS = (*QUESTIONS, Deed.WITHDRAW)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cadence:
    """How often is asked, how long a desktop whose user left counts as in use, how many move at once."""

    repeat: timedelta = timedelta(hours=1)
    least: timedelta = timedelta(minutes=5)
    grace: timedelta = timedelta(minutes=1)
    batch: int = 0
    """How many desktops may be stopping or starting when another is restarted for its age; 0: any number."""

    @classmethod
    def of(cls, settings: Settings) -> Cadence:
        """As it is set."""
        keys = (EXPIRE_REPEAT, EXPIRE_REPEAT_LEAST, EXPIRE_GRACE)
        repeat, least, grace = (timedelta(seconds=settings[key]) for key in keys)
        return cls(repeat=repeat, least=least, grace=grace, batch=settings[EXPIRE_BATCH])


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Who is due for what, and when the next VM will be."""

    due: Sequence[tuple[AgeingVm, Deed]]
    next_look: datetime | None


def plan(vms: Iterable[AgeingVm], now: datetime, cadence: Cadence, moving: int = 0) -> Plan:
    """Look at VMs as they are `now`, while others are `moving`; who is due first is restarted first.

    Those for whom there is no room are due again as soon as one of the others has moved.
    """
    due: list[tuple[AgeingVm, Deed]] = []
    restarts: list[tuple[datetime, AgeingVm, Deed]] = []
    later: list[datetime] = []
    for vm in vms:
        moments = dict(_moments(vm, cadence))
        ripe = next((deed for deed in Deed if deed in moments and moments[deed] <= now), None)
        if ripe in RESTARTS:
            restarts.append((moments[ripe], vm, ripe))
        elif ripe is not None:
            due.append((vm, ripe))
        later += [at for at in moments.values() if at > now]
    restarts.sort(key=lambda restart: (restart[0], restart[1].id))
    room = max(0, cadence.batch - moving) if cadence.batch else len(restarts)
    due = [(vm, deed) for _, vm, deed in restarts[:room]] + due
    return Plan(due=due, next_look=min(later, default=None))


def reached(vm: AgeingVm, deed: Deed) -> str | None:
    """Which limit a VM has reached by what it is due for; None: none, or it was told before."""
    if REACHED.get(deed) == SOFT and (vm.expire_next_ts is not None or vm.vm_expiration_soft is None):
        return None
    return REACHED.get(deed)


def next_question(vm: AgeingVm, now: datetime, cadence: Cadence) -> datetime:
    """When a VM that is asked now is asked again: more often towards its hard limit."""
    pause = cadence.repeat
    if vm.vm_expiration_hard is not None:
        left = (vm.vm_expiration_hard - now) / ESCALATION
        pause = min(pause, max(cadence.least, left))
    return now + pause


def postponements(vm: AgeingVm) -> int | None:
    """How often the user of a VM can still put its restart off; None: there is no putting off."""
    if vm.ageing.postpone_times is None:
        return None
    return max(0, vm.ageing.postpone_times - vm.expire_postponed)


def put_off(vm: AgeingVm, now: datetime) -> datetime | None:
    """Until when a VM is left alone, as its user has said *later*; None: its cadence goes on.

    Only somebody who is there puts off, as often as the policy allows. No hard limit moves by that.
    """
    somebody = vm.user_state is UserState.CONNECTED
    if not somebody or not postponements(vm) or vm.ageing.postpone_s is None:
        return None
    return now + timedelta(seconds=vm.ageing.postpone_s)


def _moments(vm: AgeingVm, cadence: Cadence) -> Iterable[tuple[Deed, datetime]]:
    """What a VM is or will be due for, and when."""
    if vm.vm_cmd is VmCmd.STOP:
        return
    runs = vm.vm_state is VmState.RUNNING
    is_limited = vm.vm_expiration_soft is not None or vm.vm_expiration_hard is not None
    if vm.differs and is_limited and not vm.next_is_bad:
        yield from _restarts(vm, cadence)
    if runs and is_limited and may_restart(vm):
        yield from _questions(vm)
    elif runs and vm.expire_answered < vm.expire_asked:
        yield Deed.WITHDRAW, (vm.expire_next_ts if vm.expire_untold else None) or LONG_AGO
    if runs:
        yield from _stays(vm)


def may_restart(vm: AgeingVm) -> bool:
    """Whether a restart would bring a VM to another image, so that its user may be asked, and say yes."""
    return vm.differs and vm.next_di_id is not None and not vm.next_is_bad


def _restarts(vm: AgeingVm, cadence: Cadence) -> Iterable[tuple[Deed, datetime]]:
    soft, hard, left = vm.vm_expiration_soft, vm.vm_expiration_hard, vm.user_state_ts
    if hard is not None:
        yield Deed.EXPIRE, hard
    if not vm.is_idle or vm.vm_state is not VmState.RUNNING or vm.next_di_id is None:
        return
    free = LONG_AGO if left is None else left + cadence.grace
    if vm.ageing.expire_on_disconnect and soft is not None and left is not None and left >= soft:
        yield Deed.LEFT, free
    if vm.ageing.expire_idle:
        yield Deed.IDLE, max(free, soft or LONG_AGO)


def _questions(vm: AgeingVm) -> Iterable[tuple[Deed, datetime]]:
    soft, hard = vm.vm_expiration_soft, vm.vm_expiration_hard
    has_come = vm.expire_unseen and vm.user_state is UserState.CONNECTED
    if vm.expire_untold:
        yield Deed.WARN if vm.expire_warned else Deed.ASK, vm.expire_next_ts or LONG_AGO
    if hard is not None and vm.ageing.expire_warn_s and (has_come or not vm.expire_warned):
        yield Deed.WARN, hard - timedelta(seconds=vm.ageing.expire_warn_s)
    if soft is not None and has_come:
        yield Deed.ASK, soft
    elif soft is not None and not vm.expire_untold:
        yield Deed.ASK, max(soft, vm.expire_next_ts or soft)


def _stays(vm: AgeingVm) -> Iterable[tuple[Deed, datetime]]:
    idle_s, session_s = vm.ageing.idle_limit_s, vm.ageing.session_limit_s
    since = [at for at in (vm.vm_state_ts, vm.user_state_ts) if at is not None]
    if idle_s is not None and vm.is_idle and since:
        yield Deed.STOP, max(since) + timedelta(seconds=idle_s)
    connected = vm.user_state is UserState.CONNECTED and vm.user_cmd is None
    if session_s is not None and connected and vm.user_state_ts is not None:
        yield Deed.DISCONNECT, vm.user_state_ts + timedelta(seconds=session_s)
