"""Wakes the daemon after a commit."""

from __future__ import annotations

from appliance import signals
from appliance.config import Settings
from appliance.storage.paths import Paths


def is_heard(settings: Settings) -> bool:
    """Whether the daemon of this node runs."""
    return signals.is_heard(Paths(settings).doorbell)


def ring(settings: Settings) -> None:
    """Say "look now" to the daemon of this node; nothing happens if it is down."""
    signals.ring(Paths(settings).doorbell)
