"""Verbs of `qa user` that change who is who: other logins, disabled users, desktops in other hands."""

from __future__ import annotations

from pathlib import Path
from typing import TextIO

from appliance.errors import AdminError, ConflictError
from appliance.ops import handover, roster, users
from appliance.qa.context import Context
from appliance.qa.output import Json
from appliance.qa.verbs import Argument, Given, Verb
from appliance.storage.store import Store

CSV = (
    Argument(
        "csv", "or a CSV file of many: login, password, osf, vm, di_tag; - reads standard input", shape="FILE"
    ),
    Argument("passwords-out", "with csv=, a new file that receives generated passwords", shape="FILE"),
)


async def add_csv(context: Context, given: Given) -> None:
    """`qa user add csv=`."""
    lines = roster.parse(_text(given["csv"], context.input))
    progress = context.progress()
    out = Path(given["passwords-out"]) if "passwords-out" in given else None
    async with context.database() as store:
        try:
            added = await roster.add(
                store, context.settings, lines, passwords_out=out, by=context.by, report=progress
            )
        finally:
            progress.end_line()
    made: dict[str, Json] = {"users": added.users, "vms": added.vms, "generated": added.generated}
    if context.for_programs:
        context.data(made)
    else:
        context.say(f"Added {added.users} users and {added.vms} VMs.")
    if added.generated:
        context.note(
            f"{added.generated} passwords were generated: {out} holds them; remove it when they are told."
        )


async def edit(context: Context, given: Given) -> None:
    """`qa user edit`."""
    async with context.database() as store:
        await _finish(context, store)
        async with store.read() as tx:
            found = await tx.users.find(context.filter)
        if len(found) > 1:
            raise ConflictError(
                f"{len(found)} users cannot share one login", hint="choose one with -f login="
            )
        moved = []
        for user in found:
            moved = await handover.rename(
                store, context.settings, user, given["login"], by=context.by, report=_report(context)
            )
    context.say(f"Edited {len(found)} users.")
    _tell_kept(context, moved)
    context.note_if_nothing(len(found))


async def disable(context: Context, given: Given) -> None:
    """`qa user disable`."""
    async with context.database() as store:
        async with store.write() as tx:
            found = await tx.users.find(context.filter)
            disabled = await users.disable(tx, found, by=context.by)
        context.changed = bool(found)
    context.say(f"Disabled {disabled} users.")
    context.note_if_nothing(len(found))


async def enable(context: Context, given: Given) -> None:
    """`qa user enable`."""
    async with context.database() as store, store.write() as tx:
        found = await tx.users.find(context.filter)
        enabled = await users.enable(tx, found, by=context.by)
    context.say(f"Enabled {enabled} users.")
    context.note_if_nothing(len(found))


async def give(context: Context, given: Given) -> None:
    """`qa user give`."""
    giver, taker, vm = given["user"], given["to"], given.get("vm")
    if vm is None and not context.confirmed(f"give all machines of {giver} to {taker}"):
        context.note("Nothing was done.")
        return
    async with context.database() as store:
        await _finish(context, store)
        moved = await handover.give(
            store, context.settings, giver, taker, vm, by=context.by, report=_report(context)
        )
    context.say(f"Gave {len(moved)} VMs.")
    _tell_kept(context, moved)


async def _finish(context: Context, store: Store) -> None:
    for moved in await handover.finish(store, context.settings, report=_report(context)):
        context.note(f"A handover that was killed is finished: {moved.vm}.")


def _report(context: Context) -> handover.Report:
    return lambda vm: context.note(f"home of {vm} …")


def _tell_kept(context: Context, moved: list[handover.Moved]) -> None:
    for one in moved:
        if one.kept:
            context.note(f"{one.vm}: {one.kept} files in read-only snapshots keep their owner.")


def _text(source: str, standard_input: TextIO) -> str:
    try:
        if source == "-":
            text = standard_input.read(roster.LONGEST + 1)
        else:
            with Path(source).open(encoding="utf-8", newline="") as stream:
                text = stream.read(roster.LONGEST + 1)
    except OSError as exc:
        raise AdminError(f"the file {source} cannot be read: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise AdminError(f"the file {source} is not UTF-8", hint="save it so") from exc
    if len(text) > roster.LONGEST:
        raise AdminError(
            f"the file {source} is too long", hint=f"at most {roster.LONGEST} characters at once"
        )
    return text.removeprefix("\ufeff")


VERBS = (
    Verb(
        "edit",
        "Gives a user another login; their VMs must be stopped, their homes follow, their uid stays.",
        edit,
        arguments=(Argument("login", "the new login", required=True),),
        filters=True,
        confirm="edit all users",
        examples=("qa user edit login=alicia -f login=alice",),
    ),
    Verb(
        "disable",
        "Lets users log in no more and ends their sessions; their desktops go on.",
        disable,
        filters=True,
        rehearsable=True,
        confirm="disable all users",
        examples=("qa user disable -f login=alice",),
    ),
    Verb(
        "enable",
        "Lets disabled users log in again.",
        enable,
        filters=True,
        rehearsable=True,
        confirm="enable all users",
        examples=("qa user enable -f login=alice",),
    ),
    Verb(
        "give",
        "Hands stopped VMs of a user to another, with all that is in their homes; asks unless vm= names one.",
        give,
        arguments=(
            Argument("user", "the login of whose they are", required=True),
            Argument("to", "the login of whose they become", required=True),
            Argument("vm", "the name of one of them; default all"),
        ),
        examples=("qa user give user=alice to=bob vm=web-1", "qa user give user=alice to=bob --yes"),
    ),
)
