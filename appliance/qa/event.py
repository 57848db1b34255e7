"""`qa event`: what was changed, by whom, read later."""

from __future__ import annotations

from collections.abc import Mapping

from appliance.model import LogEntry
from appliance.qa.context import Context
from appliance.qa.output import Column, Json, instant, local_time
from appliance.qa.verbs import LIMIT, Given, Verb, newest

COLUMNS: tuple[Column[LogEntry], ...] = (
    Column("Id", lambda entry: entry.id),
    Column("At", lambda entry: local_time(entry.at)),
    Column("By", lambda entry: entry.by),
    Column("What", lambda entry: entry.what),
    Column("Object", lambda entry: entry.object),
    Column("Was", lambda entry: entry.was),
    Column("Now", lambda entry: entry.now),
)


def plain(entry: LogEntry) -> Mapping[str, Json]:
    """A line of the audit log for programs."""
    return {
        "id": entry.id,
        "at": instant(entry.at),
        "by": entry.by,
        "what": entry.what,
        "object": entry.object,
        "was": entry.was,
        "now": entry.now,
    }


async def list_(context: Context, given: Given) -> None:
    """`qa event list`."""
    async with context.database() as store, store.read() as tx:
        found = await newest(context, given, tx.log.find)
    context.show(COLUMNS, found, plain)


VERBS = (
    Verb(
        "list",
        "Lists what was changed, by whom, from what to what, the newest last. qa events is short for it.",
        list_,
        arguments=(LIMIT,),
        filters=True,
        examples=(
            "qa event list -f 'at>=2030-01-31'",
            "qa event list limit=all -f 'what=di *' -o json",
            "qa event list -f by=qa:root,object=vm* limit=20",
        ),
    ),
)
