"""`qa di del`, `undelete`, `purge` and `trash`: how disk images go, and come back."""

from __future__ import annotations

from appliance.errors import UsageError, few
from appliance.model import Di
from appliance.ops import image_accounts, image_trash
from appliance.qa.context import Context
from appliance.qa.di_view import plain
from appliance.qa.output import Column, local_time
from appliance.qa.verbs import Given, Verb

COLUMNS: tuple[Column[Di], ...] = (
    Column("Id", lambda di: di.id),
    Column("OSF (id)", lambda di: f"{di.osf} ({di.osf_id})"),
    Column("Version", lambda di: di.version),
    Column("Had tags", lambda di: ", ".join(di.former_tags)),
    Column("Since", lambda di: local_time(di.retired)),
    Column("Until", lambda di: local_time(di.until)),
)


async def delete(context: Context, given: Given) -> None:
    """`qa di del`."""
    async with context.database() as store:
        async with store.write() as tx:
            dis, until = await image_trash.retire(tx, context.settings, context.filter, by=context.by)
        context.changed = bool(dis)
    context.say(f"Deleting {len(dis)} di(s)\n{len(dis)} DIs deleted.")
    context.note_if_nothing(len(dis))
    if dis:
        context.note(f"They are in the trash until {local_time(until)}: qa di undelete brings them back.")


async def undelete(context: Context, given: Given) -> None:
    """`qa di undelete`."""
    async with context.database() as store:
        async with store.write() as tx:
            back = await image_trash.bring_back(tx, context.filter, by=context.by)
            clashes = await image_accounts.clashes(tx, context.settings, [one.di.id for one in back])
        context.changed = bool(back)
    context.say(f"{len(back)} DIs brought back.")
    context.note_if_nothing(len(back))
    for one in back:
        if one.lost:
            context.note(
                f"DI {one.di.id} had the tags {', '.join(one.lost)}, which it has not any more: "
                f"qa di tag di_id={one.di.id} tag={one.lost[0]}"
            )
    if clashes:
        context.note(f"Warning: accounts of these images are users, who cannot start them: {few(clashes)}")


async def purge(context: Context, given: Given) -> None:
    """`qa di purge`."""
    async with context.database() as store:
        async with store.read() as tx:
            ids = [di.id for di in await image_trash.in_trash(tx, context.filter)]
        purged = await image_trash.purge(store, context.settings, ids, by=context.by)
    context.say(f"{purged} DIs removed for good.")
    context.note_if_nothing(purged)


async def trash(context: Context, given: Given) -> None:
    """`qa di trash`."""
    if given.rest not in ((), ("list",)):
        raise UsageError(f"qa di trash {' '.join(given.rest)}: it lists the trash, and takes no more words")
    async with context.database() as store, store.read() as tx:
        found = await image_trash.in_trash(tx, context.filter)
    context.show(COLUMNS, found, plain)


VERBS = (
    Verb(
        "del",
        "Puts DIs that no VM runs or follows into the trash; head and default pass on to the newest.",
        delete,
        filters=True,
        confirm="delete all dis",
        examples=("qa di del -f id=2",),
    ),
    Verb(
        "undelete",
        "Brings DIs back from the trash, with their versions; tells which other tags they had.",
        undelete,
        filters=True,
        confirm="bring all dis back from the trash",
        examples=("qa di undelete -f id=2",),
    ),
    Verb(
        "purge",
        "Removes DIs from the trash for good, with their files, before their time is over.",
        purge,
        filters=True,
        confirm="remove all dis in the trash for good",
        examples=("qa di purge -f id=2",),
    ),
    Verb(
        "trash",
        "Lists the DIs in the trash, and until when they can be brought back.",
        trash,
        words="list",
        filters=True,
        examples=("qa di trash list", "qa di trash list -f osf=office"),
    ),
)
