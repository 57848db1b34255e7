"""`qa host`: the nodes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from datetime import datetime
from typing import TypeAlias

from appliance.clock import SystemClock
from appliance.model import Host
from appliance.ops import hosts
from appliance.qa.context import Context
from appliance.qa.output import Column, Json, instant, yes_no
from appliance.qa.subject import Subject, property_verbs, show_verb
from appliance.qa.top import HOST_TOP
from appliance.qa.verbs import Argument, Given, Verb
from appliance.storage.hosts import Counters
from appliance.storage.properties import Owner


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


Counted: TypeAlias = tuple[Host, Counters]

COUNTERS: tuple[Column[Counted], ...] = (
    Column("Id", lambda row: row[0].id),
    Column("Name", lambda row: row[0].name),
    Column("HTTP Requests", lambda row: row[1].http_requests),
    Column("Auth attempts", lambda row: row[1].auth_attempts),
    Column("Auth OK", lambda row: row[1].auth_ok),
    Column("NX attempts", lambda row: row[1].nx_attempts),
    Column("NX OK", lambda row: row[1].nx_ok),
    Column("Short sessions", lambda row: row[1].short_sessions),
)


def plain_counters(row: Counted) -> Mapping[str, Json]:
    """The counters of a host for programs."""
    host, counted = row
    return {"id": host.id, "name": host.name, **asdict(counted)}


async def add(context: Context, given: Given) -> None:
    """`qa host add`."""
    async with context.database() as store, store.write() as tx:
        host = await hosts.add(tx, name=given["name"], address=given["address"], by=context.by)
    context.added("Host", plain(host))


async def counters(context: Context, given: Given) -> None:
    """`qa host counters`."""
    async with context.database() as store, store.read() as tx:
        found = await tx.hosts.find(context.filter)
        counted = await tx.hosts.counters([host.id for host in found])
    context.show(COUNTERS, [(host, counted[host.id]) for host in found], plain_counters)


async def delete(context: Context, given: Given) -> None:
    """`qa host del`."""
    async with context.database() as store, store.write() as tx:
        deleted = await hosts.delete(tx, await tx.hosts.find(context.filter), by=context.by)
    context.say(f"Deleting {deleted} host(s)")
    context.note_if_nothing(deleted)


def blocking(blocked: bool) -> Callable[[Context, Given], Awaitable[None]]:
    """`qa host block` and `qa host unblock`."""

    async def run(context: Context, given: Given) -> None:
        async with context.database() as store, store.write() as tx:
            found = await tx.hosts.find(context.filter)
            context.changed = await hosts.block(tx, found, blocked=blocked, by=context.by) > 0
        context.note_if_nothing(len(found))

    return run


SUBJECT = Subject(
    Owner.HOST,
    "hosts",
    lambda tx, filter_: tx.hosts.find(filter_),
    lambda host: host.name,
    plain,
    "name=node1",
)

VERBS = (
    Verb(
        "add",
        "Adds a node; it takes VMs once its daemon runs. qa admin init adds the one it runs on.",
        add,
        arguments=(
            Argument("name", "its name: nodename in its node.conf", required=True),
            Argument("address", "its IP address or host name", required=True, shape="ADDRESS"),
        ),
        examples=("qa host add name=node2 address=192.0.2.12",),
    ),
    Verb(
        "list",
        "Lists nodes; HKD is how long ago its daemon gave a sign of life.",
        list_,
        filters=True,
        examples=("qa host list", "qa host list -f state=running -o wide"),
    ),
    show_verb(SUBJECT),
    Verb(
        "counters",
        "Shows what the broker of each node has counted.",
        counters,
        filters=True,
        examples=("qa host counters", "qa host counters -o csv"),
    ),
    HOST_TOP,
    Verb(
        "block",
        "Keeps new clients and new runs from nodes; sessions and VMs go on.",
        blocking(True),
        filters=True,
        rehearsable=True,
        confirm="block all hosts",
        examples=("qa host block -f name=node1",),
    ),
    Verb(
        "unblock",
        "Lets clients and VMs in again.",
        blocking(False),
        filters=True,
        rehearsable=True,
        confirm="unblock all hosts",
        examples=("qa host unblock -f name=node1", "qa host unblock --yes"),
    ),
    Verb(
        "del",
        "Deletes nodes that have no VMs and whose daemon does not run.",
        delete,
        filters=True,
        rehearsable=True,
        confirm="delete all hosts",
        examples=("qa host del -f name=node2",),
    ),
    *property_verbs(SUBJECT),
)
