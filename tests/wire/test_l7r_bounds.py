"""What clients may use up: places, time, descriptors and log-ins; nobody pays for another's greed."""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from appliance.l7r import connection, reception
from appliance.model import UserState
from tests.support.broker import Installation, connect_request, installation, request

TURNED_AWAY = (ConnectionError, ssl.SSLError)


def held(node: Installation, count: int, address: str = "127.0.0.1") -> list[socket.socket]:
    """Connections from an address of loopback on which nothing is said: not even a handshake begins."""
    port = ("127.0.0.1", node.port)
    return [socket.create_connection(port, 5, source_address=(address, 0)) for _ in range(count)]


@contextmanager
def closing(sockets: list[socket.socket]) -> Iterator[list[socket.socket]]:
    with ExitStack() as stack:
        for each in sockets:
            stack.enter_context(each)
        yield sockets


async def ended(link: socket.socket) -> None:
    """Wait until the broker closes a connection."""
    link.setblocking(False)
    async with asyncio.timeout(20):
        with suppress(ConnectionError):
            while await asyncio.get_running_loop().sock_recv(link, 4096):
                pass


async def test_a_client_that_says_nothing_is_dropped(tmp_path: Path) -> None:
    async with installation(tmp_path, internal__l7r__timeout__idle="0.2") as node:
        client = await node.client()
        assert (await client.ask("/qvd/ping")).status == 200
        await client.send(b"GET /qvd/pi")
        assert await asyncio.wait_for(client.ended(), 20)


async def test_only_who_has_logged_in_may_take_the_time_to_choose(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "STRANGER_S", 1.5)
    async with installation(tmp_path) as node:
        known = await node.client()
        assert (await known.ask("/qvd/list_of_vm?")).status == 200
        stranger = await node.client()
        assert (await stranger.ask("/qvd/ping")).status == 200
        assert await asyncio.wait_for(stranger.ended(), 20)
        assert (await known.ask("/qvd/list_of_vm?")).status == 200


async def test_a_head_that_trickles_in_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "STRANGER_S", 0.5)
    async with installation(tmp_path) as node:
        client = await node.client()
        with suppress(*TURNED_AWAY):
            async with asyncio.timeout(20):
                for byte in b"GET /qvd/ping HTTP/1.1\r\n" + b"A: b\r\n" * 90:
                    await client.send(bytes([byte]))
                    await asyncio.sleep(0.05)
        assert await client.ended()


async def test_more_clients_than_allowed_are_turned_away(tmp_path: Path) -> None:
    async with installation(tmp_path, internal__l7r__max_connections="2") as node:
        clients = [await node.client() for _ in range(2)]
        for client in clients:
            assert (await client.ask("/qvd/ping")).status == 200
        with pytest.raises(TURNED_AWAY):
            await node.client()
        await clients[0].close()
        assert (await (await node.admitted()).ask("/qvd/ping")).status == 200


async def test_handshakes_that_never_end_take_places_and_lose_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(reception, "HANDSHAKE_S", 3.0)
    async with installation(tmp_path, internal__l7r__max_connections="5") as node:
        with closing(held(node, 5)) as silent:
            with pytest.raises(TURNED_AWAY):
                await node.client()
            for each in silent:
                await ended(each)
        assert (await (await node.admitted()).ask("/qvd/ping")).status == 200
    assert caplog.text.count("client turned away") == 1


async def test_one_address_does_not_keep_the_others_out(tmp_path: Path) -> None:
    settings = {"internal__l7r__max_strangers_per_address": "3", "internal__l7r__max_connections": "100"}
    async with installation(tmp_path, **settings) as node:
        with closing(held(node, 3, "127.0.0.2")), closing(held(node, 50, "127.0.0.2")) as more:
            for each in more:
                await ended(each)
            client = await node.client()
            assert (await client.ask("/qvd/list_of_vm?")).status == 200


