"""`qa kept`: what waits on disk for its end."""

from __future__ import annotations

from collections.abc import Mapping

from appliance.model import Kept
from appliance.ops import kept
from appliance.qa.context import Context
from appliance.qa.output import Column, Json, instant, local_time
from appliance.qa.verbs import Given, Verb

MIB = 1 << 20

COLUMNS: tuple[Column[Kept], ...] = (
    Column("Id", lambda thing: thing.id),
    Column("Kind", lambda thing: thing.kind),
    Column("VM", lambda thing: thing.vm),
    Column("Owner", lambda thing: thing.owner),
    Column("MiB", lambda thing: _mib(kept.size_bytes(thing))),
    Column("Since", lambda thing: local_time(thing.at)),
    Column("Until", lambda thing: local_time(thing.until)),
    Column("Reason", lambda thing: thing.reason),
)


def plain(thing: Kept) -> Mapping[str, Json]:
    """A kept thing for programs."""
    return {
        "id": thing.id,
        "kind": thing.kind,
        "path": thing.path,
        "vm_id": thing.vm_id,
        "vm": thing.vm,
        "owner": thing.owner,
        "reason": thing.reason,
        "at": instant(thing.at),
        "until": instant(thing.until),
        "size_bytes": kept.size_bytes(thing),
    }


async def list_(context: Context, given: Given) -> None:
    """`qa kept list`."""
    async with context.database() as store, store.read() as tx:
        found = await tx.kept.find(context.filter)
    context.show(COLUMNS, found, plain)


async def delete(context: Context, given: Given) -> None:
    """`qa kept del`."""
    async with context.database() as store:
        async with store.write() as tx:
            ended = await kept.end(tx, await tx.kept.find(context.filter), by=context.by)
        context.changed = ended > 0
    context.say(f"Deleting {ended} kept thing(s)")
    context.note_if_nothing(ended)
    if ended and not context.invocation.dry_run:
        context.note("The daemon removes them within a minute.")


def _mib(size: int | None) -> int | None:
    return None if size is None else -(-size // MIB)


VERBS = (
    Verb(
        "list",
        "Lists homes of deleted VMs, roots of starts that failed and snapshots of homes, with when they go.",
        list_,
        filters=True,
        examples=("qa kept list", "qa kept list -f kind=home,owner=alice"),
    ),
    Verb(
        "del",
        "Removes them now instead of later.",
        delete,
        filters=True,
        rehearsable=True,
        confirm="delete all kept homes, snapshots of homes and roots",
        examples=("qa kept del -f id=3",),
    ),
)
