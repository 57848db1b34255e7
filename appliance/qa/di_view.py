"""How disk images are shown: those that there are, and those that arrive."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from appliance.filters import Filter
from appliance.model import ArrivingDi, Di
from appliance.qa.output import Column, Json, instant
from appliance.storage.store import Tx

Line: TypeAlias = Di | ArrivingDi
WHOLE_LIFE = frozenset({"state", "until"})
"""Filter keys that speak of the trash, so that it is looked into as well."""


def _version(line: Line) -> str | None:
    return line.version if isinstance(line, Di) else None


def _path(line: Line) -> str | None:
    return line.path if isinstance(line, Di) else None


def _tags(line: Line) -> str:
    return ", ".join(line.tags) if isinstance(line, Di) else ""


def _state(line: Line) -> str:
    if isinstance(line, ArrivingDi):
        return f"{line.state} {line.progress:.0%}"
    return f"{line.state}, blocked" if line.blocked else line.state


COLUMNS: tuple[Column[Line], ...] = (
    Column("Id", lambda di: di.id),
    Column("OSF (id)", lambda di: f"{di.osf} ({di.osf_id})" if di.osf else None),
    Column("Version", _version),
    Column("Path", _path),
    Column("Tags", _tags),
    Column("State", _state),
)


def plain(line: Line) -> Mapping[str, Json]:
    """An image for programs; what arrives has the same keys."""
    if isinstance(line, ArrivingDi):
        return {
            **dict.fromkeys(KEYS),
            "id": line.id,
            "osf_id": line.osf_id,
            "osf": line.osf,
            "created": instant(line.begun),
            "tags": [],
            "state": line.state,
            "progress": line.progress,
            "blocked": False,
            "former_tags": [],
        }
    return {
        "id": line.id,
        "osf_id": line.osf_id,
        "osf": line.osf,
        "version": line.version,
        "path": line.path,
        "sha256": line.sha256,
        "size_bytes": line.size_bytes,
        "created": instant(line.created),
        "tags": list(line.tags),
        "state": line.state,
        "progress": None,
        "notes": line.notes,
        "blocked": line.blocked,
        "retired": instant(line.retired),
        "until": instant(line.until),
        "former_tags": list(line.former_tags),
    }


KEYS = (
    *("id", "osf_id", "osf", "version", "path", "sha256", "size_bytes", "created", "tags"),
    *("state", "progress", "notes", "blocked", "retired", "until", "former_tags"),
)
"""What `plain` tells, in its order."""


async def find(tx: Tx, filter_: Filter) -> list[Di]:
    """The images that pass; those in the trash only if the filter speaks of it."""
    keys = {condition.key for condition in filter_.conditions}
    return await tx.images.find(filter_, trash=bool(keys & WHOLE_LIFE))
