"""Takes moves of tags back: the newest first, each once, and never more than the history knows."""

from __future__ import annotations

from appliance.errors import ConflictError, NotFoundError
from appliance.model import TAG_DEFAULT, TAG_HEAD, Osf, TagMove
from appliance.ops import images
from appliance.storage.ageing import NO_LIMITS, Limits
from appliance.storage.store import Tx


async def take_back(
    tx: Tx, osf: Osf | None, tag: str | None, *, by: str, limits: Limits = NO_LIMITS
) -> tuple[TagMove, int]:
    """Let a tag point again at what it pointed at before its last move; of that OSF and tag, or of any.

    A move back is history like any other, and is not taken back itself: after it comes the move before.
    VMs that still run what they had lose their limits; those that have moved get the limits that are given.
    Returns the move that was taken back, and how many have limits now.

    :raises NotFoundError: there is no such move, or the image before it is gone
    :raises ConflictError: the tag has been changed by other means, or cannot move there
    """
    move = await tx.images.move_to_undo(None if osf is None else osf.id, tag)
    if move is None:
        whose = f" of the tag {tag}" if tag else ""
        where = f" in the OSF {osf.name}" if osf else ""
        raise NotFoundError(f"there is no move{whose}{where} to take back", hint="qa di history lists them")
    target = await tx.images.tag_target(move.osf_id, move.tag)
    points_at = None if target is None else target[0]
    if points_at != move.to_di_id:
        raise ConflictError(
            f"the tag {move.tag} of the OSF {move.osf} points at {_di(points_at)} now, "
            f"not at {_di(move.to_di_id)}, where its last move left it",
            hint="qa di tag lets it point where you want",
        )
    if move.from_di_id is not None:
        di = await tx.images.get(move.from_di_id)
        return move, await images.tag(tx, di, move.tag, by=by, limits=limits, undoes=move.id)
    if move.tag in (TAG_DEFAULT, TAG_HEAD) or move.to_di_id is None:
        raise ConflictError(
            f"the tag {move.tag} of the OSF {move.osf} has pointed at nothing before {_di(move.to_di_id)}",
            hint=f"qa di untag di_id={move.to_di_id} tag={move.tag} takes it away",
        )
    di = await tx.images.get(move.to_di_id)
    return move, await images.untag(tx, di, move.tag, by=by, limits=limits, undoes=move.id)


def _di(di_id: int | None) -> str:
    return "nothing" if di_id is None else f"DI {di_id}"
