"""Wakes the daemon after a commit."""

from __future__ import annotations

from appliance import signals
from appliance.config import Settings
from appliance.storage.paths import Paths


def ring(settings: Settings) -> None:
    """Say "look now" to the daemon of this node; nothing happens if it is down."""
    signals.ring(Paths(settings).doorbell)
