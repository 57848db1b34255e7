"""Every refusal of protocol.md 1.5 to 1.10, over a real connection, and what stays usable after it."""

from __future__ import annotations

import asyncio
import socket
import ssl
from pathlib import Path

import pytest
from sqlalchemy import delete

from appliance.model import BlockCause, HostState, UserState, VmCmd, VmState
from appliance.storage import schema
from tests.support.broker import BOB, Installation, Reply, connect_request, installation, request

UPGRADE = ("Connection: Upgrade", "Upgrade: QVD/1.0")


async def asked(node: Installation, data: bytes) -> Reply:
    """The final reply to `data`; proves that the connection stays usable."""
    client = await node.client()
    await client.send(data)
    reply, _ = await client.final()
    await client.send(b"GET /qvd/nothing HTTP/1.1\r\n\r\n")
    assert (await client.reply()).status == 404
    return reply


def connect(query: str, *lines: str, login: str = "alice", password: str = "secret") -> bytes:
    return request(f"/qvd/connect_to_vm?{query}", login, password, *lines)


@pytest.mark.parametrize(
    ("data", "status", "says"),
    [
        (connect("id=7", *UPGRADE, password="bad"), 401, "password"),
        (connect("id=7", *UPGRADE, password=""), 401, "password"),
        (connect("id=7", *UPGRADE, login="nobody"), 401, "password"),
        (b"GET /qvd/list_of_vm? HTTP/1.1\r\n\r\n", 401, "password"),
        (b"GET /qvd/list_of_vm? HTTP/1.1\r\nAuthorization: Bearer YTpi\r\n\r\n", 401, "password"),
        (connect("id=7"), 426, "newer client"),
        (connect("id=7", "Connection: Upgrade", "Upgrade: QVD/2.0"), 426, "newer client"),
        (connect("", *UPGRADE), 422, "id"),
        (connect("id=x", *UPGRADE), 422, "id"),
        (connect("id=7&shell=1", *UPGRADE), 403, "shell"),
        (connect("id=99", *UPGRADE), 404, "not exist"),
        (connect("id=2", *UPGRADE), 403, "somebody else"),
        (request("/qvd/stop_vm"), 422, "id"),
        (request("/qvd/stop_vm?id=99"), 404, "not exist"),
        (request("/qvd/stop_vm?id=2"), 403, "somebody else"),
        (request("/qvd/authenticate_user?store_auth=1"), 404, "nothing"),
        (request("/qvd/ping/"), 404, "nothing"),
    ],
)
async def test_refusals(tmp_path: Path, data: bytes, status: int, says: str) -> None:
    async with installation(tmp_path) as node:
        reply = await asked(node, data)
        assert (reply.status, says in reply.body.decode()) == (status, True)
        assert reply.headers["Content-Type"] == "text/plain"
        for vm_id in (2, 7):
            row = await node.row(vm_id)
            assert (row.real_user_id, row.user_state, row.vm_cmd) == (None, UserState.DISCONNECTED, None)


async def test_a_blocked_vm_shows_that_to_its_owner_only(tmp_path: Path) -> None:
    async with installation(tmp_path) as node:
        await node.set_row(7, blocked=True, block_cause=BlockCause.ADMIN)
        reply = await asked(node, connect_request(7))
        assert (reply.status, b"maintenance" in reply.body) == (403, True)
        reply = await asked(node, connect_request(7, BOB))
        assert (reply.status, b"maintenance" in reply.body) == (403, False)
        assert (await node.list())[1]["blocked"] == 1


@pytest.mark.parametrize(
    "path", ["/qvd/ping", "/qvd/list_of_vm?", "/qvd/connect_to_vm?id=7", "/qvd/stop_vm?id=7"]
)
async def test_a_node_that_does_not_serve(tmp_path: Path, path: str) -> None:
    async with installation(tmp_path) as node:
        await node.change(schema.host_runtimes, blocked=True)
        reply = await asked(node, request(path))
        assert (reply.status, b"maintenance" in reply.body) == (503, True)
        await node.change(schema.host_runtimes, blocked=False, state=HostState.STOPPING)
        reply = await asked(node, request(path))
        assert (reply.status, b"stopping" in reply.body) == (503, True)
        async with node.store.write() as tx:
            await tx.connection.execute(delete(schema.hosts))
        reply = await asked(node, request(path, password="bad"))
        assert (reply.status, b"not registered" in reply.body) == (503, True)


async def test_a_disabled_user_is_refused_even_with_a_good_password_known(tmp_path: Path) -> None:
    async with installation(tmp_path) as node:
        client = await node.client()
        assert (await client.ask("/qvd/list_of_vm?")).status == 200
        await node.change(schema.users, enabled=False)
        assert (await client.ask("/qvd/list_of_vm?")).status == 401
        assert (await asked(node, request("/qvd/list_of_vm?"))).status == 401


