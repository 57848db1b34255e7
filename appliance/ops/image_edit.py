"""What people say about a disk image: notes, and that nothing may boot it."""

from __future__ import annotations

from collections.abc import Sequence

from appliance.errors import UsageError
from appliance.filters import Filter
from appliance.model import Di
from appliance.storage.store import Tx

LONGEST_NOTES = 4000


def checked_notes(text: str) -> str | None:
    """Notes as they are kept: lines of text; nothing if they are empty.

    :raises UsageError: they are too long, or hold what a terminal would obey
    """
    if len(text) > LONGEST_NOTES:
        raise UsageError(f"{len(text)} characters are too many for notes", hint=f"at most {LONGEST_NOTES}")
    if not all(char.isprintable() or char in "\n\t" for char in text):
        raise UsageError("notes hold a character that cannot be shown")
    return text.strip() or None


async def edit_notes(tx: Tx, dis: Sequence[Di], notes: str | None, *, by: str) -> int:
    """Write notes over those that DIs have; returns how many DIs there were."""
    await tx.images.edit_notes([di.id for di in dis], notes)
    for di in dis:
        await tx.log.append(by=by, what="di edit notes", object=f"di {di.id}", was=di.notes, now=notes)
    return len(dis)


async def block(tx: Tx, dis: Sequence[Di], *, by: str) -> int:
    """Let nothing boot these DIs, until `unblock`; what runs goes on. Returns how many were not blocked."""
    changed = await tx.images.block([di.id for di in dis], True)
    for di_id in changed:
        await tx.log.append(by=by, what="di block", object=f"di {di_id}")
    return len(changed)


async def unblock(tx: Tx, dis: Sequence[Di], *, by: str) -> int:
    """Let these DIs be booted again; returns how many were blocked."""
    changed = await tx.images.block([di.id for di in dis], False)
    for di_id in changed:
        await tx.log.append(by=by, what="di unblock", object=f"di {di_id}")
    return len(changed)


async def followers(tx: Tx, dis: Sequence[Di]) -> list[str]:
    """The names of the VMs whose next start would boot one of these DIs."""
    ids = {di.id for di in dis}
    osfs = {di.osf_id for di in dis}
    found = [vm for osf_id in sorted(osfs) for vm in await tx.vms.find(Filter.where(osf_id=osf_id))]
    return [vm.name for vm in found if vm.next_di_id in ids]