async def test_whoever_has_logged_in_is_no_stranger_any_more(tmp_path: Path) -> None:
    async with installation(tmp_path, internal__l7r__max_strangers_per_address="2") as node:
        for _ in range(6):
            assert (await (await node.client()).ask("/qvd/list_of_vm?")).status == 200
        strangers = [await node.client() for _ in range(2)]
        with pytest.raises(TURNED_AWAY):
            await node.client()
        assert (await strangers[0].ask("/qvd/list_of_vm?", password="bad")).status == 401
        with pytest.raises(TURNED_AWAY):
            await node.client()


async def test_an_address_has_its_share_though_all_have_logged_in(tmp_path: Path) -> None:
    async with installation(tmp_path, internal__l7r__max_connections_per_address="2") as node:
        for _ in range(2):
            assert (await (await node.client()).ask("/qvd/list_of_vm?")).status == 200
        with pytest.raises(TURNED_AWAY):
            await node.client()


async def test_a_lack_of_descriptors_passes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(reception, "ACCEPT_AGAIN_S", 0.1)
    async with installation(tmp_path) as node:
        session = await node.client()
        assert (await session.ask("/qvd/list_of_vm?")).status == 200
        waiting = socket.socket()
        with closing([waiting]), lack_of_descriptors():
            waiting.setblocking(False)
            await asyncio.get_running_loop().sock_connect(waiting, ("127.0.0.1", node.port))
            async with asyncio.timeout(20):
                while "no client can be accepted" not in caplog.text:
                    await asyncio.sleep(0.02)
        assert (await session.ask("/qvd/ping")).status == 200
        assert (await (await node.client()).ask("/qvd/ping")).status == 200


@contextmanager
def lack_of_descriptors() -> Iterator[None]:
    """This process can open no file any more."""
    gc.collect()  # what earlier tests dropped is closed now, and not while files lack
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(each.name) for each in Path("/proc/self/fd").iterdir())
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, before[1]))
    filled = []
    try:
        with suppress(OSError):
            while True:
                filled.append(os.dup(0))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        for each in filled:
            os.close(each)


async def test_five_quick_wrong_passwords_lock_nobody_out(tmp_path: Path) -> None:
    """The Perl client tries five times by itself."""
    async with installation(tmp_path) as node:
        client = await node.client()
        for _ in range(5):
            assert (await client.ask("/qvd/list_of_vm?", password="bad")).status == 401
        assert (await client.ask("/qvd/list_of_vm?")).status == 200


async def test_a_flood_of_wrong_passwords_from_one_address_leaves_the_others_their_turn(
    tmp_path: Path,
) -> None:
    async with installation(tmp_path) as node:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", node.port, ssl=node.trust, local_addr=("127.0.0.9", 0)
        )
        attackers = [await node.client() for _ in range(12)]
        flood = [
            asyncio.create_task(each.ask("/qvd/list_of_vm?", login="nobody", password=f"guess {number}"))
            for number, each in enumerate(attackers)
        ]
        await asyncio.sleep(0.1)
        writer.write(request("/qvd/list_of_vm?"))
        assert (await reader.readuntil(b"\r\n")) == b"HTTP/1.1 200 OK\r\n"
        assert not all(each.done() for each in flood), "served in turn, not after everybody"
        assert {reply.status for reply in await asyncio.gather(*flood)} == {401}
        writer.close()
        with suppress(*TURNED_AWAY):
            await writer.wait_closed()


async def test_a_place_is_free_again_however_a_session_ends(tmp_path: Path) -> None:
    async with installation(tmp_path, internal__l7r__max_connections="1") as node:
        await node.guest(7)
        for leave in ("close", "vanish"):
            client = await node.admitted()
            await client.send(connect_request(7))
            assert (await client.final())[0].status == 101
            if leave == "close":
                await client.close()
            else:
                client.vanish()
            await node.until_user_state(7, UserState.DISCONNECTED)
        assert (await (await node.admitted()).ask("/qvd/ping")).status == 200
