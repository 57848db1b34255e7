"""`qa host`: nodes, whether they are free to go, and what their brokers counted."""

from __future__ import annotations

import asyncio
import re
from datetime import timedelta

import pytest
from sqlalchemy import update

from appliance.clock import SystemClock
from appliance.model import HostState
from appliance.storage.schema import host_runtimes
from tests.support.qa import Installation


@pytest.fixture
def two(qa: Installation) -> Installation:
    """An installation with a second node."""
    assert qa.ok("host", "add", "name=node2", "address=192.0.2.12").out == "Host added with id 2\n"
    return qa


def beat(qa: Installation, host_id: int, state: HostState, ago: timedelta) -> None:
    """Be the HKD of a node."""

    async def write() -> None:
        async with qa.write() as tx:
            await tx.connection.execute(
                update(host_runtimes)
                .where(host_runtimes.c.host_id == host_id)
                .values(state=state, ok_ts=SystemClock().now() - ago)
            )

    asyncio.run(write())


def test_a_new_node_is_listed_without_a_sign_of_life(two: Installation) -> None:
    first, line, *rows = two.ok("host", "list").out.splitlines()
    assert first.split("  ")[0].startswith("Id Name")
    assert "HKD" in first
    assert set(line) == {"-"}
    assert re.fullmatch(r" ?2 +node2 +192\.0\.2\.12 +- +- +- +0 +no +stopped", rows[1])


def test_the_list_shows_how_old_the_last_sign_of_life_is(two: Installation) -> None:
    beat(two, 2, HostState.RUNNING, timedelta(hours=30, minutes=2))
    assert re.search(r"30:02:\d\d", two.ok("host", "list", "-f", "name=node2").out)


@pytest.mark.parametrize("address", ["2001:db8::1", "node2.example.org", "198.51.100.7"])
def test_an_address_may_be_a_name(qa: Installation, address: str) -> None:
    qa.ok("host", "add", "name=node2", f"address={address}")
    assert qa.listed("host", "name=node2")[0]["address"] == address


def test_a_node_goes_when_its_daemon_is_down_and_nothing_is_assigned(two: Installation) -> None:
    beat(two, 2, HostState.RUNNING, timedelta(seconds=5))
    said = two("host", "del", "-f", "name=node2")
    assert (said.status, said.err) == (
        1,
        "Error: the host node2 is running (stop its daemon first; nothing was deleted)\n",
    )
    beat(two, 2, HostState.RUNNING, timedelta(hours=1))
    assert two.ok("host", "del", "-f", "name=node2").out == "Deleting 1 host(s)\n"
    assert [row["name"] for row in two.listed("host")] == ["node1"]


def test_a_node_with_vms_stays(two: Installation) -> None:
    two.with_vm()
    two.ok("vm", "start", "--yes")
    said = two("host", "del", "--yes")
    assert said.status == 1
    assert "has VMs assigned: web-1" in said.err
    assert len(two.listed("host")) == 2


def test_block_and_unblock(two: Installation) -> None:
    said = two.ok("host", "block", "-f", "name=node2")
    assert (said.out, said.err) == ("", "")
    assert [row["blocked"] for row in two.listed("host")] == [False, True]
    two.ok("host", "block", "--yes")
    assert [row["id"] for row in two.listed("host", "blocked=yes")] == [1, 2]
    two.ok("host", "unblock", "--force")
    assert [row["blocked"] for row in two.listed("host")] == [False, False]


def test_no_vm_starts_on_a_blocked_node(two: Installation) -> None:
    two.with_vm()
    two.ok("host", "block", "-f", "name=node1")
    two.ok("vm", "start", "--yes")
    assert two.listed("vm")[0]["host"] == "node2"


def test_counters_are_those_of_the_broker(two: Installation) -> None:
    async def count() -> None:
        async with two.write() as tx:
            for counter, number in (("http_requests", 3), ("auth_ok", 2), ("short_sessions", 1)):
                for _ in range(number):
                    await tx.hosts.count((await tx.hosts.find())[1].id, counter)

    asyncio.run(count())
    out = two.ok("host", "counters").out
    assert out.splitlines()[0] == (
        "Id Name  HTTP Requests Auth attempts Auth OK NX attempts NX OK Short sessions"
    )
    assert out.splitlines()[3].split() == ["2", "node2", "3", "0", "2", "0", "0", "1"]
    assert two.ok("host", "counters", "-f", "id=2", "-o", "json").json == [
        {
            "id": 2,
            "name": "node2",
            "http_requests": 3,
            "auth_attempts": 0,
            "auth_ok": 2,
            "nx_attempts": 0,
            "nx_ok": 0,
            "short_sessions": 1,
        }
    ]


def test_the_audit_log_names_the_nodes(two: Installation) -> None:
    two.ok("host", "block", "--yes")
    two.ok("host", "block", "--yes")
    two.ok("host", "del", "-f", "id=2")

    async def logged() -> list[tuple[str, str]]:
        async with two.write() as tx:
            rows = await tx.connection.exec_driver_sql(
                "SELECT what, object FROM events WHERE what LIKE 'host %' ORDER BY id"
            )
            return [(row.what, row.object) for row in rows]

    assert asyncio.run(logged()) == [
        ("host add", "host 1"),
        ("host add", "host 2"),
        ("host block", "host 1"),
        ("host block", "host 2"),
        ("host del", "host 2"),
    ]
