"""`--dry-run`: whom and what a verb would concern, told by the audit log that it would have written.

The verb does its work in a transaction as ever; the store undoes it at the end. So a rehearsal is refused
for the same reasons as the real thing, and what it lists is what would happen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from appliance.filters import Filter
from appliance.model import LogEntry
from appliance.qa.output import Column, Json

if TYPE_CHECKING:
    from appliance.storage.store import Store, Tx


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """One change that would be made; who is concerned, as far as the object is there already."""

    entry: LogEntry
    name: str | None = None
    user: str | None = None


COLUMNS: tuple[Column[Effect], ...] = (
    Column("What", lambda effect: effect.entry.what),
    Column("Object", lambda effect: effect.entry.object),
    Column("Name", lambda effect: effect.name),
    Column("User", lambda effect: effect.user),
    Column("Was", lambda effect: effect.entry.was),
    Column("Now", lambda effect: effect.entry.now),
)


def plain(effect: Effect) -> Mapping[str, Json]:
    """A change that would be made, for programs."""
    return {
        "what": effect.entry.what,
        "object": effect.entry.object,
        "name": effect.name,
        "user": effect.user,
        "was": effect.entry.was,
        "now": effect.entry.now,
    }


async def effects(store: Store, entries: Sequence[LogEntry]) -> list[Effect]:
    """What would have been changed, by what would have been logged."""
    async with store.read() as tx:
        known = await _known(tx, entries)
    found = []
    for entry in entries:
        name, user = known.get(entry.object, (None, None))
        found.append(Effect(entry=entry, name=name, user=user))
    return found


async def _known(tx: Tx, entries: Sequence[LogEntry]) -> dict[str, tuple[str | None, str | None]]:
    """Name and user of the objects that are there."""
    found: dict[str, tuple[str | None, str | None]] = {}
    numbers: dict[str, set[str]] = {}
    for entry in entries:
        noun, _, number = entry.object.partition(" ")
        if number.isdecimal():
            numbers.setdefault(noun, set()).add(number)

    def chosen(noun: str) -> Filter:
        return Filter.among("id", sorted(numbers[noun]))

    if "vm" in numbers:
        found |= {f"vm {vm.id}": (vm.name, vm.user) for vm in await tx.vms.find(chosen("vm"))}
    if "user" in numbers:
        found |= {f"user {one.id}": (one.login, one.login) for one in await tx.users.find(chosen("user"))}
    if "osf" in numbers:
        found |= {f"osf {osf.id}": (osf.name, None) for osf in await tx.osfs.find(chosen("osf"))}
    if "host" in numbers:
        found |= {f"host {host.id}": (host.name, None) for host in await tx.hosts.find(chosen("host"))}
    if "di" in numbers:
        found |= {f"di {di.id}": (di.path, None) for di in await tx.images.find(chosen("di"))}
    return found
