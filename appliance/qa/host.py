"""`qa host`: the nodes."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from appliance.clock import SystemClock
from appliance.model import Host
from appliance.qa.context import Context
from appliance.qa.output import Column, Json, instant, yes_no
from appliance.qa.verbs import Given, Verb


def columns(now: datetime) -> tuple[Column[Host], ...]:
    """The table, with ages as of `now`."""
    return (
        Column("Id", lambda host: host.id),
        Column("Name", lambda host: host.name),
        Column("Address", lambda host: host.address),
        Column("HKD", lambda host: age(host, now)),
        Column("Usable RAM", lambda host: host.usable_ram),
        Column("Usable CPU", lambda host: host.usable_cpu),
        Column("VMs assigned", lambda host: host.vms),
        Column("Blocked", lambda host: yes_no(host.blocked)),
        Column("State", lambda host: host.state),
    )


def age(host: Host, now: datetime) -> str | None:
    """How long ago the daemon of a host gave a sign of life, as HH:MM:SS."""
    if host.ok_ts is None:
        return None
    passed = max(0, int((now - host.ok_ts).total_seconds()))
    return f"{passed // 3600:02}:{passed // 60 % 60:02}:{passed % 60:02}"


def plain(host: Host) -> Mapping[str, Json]:
    """A host for programs."""
    return {
        "id": host.id,
        "name": host.name,
        "address": host.address,
        "frontend": host.frontend,
        "backend": host.backend,
        "state": host.state,
        "blocked": host.blocked,
        "pid": host.pid,
        "ok_ts": instant(host.ok_ts),
        "usable_ram": host.usable_ram,
        "usable_cpu": host.usable_cpu,
        "boot_id": host.boot_id,
        "vms": host.vms,
    }


async def list_(context: Context, given: Given) -> None:
    """`qa host list`."""
    async with context.database() as store, store.read() as tx:
        found = await tx.hosts.find(context.filter)
    context.show(columns(SystemClock().now()), found, plain)


VERBS = (Verb("list", "Lists nodes.", list_, filters=True, examples=("qa host list",)),)
