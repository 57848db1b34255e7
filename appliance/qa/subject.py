"""Verbs that every noun has alike: `show`, and the three of its properties; made from one description."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from appliance.filters import Filter
from appliance.harmless import printable
from appliance.ops import properties
from appliance.qa.context import Context
from appliance.qa.output import Json
from appliance.qa.verbs import Given, Verb
from appliance.storage.properties import Owner
from appliance.storage.store import Tx


class Numbered(Protocol):
    """A record with an id."""

    @property
    def id(self) -> int: ...


T = TypeVar("T", bound=Numbered)


@dataclass(frozen=True, slots=True)
class Subject(Generic[T]):
    """A noun: what its objects are called, and how they are found and shown."""

    owner: Owner
    plural: str
    find: Callable[[Tx, Filter], Awaitable[Sequence[T]]]
    name: Callable[[T], str]
    plain: Callable[[T], Mapping[str, Json]]
    example: str
    """A filter that chooses one."""

    @property
    def noun(self) -> str:
        """The noun on the command line."""
        return self.owner.value


def show_verb(subject: Subject[T]) -> Verb:
    """`show`: one object, whole."""

    async def show(context: Context, given: Given) -> None:
        async with context.database() as store, store.read() as tx:
            found = await subject.find(tx, context.filter)
        context.show_one(subject.plain(context.only(found, subject.plural, subject.name)))

    return Verb(
        "show",
        "Shows all there is about one.",
        show,
        filters=True,
        examples=(
            f"qa {subject.noun} show -f {subject.example}",
            f"qa {subject.noun} show -f id=1 -o json",
        ),
    )


def property_verbs(subject: Subject[T]) -> tuple[Verb, ...]:
    """`propget`, `propset` and `propdel` (protocol.md 8)."""

    async def get(context: Context, given: Given) -> None:
        async with context.database() as store, store.read() as tx:
            names = {one.id: subject.name(one) for one in await subject.find(tx, context.filter)}
            found = await tx.properties.of(subject.owner, names, given.rest or None)
        if context.for_programs:
            context.data(
                [
                    {"id": one.owner_id, "name": names[one.owner_id], "key": one.key, "value": one.value}
                    for one in found
                ]
            )
        else:
            for one in found:
                name = printable(names[one.owner_id])
                print(f"{name}\t{printable(f'{one.key}={one.value}')}", file=context.output)
        if names and not found:
            context.note("No such property is set.")
        context.note_if_nothing(len(names))

    async def set_(context: Context, given: Given) -> None:
        async with context.database() as store, store.write() as tx:
            ids = [one.id for one in await subject.find(tx, context.filter)]
            number = await properties.set_all(tx, subject.owner, ids, given.values, by=context.by)
        context.say(f"propset in {number} {subject.plural}.\n")

    async def delete(context: Context, given: Given) -> None:
        async with context.database() as store, store.write() as tx:
            ids = [one.id for one in await subject.find(tx, context.filter)]
            await properties.delete(tx, subject.owner, ids, given.rest or None, by=context.by)
        context.note_if_nothing(len(ids))

    told = "" if subject.owner is Owner.HOST else ", and guests are told when a session begins"
    call, chosen = f"qa {subject.noun}", f"-f {subject.example}"
    return (
        Verb(
            "propget",
            "Shows properties: some keys, or all.",
            get,
            words="KEY…",
            filters=True,
            examples=(f"{call} propget", f"{call} propget room {chosen}"),
        ),
        Verb(
            "propset",
            f"Sets properties of {subject.plural}; filters find them as property.KEY{told}.",
            set_,
            pairs="properties and their values",
            filters=True,
            rehearsable=True,
            examples=(f"{call} propset room=12 {chosen}",),
        ),
        Verb(
            "propdel",
            "Deletes properties: some keys, or all.",
            delete,
            words="KEY…",
            filters=True,
            rehearsable=True,
            confirm=f"delete the prop in all {subject.plural}",
            examples=(f"{call} propdel room {chosen}", f"{call} propdel room --yes"),
        ),
    )
