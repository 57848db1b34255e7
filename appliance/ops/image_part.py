"""What a killed import leaves: the copy that it had begun, for the next import of the very same file."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime, timedelta
from pathlib import Path

from appliance.model import DiId, OsfId
from appliance.storage.intake import Origin
from appliance.storage.operations import Kind, Operation
from appliance.storage.paths import Paths

PART_KEPT = timedelta(days=1)
"""How long the copy of a killed import waits for somebody to go on with it."""


def plan_for(osf_id: OsfId, origin: Origin) -> str:
    """What the row of an import says of it: the OSF, and which file it takes in."""
    return json.dumps({"osf_id": osf_id, "origin": asdict(origin)})


def waits(paths: Paths, operation: Operation, now: datetime) -> bool:
    """Whether what a killed import has copied is kept for the next."""
    origin = _origin(operation)
    return (
        operation.kind is Kind.DI_ADD
        and not operation.cancel
        and now < operation.begun + PART_KEPT
        and origin is not None
        and share_of(paths.image_part(DiId(operation.object_id)), origin) > 0
        and origin.still_stands
    )


def share(paths: Paths, operation: Operation) -> float:
    """How much of its file a killed import has copied, from 0 to 1."""
    origin = _origin(operation)
    return 0.0 if origin is None else share_of(paths.image_part(DiId(operation.object_id)), origin)


def share_of(part: Path, origin: Origin) -> float:
    """How much of a file its copy holds, from 0 to 1."""
    with suppress(OSError):
        return min(1.0, part.stat().st_size / max(1, origin.size))
    return 0.0


def _origin(operation: Operation) -> Origin | None:
    with suppress(ValueError, TypeError, KeyError):
        return Origin(**json.loads(operation.plan or "")["origin"])
    return None
