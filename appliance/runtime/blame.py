"""Whose fault it is that a run failed, and so what follows (pure).

The image's: the run ends, and a second failure of the same image blocks the VM. The host's: nobody
is blocked, the start waits and is tried again. The guest's, once it has run: told, and nothing follows.
"""

from __future__ import annotations

from dataclasses import dataclass

from appliance.errors import ApplianceError, BlockedError, GuestError
from appliance.model import FailureCause


@dataclass(frozen=True, slots=True)
class Blame:
    """Whose fault a failure is and, if the host's, what of it is missing."""

    cause: FailureCause
    lacks: str | None = None


IMAGE = Blame(FailureCause.IMAGE)
GUEST = Blame(FailureCause.GUEST)
HOST = Blame(FailureCause.HOST, "host")


def blame_of(error: Exception) -> Blame:
    """Whose fault it is that an effect raised `error`.

    What nobody foresaw counts as the host's: better a start that waits in vain than a good image blocked.
    What an administrator has blocked is told, and nothing follows, as with a guest that ended.
    """
    if isinstance(error, BlockedError):
        return GUEST
    if isinstance(error, GuestError):
        return IMAGE
    if isinstance(error, ApplianceError):
        return Blame(FailureCause.HOST, error.part)
    return HOST


def backoff_s(tries: int, *, first_s: float, longest_s: float) -> float:
    """How long a start waits after its `tries`-th failure in a row: doubled each time, up to a limit."""
    doublings = min(max(tries, 1) - 1, 32)
    return min(first_s * 2.0**doublings, longest_s)
