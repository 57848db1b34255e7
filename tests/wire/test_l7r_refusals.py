"""What surrounds a refusal: what is counted, remembered and told to whom (the refusals: test_l7r_matrix)."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest
from sqlalchemy import update

from appliance.filters import Filter
from appliance.model import BlockCause, HostState, UserState
from appliance.ops.sessions import end_of_users
from appliance.storage import schema
from tests.support.broker import BOB, Installation, Reply, connect_request, installation, request

NX = b"NXPROXY-3.5.0 "


async def asked(node: Installation, data: bytes) -> Reply:
    """The final reply to `data`; proves that the connection stays usable."""
    client = await node.client()
    await client.send(data)
    reply, _ = await client.final()
    await client.send(b"GET /qvd/nothing HTTP/1.1\r\n\r\n")
    assert (await client.reply()).status == 404
    return reply


async def test_a_blocked_vm_shows_that_to_its_owner_only(tmp_path: Path) -> None:
    async with installation(tmp_path) as node:
        await node.set_row(7, blocked=True, block_cause=BlockCause.ADMIN)
        reply = await asked(node, connect_request(7))
        assert (reply.status, b"maintenance" in reply.body) == (403, True)
        reply = await asked(node, connect_request(7, BOB))
        assert (reply.status, b"maintenance" in reply.body) == (403, False)
        assert (await node.list())[1]["blocked"] == 1


async def test_a_disabled_user_is_refused_even_with_a_good_password_known(tmp_path: Path) -> None:
    async with installation(tmp_path) as node:
        client = await node.client()
        assert (await client.ask("/qvd/list_of_vm?")).status == 200
        await node.change(schema.users, enabled=False)
        assert (await client.ask("/qvd/list_of_vm?")).status == 401
        assert (await asked(node, request("/qvd/list_of_vm?"))).status == 401


async def test_the_sessions_of_a_disabled_user_end_at_once_and_no_other(tmp_path: Path) -> None:
    async with installation(tmp_path) as node:
        await node.guest(7)
        await node.guest(2)
        alices, bobs = await node.client(), await node.client()
        assert (await alices.connect(7))[0].status == 101
        assert (await bobs.connect(2, BOB))[0].status == 101
        async with node.store.write() as tx:
            alice = (await tx.users.find(Filter.where(login="alice")))[0].id
            await tx.connection.execute(
                update(schema.users).where(schema.users.c.id == alice).values(enabled=False)
            )
            assert await end_of_users(tx, [alice], by="test") == 1
        node.feed.announce_all()
        assert await asyncio.wait_for(alices.ended(), 20)
        await node.until_user_state(7, UserState.DISCONNECTED)
        assert (await node.row(2)).user_state is UserState.CONNECTED
        assert (await asked(node, connect_request(7))).status == 401
        await bobs.send(NX)
        assert await bobs.reader.readexactly(len(NX)) == NX


@pytest.mark.parametrize("what", ["the VM", "the node", "the node's state"])
async def test_who_is_connected_stays_when_somebody_blocks(tmp_path: Path, what: str) -> None:
    async with installation(tmp_path) as node:
        guest = await node.guest(7, 1)
        client = await node.client()
        assert (await client.connect(7))[0].status == 101
        match what:
            case "the VM":
                await node.set_row(7, blocked=True, block_cause=BlockCause.ADMIN)
            case "the node":
                await node.change(schema.host_runtimes, blocked=True)
            case _:
                await node.change(schema.host_runtimes, state=HostState.STOPPING)
        node.feed.announce_all()
        status = 403 if what == "the VM" else 503
        assert (await asked(node, connect_request(7))).status == status
        await client.send(NX)
        assert await client.reader.readexactly(len(NX)) == NX
        assert (await node.row(7)).user_state is UserState.CONNECTED
        assert guest.connections == 1


async def test_logins_are_trimmed_and_in_any_case(tmp_path: Path) -> None:
    async with installation(tmp_path) as node:
        assert (await asked(node, request("/qvd/list_of_vm?", " Alice "))).status == 200
    (tmp_path / "strict").mkdir()
    async with installation(tmp_path / "strict", **{"model.user.login.case-sensitive": "1"}) as node:
        assert (await asked(node, request("/qvd/list_of_vm?", "Alice"))).status == 401


async def test_credentials_are_counted_once_per_connection(tmp_path: Path) -> None:
    async with installation(tmp_path) as node:
        client = await node.client()
        assert (await client.ask("/qvd/ping")).status == 200
        assert await node.counters() == {}
        for _ in range(3):
            assert (await client.ask("/qvd/list_of_vm?")).status == 200
        assert (await client.ask("/qvd/list_of_vm?", password="bad")).status == 401
        assert (await client.ask("/qvd/list_of_vm?")).status == 200
        assert await node.counters() == {"http_requests": 5, "auth_attempts": 3, "auth_ok": 2}


async def test_every_request_is_counted_but_ping_and_what_is_none(tmp_path: Path) -> None:
    async with installation(tmp_path) as node:
        client = await node.client()
        for path in ("list_of_vm?", "stop_vm?id=7", "connect_to_vm?id=7"):
            await client.ask(f"/qvd/{path}")
        for path in ("ping", "nothing"):
            await client.ask(f"/qvd/{path}")
        await client.send(b"GET /qvd/list_of_vm? HTTP/1.1\r\n\r\n")
        assert (await client.reply()).status == 401
        assert await node.counters() == {"http_requests": 4, "auth_attempts": 1, "auth_ok": 1}


async def test_counts_of_many_at_once_are_all_kept(tmp_path: Path) -> None:
    """They are added in the database, never read and written back (trap T11)."""
    async with installation(tmp_path) as node:
        clients = [await node.client() for _ in range(10)]
        await asyncio.gather(*(each.ask("/qvd/list_of_vm?") for each in clients))
        assert await node.counters() == {"http_requests": 10, "auth_attempts": 10, "auth_ok": 10}


async def test_x_that_is_always_refused(tmp_path: Path) -> None:
    async with installation(tmp_path) as node:
        guest = await node.guest(7)
        guest.refuse_starts = 99
        reply = await asked(node, connect_request(7))
        assert (reply.status, b"try again" in reply.body) == (503, True)
        assert guest.calls.count("x_start") == 5
        assert guest.connections + guest.strays == 0


async def test_x_that_never_listens(tmp_path: Path) -> None:
    async with installation(tmp_path, internal__l7r__timeout__x_start="0.4") as node:
        guest = await node.guest(7)
        guest.never_listens = True
        assert (await asked(node, connect_request(7))).status == 503
        assert guest.connections + guest.strays == 0


async def test_x_that_listens_a_moment_after_it_says_so(tmp_path: Path) -> None:
    async with installation(tmp_path) as node:
        guest = await node.guest(7)
        late = socket.socket()
        late.bind(("127.0.0.1", 0))
        await node.set_row(7, vm_x_port=late.getsockname()[1])
        client = await node.client()
        asking = asyncio.ensure_future(client.connect(7))
        async with asyncio.timeout(10):
            while "nx_attempts" not in await node.counters():
                await asyncio.sleep(0.02)
        await guest.listen_at(late)
        reply, _ = await asking
        assert reply.status == 101
        assert guest.strays == 0
        assert (await node.counters())["nx_attempts"] == 1


async def test_an_x_port_that_stays_closed_is_refused(tmp_path: Path) -> None:
    async with installation(tmp_path) as node:
        await node.guest(7)
        await node.set_row(7, vm_x_port=1)
        reply = await asked(node, connect_request(7))
        assert (reply.status, b"cannot be reached" in reply.body) == (503, True)
        assert (await node.counters())["nx_attempts"] == 1
        assert "nx_ok" not in await node.counters()


async def test_our_own_faults_are_500_without_internals(tmp_path: Path) -> None:
    async with installation(tmp_path) as node:
        client = await node.client()
        async with node.store.write() as tx:
            await tx.connection.exec_driver_sql("DROP TABLE host_counters")
        reply = await client.ask("/qvd/list_of_vm?")
        assert reply.status == 500
        assert b"host_counters" not in reply.body
        assert (await client.ask("/qvd/ping")).status == 200
