"""`qa alarm`: what somebody must look after."""

from __future__ import annotations

from collections.abc import Mapping

from appliance.model import Alarm
from appliance.ops import failures
from appliance.qa.context import Context
from appliance.qa.output import Column, Json, instant, local_time
from appliance.qa.verbs import Argument, Given, Verb
from appliance.scalars import boolean

COLUMNS: tuple[Column[Alarm], ...] = (
    Column("Id", lambda alarm: alarm.id),
    Column("Kind", lambda alarm: alarm.kind),
    Column("Object", lambda alarm: alarm.object),
    Column("Count", lambda alarm: alarm.count),
    Column("Raised", lambda alarm: local_time(alarm.raised)),
    Column("Last", lambda alarm: local_time(alarm.last)),
    Column("Cleared", lambda alarm: local_time(alarm.cleared)),
    Column("Text", lambda alarm: alarm.text),
)


def plain(alarm: Alarm) -> Mapping[str, Json]:
    """An alarm for programs."""
    return {
        "id": alarm.id,
        "kind": alarm.kind,
        "object": alarm.object,
        "text": alarm.text,
        "raised": instant(alarm.raised),
        "last": instant(alarm.last),
        "count": alarm.count,
        "cleared": instant(alarm.cleared),
    }


async def list_(context: Context, given: Given) -> None:
    """`qa alarm list`."""
    async with context.database() as store, store.read() as tx:
        found = await tx.alarms.find(context.filter, open_only=not given.get("all", False))
    context.show(COLUMNS, found, plain)


async def clear(context: Context, given: Given) -> None:
    """`qa alarm clear`."""
    async with context.database() as store, store.write() as tx:
        cleared = await failures.clear_alarms(tx, await tx.alarms.find(context.filter), by=context.by)
    context.say(f"Cleared {cleared} alarms.")
    context.note_if_nothing(cleared)


VERBS = (
    Verb(
        "list",
        "Lists open alarms, the oldest first; what is noticed again counts up.",
        list_,
        arguments=(Argument("all", "those that were cleared, too", boolean, shape="yes|no"),),
        filters=True,
        examples=("qa alarm list", "qa alarm list all=yes -f kind=image"),
    ),
    Verb(
        "clear",
        "Clears open alarms; what is noticed again raises a new one.",
        clear,
        filters=True,
        rehearsable=True,
        confirm="clear all alarms",
        examples=("qa alarm clear -f id=3", "qa alarm clear --yes"),
    ),
)
