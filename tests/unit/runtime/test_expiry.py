"""Who is due for their age, for what, and when the next look is."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.model import (
    PLAIN_AGEING,
    AgeingPolicy,
    AgeingVm,
    DiId,
    StartedBy,
    UserCmd,
    UserState,
    VmCmd,
    VmId,
    VmState,
)
from appliance.runtime.expiry import Cadence, Deed, next_question, plan, postponements, put_off, reached

NOW = datetime(2030, 1, 31, 18, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)
CADENCE = Cadence()
IDLE = AgeingPolicy(expire_idle=True)
LEAVING = AgeingPolicy(expire_on_disconnect=True)
PUT_OFF = AgeingPolicy(postpone_times=3, postpone_s=7200)

OLD = AgeingVm(
    id=VmId(1),
    name="desk1",
    user="alice",
    vm_state=VmState.RUNNING,
    vm_state_ts=NOW - 48 * HOUR,
    vm_cmd=None,
    started_by=StartedBy.COMMAND,
    user_state=UserState.CONNECTED,
    user_state_ts=NOW - 4 * HOUR,
    user_cmd=None,
    current_di_id=DiId(1),
    next_di_id=DiId(2),
    next_is_bad=False,
    vm_expiration_soft=None,
    vm_expiration_hard=None,
    expire_asked=0,
    expire_answered=0,
    expire_next_ts=None,
    expire_postponed=0,
    expire_warned=False,
    expire_untold=False,
    expire_unseen=False,
    ageing=PLAIN_AGEING,
)
"""A desktop in use that runs an old image and has no limit."""
GONE: dict[str, Any] = {"user_state": UserState.DISCONNECTED}


UNTOLD: dict[str, Any] = {
    "expire_asked": 1,
    "expire_untold": True,
    "expire_next_ts": NOW + MINUTE,
}


def due(*vms: AgeingVm) -> list[Deed]:
    """What these VMs are due for now."""
    return [deed for _, deed in plan(vms, NOW, CADENCE).due]


@pytest.mark.parametrize(
    ("changes", "deeds"),
    [
        ({}, []),
        ({"vm_expiration_soft": NOW}, [Deed.ASK]),
        ({"vm_expiration_soft": NOW + MINUTE}, []),
        ({"vm_expiration_soft": NOW, "expire_next_ts": NOW + MINUTE}, []),
        ({"vm_expiration_soft": NOW - HOUR, "expire_next_ts": NOW}, [Deed.ASK]),
        ({"vm_expiration_soft": NOW, "vm_state": VmState.STARTING}, []),
        ({"vm_expiration_soft": NOW, "vm_cmd": VmCmd.STOP}, []),
        ({"vm_expiration_hard": NOW}, [Deed.EXPIRE]),
        ({"vm_expiration_hard": NOW, "vm_state": VmState.STARTING}, [Deed.EXPIRE]),
        ({"vm_expiration_hard": NOW, "vm_expiration_soft": NOW}, [Deed.EXPIRE]),
        ({"vm_expiration_hard": NOW, "expire_next_ts": NOW + 2 * HOUR, "ageing": PUT_OFF}, [Deed.EXPIRE]),
        ({"vm_expiration_hard": NOW, "vm_cmd": VmCmd.STOP}, []),
        ({"vm_expiration_hard": NOW + 15 * MINUTE}, [Deed.WARN]),
        ({"vm_expiration_hard": NOW + 16 * MINUTE}, []),
        ({"vm_expiration_hard": NOW + 15 * MINUTE, "expire_warned": True}, []),
        ({"vm_expiration_hard": NOW + MINUTE, "ageing": AgeingPolicy(expire_warn_s=0)}, []),
        ({"vm_expiration_hard": NOW + MINUTE, "expire_next_ts": NOW + HOUR}, [Deed.WARN]),
        # An idle desktop moves once its soft limit has passed, or at once if it has only a hard one.
        ({"vm_expiration_soft": NOW, "ageing": IDLE}, [Deed.ASK]),
        ({**GONE, "vm_expiration_soft": NOW, "ageing": IDLE}, [Deed.IDLE]),
        ({**GONE, "vm_expiration_soft": NOW + HOUR, "ageing": IDLE}, []),
        ({**GONE, "vm_expiration_hard": NOW + 9 * HOUR, "ageing": IDLE}, [Deed.IDLE]),
        ({**GONE, "vm_expiration_hard": NOW + 9 * HOUR}, []),
        ({**GONE, "ageing": IDLE}, []),
        ({**GONE, "vm_expiration_soft": NOW, "user_state_ts": None, "ageing": IDLE}, [Deed.IDLE]),
        # Whoever left a moment ago may come back in a moment: a client that reconnects by itself.
        ({**GONE, "vm_expiration_soft": NOW, "user_state_ts": NOW, "ageing": IDLE}, [Deed.ASK]),
        (
            {**GONE, "vm_expiration_soft": NOW - HOUR, "user_state_ts": NOW - MINUTE, "ageing": LEAVING},
            [Deed.LEFT],
        ),
        (
            {
                **GONE,
                "vm_expiration_soft": NOW - HOUR,
                "expire_next_ts": NOW + HOUR,
                "user_state_ts": NOW,
                "ageing": LEAVING,
            },
            [],
        ),
        # Whoever had left before the limit is not said to have left an expired desktop.
        ({**GONE, "vm_expiration_soft": NOW, "ageing": LEAVING}, [Deed.ASK]),
        # Nobody is restarted for an image they run, nor into one that does not boot.
        ({"vm_expiration_hard": NOW, "vm_expiration_soft": NOW, "next_di_id": DiId(1)}, []),
        ({"vm_expiration_hard": NOW, "current_di_id": None, "vm_state": VmState.STARTING}, []),
        ({"vm_expiration_hard": NOW, "vm_expiration_soft": NOW, "next_is_bad": True}, []),
        # Whoever comes to a desktop that was asked while nobody was there is asked at once, and only once.
        ({"vm_expiration_soft": NOW, "expire_next_ts": NOW + HOUR, "expire_unseen": True}, [Deed.ASK]),
        ({**GONE, "vm_expiration_soft": NOW, "expire_next_ts": NOW + HOUR, "expire_unseen": True}, []),
        # A question that is open although there is nothing to restart for is taken back, now and then.
        ({"expire_asked": 1}, [Deed.WITHDRAW]),
        ({"expire_asked": 1, "expire_answered": 1}, []),
        ({"expire_asked": 1, "expire_next_ts": NOW + MINUTE}, [Deed.WITHDRAW]),
        ({"expire_asked": 1, "expire_next_ts": NOW + MINUTE, "expire_untold": True}, []),
        ({"expire_asked": 1, "vm_expiration_soft": NOW, "next_di_id": None}, [Deed.WITHDRAW]),
        # What may not have reached the guest is said again, after a pause; a warning as a warning.
        ({**UNTOLD, "vm_expiration_soft": NOW}, []),
        ({**UNTOLD, "vm_expiration_soft": NOW, "expire_next_ts": NOW}, [Deed.ASK]),
        ({**UNTOLD, "vm_expiration_hard": NOW + MINUTE, "expire_warned": True}, []),
        (
            {**UNTOLD, "vm_expiration_hard": NOW + MINUTE, "expire_warned": True, "expire_next_ts": NOW},
            [Deed.WARN],
        ),
        # Whoever comes after a warning that found nobody is warned.
        ({"vm_expiration_hard": NOW + MINUTE, "expire_warned": True, "expire_unseen": True}, [Deed.WARN]),
        ({"expire_asked": 1, "vm_expiration_hard": NOW + HOUR}, []),
        ({"expire_asked": 1, "vm_expiration_hard": NOW + HOUR, "next_di_id": DiId(1)}, [Deed.WITHDRAW]),
        ({"expire_asked": 1, "vm_expiration_hard": NOW, "next_is_bad": True}, [Deed.WITHDRAW]),
        # A tag that leads nowhere: the hard limit holds, an idle desktop stays.
        ({"vm_expiration_hard": NOW, "next_di_id": None}, [Deed.EXPIRE]),
        ({**GONE, "vm_expiration_soft": NOW, "next_di_id": None, "ageing": IDLE}, []),
        # Limits that have nothing to do with images.
        ({**GONE, "next_di_id": DiId(1), "ageing": AgeingPolicy(idle_limit_s=4 * 3600)}, [Deed.STOP]),
        ({**GONE, "next_di_id": DiId(1), "ageing": AgeingPolicy(idle_limit_s=4 * 3600 + 1)}, []),
        ({**GONE, "vm_state_ts": NOW, "ageing": AgeingPolicy(idle_limit_s=3600)}, []),
        ({"ageing": AgeingPolicy(idle_limit_s=1)}, []),
        ({"ageing": AgeingPolicy(session_limit_s=4 * 3600)}, [Deed.DISCONNECT]),
        ({"user_cmd": UserCmd.ABORT, "ageing": AgeingPolicy(session_limit_s=4 * 3600)}, []),
        ({**GONE, "ageing": AgeingPolicy(session_limit_s=1)}, []),
    ],
)
def test_what_a_desktop_is_due_for(changes: dict[str, Any], deeds: list[Deed]) -> None:
    assert due(replace(OLD, **changes)) == deeds


def test_the_next_look_is_at_the_first_moment_to_come() -> None:
    first = replace(OLD, vm_expiration_soft=NOW, expire_next_ts=NOW + HOUR)
    second = replace(OLD, vm_expiration_hard=NOW + 16 * MINUTE)
    assert plan([first, second], NOW, CADENCE).next_look == NOW + MINUTE
    assert plan([first], NOW, CADENCE).next_look == NOW + HOUR
    assert plan([OLD], NOW, CADENCE).next_look is None


def test_so_many_move_at_once_and_those_first_who_are_due_first() -> None:
    late = [replace(OLD, id=VmId(number), vm_expiration_hard=NOW - number * MINUTE) for number in range(1, 6)]
    asked = replace(OLD, id=VmId(9), vm_expiration_soft=NOW)
    slowly = replace(CADENCE, batch=3)
    found = plan([*late, asked], NOW, slowly, moving=1)
    assert [(vm.id, deed) for vm, deed in found.due] == [(5, Deed.EXPIRE), (4, Deed.EXPIRE), (9, Deed.ASK)]
    assert plan(late, NOW, slowly, moving=7).due == []
    assert len(plan(late, NOW, CADENCE, moving=7).due) == 5, "without a batch everybody moves at their time"


def test_each_limit_is_told_once() -> None:
    asked = replace(OLD, vm_expiration_soft=NOW)
    assert reached(asked, Deed.ASK) == "soft"
    assert reached(replace(asked, expire_next_ts=NOW), Deed.ASK) is None
    assert reached(OLD, Deed.IDLE) is None, "it had a hard limit only, which is not reached"
    told = [reached(asked, deed) for deed in (Deed.EXPIRE, Deed.IDLE, Deed.WARN, Deed.WITHDRAW, Deed.STOP)]
    assert told == ["hard", "soft", None, None, "idle"]


def test_questions_come_more_often_towards_the_hard_limit() -> None:
    def pauses(left: timedelta) -> timedelta:
        return next_question(replace(OLD, vm_expiration_hard=NOW + left), NOW, CADENCE) - NOW

    assert next_question(OLD, NOW, CADENCE) == NOW + HOUR
    assert [pauses(left) for left in (9 * HOUR, 2 * HOUR, 40 * MINUTE, 4 * MINUTE)] == [
        HOUR,
        30 * MINUTE,
        10 * MINUTE,
        5 * MINUTE,
    ]


def test_a_restart_is_put_off_as_often_as_the_policy_allows() -> None:
    vm = replace(OLD, ageing=PUT_OFF)
    assert put_off(OLD, NOW) is None
    assert postponements(OLD) is None
    assert [postponements(replace(vm, expire_postponed=times)) for times in range(5)] == [3, 2, 1, 0, 0]
    assert put_off(vm, NOW) == NOW + 2 * HOUR
    assert put_off(replace(vm, expire_postponed=3), NOW) is None
    assert put_off(replace(vm, **GONE), NOW) is None, "nobody was there to say so"


def test_whoever_is_missed_gets_the_desktop_back() -> None:
    by_client = replace(OLD, started_by=StartedBy.CLIENT)
    assert OLD.comes_back
    assert replace(OLD, **GONE).comes_back, "it was wanted running by command"
    assert by_client.comes_back
    assert not replace(by_client, **GONE).comes_back
    assert not replace(OLD, next_di_id=None).comes_back, "there is nothing to boot"


moments = st.none() | st.integers(-500, 500).map(lambda minutes: NOW + minutes * MINUTE)
policies = st.builds(
    AgeingPolicy,
    expire_idle=st.booleans(),
    expire_on_disconnect=st.booleans(),
    postpone_times=st.just(3),
    postpone_s=st.integers(1, 10_000),
    expire_warn_s=st.integers(0, 10_000),
    idle_limit_s=st.none() | st.integers(1, 10_000),
    session_limit_s=st.none() | st.integers(1, 10_000),
)
numbers = st.none() | st.integers(1, 3).map(DiId)
desktops = st.builds(
    replace,
    st.just(OLD),
    vm_state=st.sampled_from([VmState.STARTING, VmState.RUNNING, VmState.DEBUGGING]),
    vm_cmd=st.sampled_from([None, VmCmd.STOP]),
    user_state=st.sampled_from(UserState),
    user_state_ts=moments,
    current_di_id=numbers,
    next_di_id=numbers,
    next_is_bad=st.booleans(),
    vm_expiration_soft=moments,
    vm_expiration_hard=moments,
    expire_next_ts=moments,
    expire_warned=st.booleans(),
    ageing=policies,
)


@given(desktops)
def test_laws_of_limits(vm: AgeingVm) -> None:
    deeds = due(vm)
    hard_passed = vm.vm_expiration_hard is not None and vm.vm_expiration_hard <= NOW
    assert len(deeds) <= 1
    assert vm.vm_cmd is None or not deeds
    if Deed.EXPIRE in deeds:
        assert hard_passed
    if {Deed.EXPIRE, Deed.LEFT, Deed.IDLE, Deed.WARN, Deed.ASK} & set(deeds):
        assert vm.current_di_id is not None
        assert vm.current_di_id != vm.next_di_id
        assert not vm.next_is_bad
    if {Deed.LEFT, Deed.IDLE} & set(deeds):
        assert vm.user_state is UserState.DISCONNECTED
    if hard_passed and vm.differs and not vm.next_is_bad and vm.vm_cmd is None:
        assert deeds == [Deed.EXPIRE]


@given(st.lists(desktops, max_size=4))
def test_nothing_becomes_due_before_the_next_look(vms: list[AgeingVm]) -> None:
    quiet = [vm for vm in vms if not plan([vm], NOW, CADENCE).due]
    look = plan(quiet, NOW, CADENCE).next_look
    just_before = NOW + 600 * HOUR if look is None else look - timedelta(microseconds=1)
    assert plan(quiet, just_before, CADENCE).due == []
    if look is not None:
        assert plan(quiet, look, CADENCE).due
