"""Where tags pointed: `qa di history`."""

from __future__ import annotations

from collections.abc import Mapping

from appliance.model import DiId, TagMove
from appliance.qa.context import Context
from appliance.qa.output import Column, Json, instant, local_time
from appliance.qa.verbs import LIMIT, Given, Verb, newest

HISTORY: tuple[Column[TagMove], ...] = (
    Column("At", lambda move: local_time(move.at)),
    Column("By", lambda move: move.by),
    Column("OSF (id)", lambda move: f"{move.osf} ({move.osf_id})"),
    Column("Tag", lambda move: move.tag),
    Column("From", lambda move: _end(move.from_di_id, move.from_version)),
    Column("To", lambda move: _end(move.to_di_id, move.to_version)),
    Column("Undoes", lambda move: move.undoes),
)


def plain_move(move: TagMove) -> Mapping[str, Json]:
    """A move of a tag for programs."""
    return {
        "id": move.id,
        "at": instant(move.at),
        "by": move.by,
        "osf_id": move.osf_id,
        "osf": move.osf,
        "tag": move.tag,
        "from_di_id": move.from_di_id,
        "from_version": move.from_version,
        "to_di_id": move.to_di_id,
        "to_version": move.to_version,
        "undoes": move.undoes,
    }


async def history(context: Context, given: Given) -> None:
    """`qa di history`."""
    async with context.database() as store, store.read() as tx:
        found = await newest(context, given, tx.images.history)
    context.show(HISTORY, found, plain_move)


def _end(di_id: DiId | None, version: str | None) -> str | None:
    return None if di_id is None else f"{version or '?'} ({di_id})"


VERBS = (
    Verb(
        "history",
        "Lists where each tag pointed, since when and by whom, the newest move last.",
        history,
        arguments=(LIMIT,),
        filters=True,
        examples=("qa di history -f osf=office,tag=default", "qa di history -f 'at>=2030-01-31' -o json"),
    ),
)