async def test_logins_are_trimmed_and_in_any_case(tmp_path: Path) -> None:
    async with installation(tmp_path) as node:
        assert (await asked(node, request("/qvd/list_of_vm?", " Alice "))).status == 200
    (tmp_path / "strict").mkdir()
    async with installation(tmp_path / "strict", **{"model.user.login.case-sensitive": "1"}) as node:
        assert (await asked(node, request("/qvd/list_of_vm?", "Alice"))).status == 401


async def test_credentials_are_counted_once_per_connection(tmp_path: Path) -> None:
    async with installation(tmp_path) as node:
        client = await node.client()
        for _ in range(3):
            assert (await client.ask("/qvd/list_of_vm?")).status == 200
        assert (await client.ask("/qvd/list_of_vm?", password="bad")).status == 401
        assert (await client.ask("/qvd/list_of_vm?")).status == 200
        assert await node.counters() == {"http_requests": 5, "auth_attempts": 3, "auth_ok": 2}
        assert (await client.ask("/qvd/ping")).body == b"I am alive!\r\n"
        assert (await node.counters())["http_requests"] == 5


async def test_what_is_not_http_is_answered_and_the_connection_closed(tmp_path: Path) -> None:
    async with installation(tmp_path) as node:
        for data, status in ((b"nonsense\r\n", 400), (b"GET / HTTP/1.0\r\n\r\n", 505), (b"x" * 20000, 400)):
            client = await node.client()
            await client.send(data)
            assert (await client.reply()).status == status
            assert await client.ended()


async def test_an_error_comes_in_two_records(tmp_path: Path) -> None:
    """The native client waits for another read after the header block."""
    async with installation(tmp_path) as node:
        records = await asyncio.to_thread(records_of, node, request("/qvd/list_of_vm", password="bad"))
        assert records[0].endswith(b"\r\n\r\n")
        assert len(records) == 2


def records_of(node: Installation, data: bytes) -> list[bytes]:
    """What is received, one item per TLS record: OpenSSL hands them out one by one."""
    assert node.trust is not None
    with (
        socket.create_connection(("127.0.0.1", node.port), timeout=5) as plain,
        node.trust.wrap_socket(plain, server_hostname="127.0.0.1") as tls,
    ):
        tls.sendall(data)
        found = [tls.recv(65536)]
        while b"Content-Length: " not in b"".join(found) or not found[-1].endswith(b"wrong\r\n"):
            found.append(tls.recv(65536))
        return found


async def test_a_vm_without_a_host_to_run_on(tmp_path: Path) -> None:
    async with installation(tmp_path) as node:
        await node.change(schema.hosts, backend=False)
        reply = await asked(node, connect_request(7))
        assert (reply.status, b"no host" in reply.body) == (503, True)
        assert (await node.row(7)).user_state is UserState.DISCONNECTED


async def test_a_vm_that_does_not_start(tmp_path: Path) -> None:
    async with installation(tmp_path) as node:
        asking = asyncio.create_task(asked(node, connect_request(7)))
        await node.until_wished(7, VmCmd.START)
        await node.set_row(7, vm_state=VmState.STARTING, vm_cmd=None)
        await asyncio.sleep(0.05)
        await node.stops(7, failure="the image has no VMA", failure_cause="image")
        reply = await asking
        assert (reply.status, b"the image has no VMA" in reply.body) == (503, True)
        assert (await node.row(7)).user_state is UserState.DISCONNECTED


async def test_a_vm_that_takes_too_long(tmp_path: Path) -> None:
    async with installation(tmp_path, internal__l7r__timeout__vm_start="0.3") as node:
        assert (await asked(node, connect_request(7))).status == 503


async def test_a_zombie(tmp_path: Path) -> None:
    async with installation(tmp_path) as node:
        await node.set_row(7, vm_state=VmState.ZOMBIE, host_id=1)
        assert (await asked(node, connect_request(7))).status == 503
        assert (await asked(node, request("/qvd/stop_vm?id=7"))).status == 503


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


async def test_a_guest_whose_agent_is_gone(tmp_path: Path) -> None:
    async with installation(tmp_path) as node:
        guest = await node.guest(7)
        await guest.__aexit__()
        assert (await asked(node, connect_request(7))).status == 503


async def test_an_x_port_that_is_closed_is_dialled_once(tmp_path: Path) -> None:
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


async def test_a_client_that_says_nothing_is_dropped(tmp_path: Path) -> None:
    async with installation(tmp_path, internal__l7r__timeout__idle="0.2") as node:
        client = await node.client()
        assert (await client.ask("/qvd/ping")).status == 200
        await client.send(b"GET /qvd/pi")
        assert await asyncio.wait_for(client.ended(), 5)


async def test_more_clients_than_allowed_are_turned_away(tmp_path: Path) -> None:
    async with installation(tmp_path, internal__l7r__max_connections="2") as node:
        clients = [await node.client() for _ in range(2)]
        for client in clients:
            assert (await client.ask("/qvd/ping")).status == 200
        with pytest.raises((ConnectionError, ssl.SSLError)):
            await node.client()
        await clients[0].close()
        assert (await (await node.admitted()).ask("/qvd/ping")).status == 200
