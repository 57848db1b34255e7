"""What people do with kept things: roots of failed starts, homes of deleted VMs, and snapshots of homes."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path

from appliance import config
from appliance.config import Settings
from appliance.model import Kept, KeptKind, Vm
from appliance.storage.paths import Paths
from appliance.storage.store import Tx

BLOCK = 512
"""Bytes in which stat(2) counts what a file takes."""


async def keep_homes(
    tx: Tx, settings: Settings, vms: Sequence[Vm], *, reason: str, purge: bool
) -> datetime | None:
    """Let the homes of VMs that are about to go wait for their end, with their snapshots; returns until when.

    None if there are none.

    To be called in the transaction that deletes the VMs. With `purge` they wait for nothing.
    """
    paths = Paths(settings)
    until = tx.at if purge else tx.at + timedelta(days=settings[config.KEPT_HOME_DAYS])
    ended = await tx.kept.end_snapshots([vm.id for vm in vms], until=until)
    kept = until if ended else None
    for vm in vms:
        for home in paths.homes_of(vm.id):
            if not home.exists():
                continue
            kept = until
            await tx.kept.add(
                KeptKind.HOME, home, vm_id=vm.id, vm=vm.name, owner=vm.user, reason=reason, until=until
            )
    return kept


async def end(tx: Tx, kept: Sequence[Kept], *, by: str) -> int:
    """Keep these no longer; the daemon removes them. Returns how many there were."""
    for thing in kept:
        await tx.log.append(
            by=by, what="kept del", object=f"vm {thing.vm_id}", was=f"{thing.kind} {thing.path}"[:1000]
        )
    return await tx.kept.end_now([thing.id for thing in kept])


def size_bytes(kept: Kept) -> int | None:
    """What would be free without it, in bytes; None if it is not there or not counted, or we may not ask.

    What a snapshot shares with its home only full quota groups can tell.
    """
    from appliance.storage import quotas, subvolumes

    path = Path(kept.path)
    with suppress(OSError):
        if kept.kind is KeptKind.SNAPSHOT and (path.is_file() or quotas.mode(path) is not quotas.Mode.QGROUP):
            return None
        if path.is_file():
            return path.stat().st_blocks * BLOCK
        if subvolumes.is_top(path) and (use := quotas.use(path, subvolumes.id_of(path))) is not None:
            return use.exclusive
    return None
