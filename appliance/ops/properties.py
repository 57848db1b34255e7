"""What people do with properties: the free keys that OSFs, DIs, users and VMs pass on to `x_start`.

Each function works inside the caller's transaction. Values of keys that sound like secrets stay out of
the audit log.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from appliance import config
from appliance.errors import NotFoundError, UsageError
from appliance.storage.properties import Owner, Property
from appliance.storage.store import Tx

LONGEST_KEY, LONGEST_VALUE = 1024, 32768
HIDDEN = "***"


async def set_all(tx: Tx, owner: Owner, ids: Collection[int], values: Mapping[str, str], *, by: str) -> int:
    """Give all of these the same properties; returns how many they are.

    :raises UsageError: a key or a value cannot be stored
    :raises NotFoundError: they are none
    """
    for key, value in values.items():
        _check(key, value)
    if not ids:
        raise NotFoundError("nothing matches", hint="no property was set")
    before = await _texts(tx, owner, ids, values)
    await tx.properties.set(owner, ids, values)
    for one in ids:
        for key, value in values.items():
            await tx.log.append(
                by=by,
                what=f"{owner} propset",
                object=f"{owner} {one}",
                was=before.get((one, key)),
                now=_shown(key, value),
            )
    return len(ids)


async def delete(tx: Tx, owner: Owner, ids: Collection[int], keys: Collection[str] | None, *, by: str) -> int:
    """Remove these keys, or with None all, from all of these; returns how many properties there were."""
    before = await _texts(tx, owner, ids, keys)
    deleted = await tx.properties.delete(owner, ids, keys)
    for (one, _), was in before.items():
        await tx.log.append(by=by, what=f"{owner} propdel", object=f"{owner} {one}", was=was)
    return deleted


async def _texts(
    tx: Tx, owner: Owner, ids: Collection[int], keys: Collection[str] | None
) -> dict[tuple[int, str], str]:
    found: list[Property] = await tx.properties.of(owner, ids, keys)
    return {(one.owner_id, one.key): _shown(one.key, one.value) for one in found}


def _shown(key: str, value: str) -> str:
    return f"{key}={HIDDEN if config.is_secret(key) else value}"


def _check(key: str, value: str) -> None:
    if not key.strip() or len(key) > LONGEST_KEY or not key.isprintable():
        raise UsageError(
            f"{key[:64]!r} cannot be the key of a property", hint=f"1 to {LONGEST_KEY} printable characters"
        )
    if len(value) > LONGEST_VALUE:
        raise UsageError(
            f"{key}: the value has {len(value)} characters", hint=f"there is room for {LONGEST_VALUE}"
        )
