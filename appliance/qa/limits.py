"""`expire-soft=` and `expire-hard=`, wherever a verb takes them: read, confirmed, and what came of them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import datetime

from appliance import attime
from appliance.clock import SystemClock
from appliance.errors import AdminError, TimeExpressionError, UsageError
from appliance.model import AgeingVm, Limit
from appliance.qa.context import Context
from appliance.qa.output import Column, Json, instant, local_time, yes_no
from appliance.qa.verbs import Argument, Given
from appliance.storage.ageing import Limits

NAMES = {limit: f"expire-{limit}" for limit in Limit}

ARGUMENTS = (
    Argument(
        NAMES[Limit.SOFT],
        "from when their users are asked to restart, as at(1) reads it, or ISO 8601; empty lifts it",
        shape="TIME",
    ),
    Argument(
        NAMES[Limit.HARD],
        "when those that still run the old image are restarted; empty lifts it",
        shape="TIME",
    ),
)

AFFECTED: tuple[Column[AgeingVm], ...] = (
    Column("Id", lambda vm: vm.id),
    Column("Name", lambda vm: vm.name),
    Column("User", lambda vm: vm.user),
    Column("UserState", lambda vm: vm.user_state),
    Column("State", lambda vm: vm.vm_state),
    Column("Running DI", lambda vm: vm.current_di_id),
    Column("Next DI", lambda vm: vm.next_di_id),
    Column("Comes back", lambda vm: yes_no(vm.comes_back)),
    Column("Expire soft", lambda vm: local_time(vm.vm_expiration_soft)),
    Column("Expire hard", lambda vm: local_time(vm.vm_expiration_hard)),
)


def plain(vm: AgeingVm) -> dict[str, Json]:
    """A VM that is concerned, for programs."""
    return {
        "id": vm.id,
        "name": vm.name,
        "user": vm.user,
        "user_state": vm.user_state,
        "vm_state": vm.vm_state,
        "current_di_id": vm.current_di_id,
        "next_di_id": vm.next_di_id,
        "comes_back": vm.comes_back,
        "vm_expiration_soft": instant(vm.vm_expiration_soft),
        "vm_expiration_hard": instant(vm.vm_expiration_hard),
    }


def given_limits(context: Context, given: Given) -> Limits:
    """The limits of a call; what was guessed from everyday words has been confirmed.

    :raises UsageError: a time cannot be read, is over, or the soft one comes after the hard one
    :raises AdminError: a guess was not confirmed
    """
    now, zone = SystemClock().now(), attime.local_zone(os.environ.get("TZ"))
    limits: dict[Limit, datetime | None] = {}
    for limit, name in NAMES.items():
        if name not in given:
            continue
        text = given[name].strip()
        if not text:
            limits[limit] = None
            continue
        try:
            read = attime.limit(text, now.astimezone(zone), zone)
        except TimeExpressionError as exc:
            raise UsageError(f"argument {name}: {exc.message}", hint=exc.hint) from exc
        if read.understood_as is not None:
            _confirm(context, name, text, read)
        limits[limit] = read.instant
    soft, hard = limits.get(Limit.SOFT), limits.get(Limit.HARD)
    if soft is not None and hard is not None and hard < soft:
        raise UsageError(f"{NAMES[Limit.HARD]} comes before {NAMES[Limit.SOFT]}: nobody would be asked")
    return limits


def report(context: Context, limited: int, limits: Limits) -> None:
    """Tell how many VMs have limits now, and which, in QVD's words."""
    if limits:
        soft, hard = (_shown(limits, limit) for limit in Limit)
        context.note(f"{limited} VMs have had their expiration dates set (soft: {soft}, hard: {hard}).")


def preview(
    context: Context, concerned: Sequence[AgeingVm], what: str = "move to another image at their next start"
) -> None:
    """Show whose desktops would do `what`, and say that nothing has happened."""
    context.previewed = True
    context.show(AFFECTED, concerned, plain)
    people = len({vm.user for vm in concerned})
    connected = sum(not vm.is_idle for vm in concerned)
    context.note(
        f"{len(concerned)} desktops of {people} people would {what}; "
        f"{connected} are in use. Nothing was changed."
    )


def _confirm(context: Context, name: str, text: str, read: attime.Limit) -> None:
    shown = f"{name}={text} was understood as {local_time(read.instant)} ({read.understood_as})"
    context.note(shown)
    if not context.confirmed(f"take {name} as {local_time(read.instant)}", even_filtered=True):
        raise AdminError(
            f"{name}={text} was not confirmed", hint="write it as at(1) reads it, or as ISO 8601"
        )


def _shown(limits: Limits, limit: Limit) -> str:
    if limit not in limits:
        return "as it was"
    return instant(limits[limit]) or "undef"
