"""`qa operation`: long work under way, and giving it up."""

from __future__ import annotations

from collections.abc import Mapping

from appliance.ops import operations
from appliance.qa.context import Context
from appliance.qa.output import Column, Json, instant, local_time, yes_no
from appliance.qa.verbs import Argument, Given, Verb
from appliance.scalars import boolean
from appliance.storage.operations import Operation

COLUMNS: tuple[Column[Operation], ...] = (
    Column("Id", lambda operation: operation.id),
    Column("Kind", lambda operation: operation.kind),
    Column("Object", lambda operation: operation.object_id),
    Column("Owner", lambda operation: operation.owner),
    Column("Begun", lambda operation: local_time(operation.begun)),
    Column("Done", lambda operation: f"{operation.progress:.0%}"),
    Column("Cancelled", lambda operation: yes_no(operation.cancel)),
    Column("Ended", lambda operation: local_time(operation.ended)),
    Column("Result", lambda operation: operation.result),
)


def plain(operation: Operation) -> Mapping[str, Json]:
    """A piece of long work for programs."""
    return {
        "id": operation.id,
        "kind": operation.kind,
        "object_id": operation.object_id,
        "owner": operation.owner,
        "owner_pid": operation.owner_pid,
        "begun": instant(operation.begun),
        "progress": operation.progress,
        "cancel": operation.cancel,
        "ended": instant(operation.ended),
        "result": operation.result,
    }


async def list_(context: Context, given: Given) -> None:
    """`qa operation list`."""
    async with context.database() as store, store.read() as tx:
        found = await tx.operations.find(context.filter, open_only=not given.get("all", False))
    context.show(COLUMNS, found, plain)


async def cancel(context: Context, given: Given) -> None:
    """`qa operation cancel`."""
    async with context.database() as store:
        cancelled = await operations.cancel(store, context.settings, context.filter, by=context.by)
    context.say(f"Cancelled {cancelled} operations.")
    context.note_if_nothing(cancelled)


VERBS = (
    Verb(
        "list",
        "Lists long work that has not ended.",
        list_,
        arguments=(Argument("all", "what has ended, too", boolean, shape="yes|no"),),
        filters=True,
        examples=("qa operation list", "qa operation list all=yes -f kind=di*"),
    ),
    Verb(
        "cancel",
        "Gives up long work, and removes what a killed one left; what cannot be given up is refused.",
        cancel,
        filters=True,
        confirm="cancel all operations",
        examples=("qa operation cancel -f id=3",),
    ),
)
