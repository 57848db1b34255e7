"""Desktops as lists show them, made by hand."""

from __future__ import annotations

from appliance.storage.live import VmLine

PLAIN = VmLine(
    id=1,
    name="desk-1",
    user="alice",
    real_user=None,
    user_ip=None,
    osf="office",
    backend="lxc",
    tag="default",
    ip="10.9.0.2",
    host=None,
    state="stopped",
    phase="stopped",
    cmd=None,
    restart=0,
    state_ts=None,
    started_by=None,
    user_state="disconnected",
    user_state_ts=None,
    user_cmd=None,
    di_id=None,
    di=None,
    next_di_id=None,
    next_di=None,
    next_blocked=None,
    soft=None,
    hard=None,
    postponed=0,
    asked=0,
    blocked=0,
    block_cause=None,
    failure=None,
    failures=0,
    waits_for=None,
)
"""One that stands still."""


def line(**differs: object) -> VmLine:
    """One that stands still, but for what differs."""
    return PLAIN._replace(**differs)  # type: ignore[arg-type]
