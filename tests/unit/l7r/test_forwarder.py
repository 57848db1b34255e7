"""The stream: bytes both ways, in order and whole, within bounds, over TLS and TCP, on both event loops."""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import random
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import uvloop

from appliance.l7r import forwarder
from appliance.l7r.forwarder import EARLY_MAX, HIGH_WATER, Peer, dial, forward
from tests.support.tls import Identity, self_signed

MIB = 1024 * 1024


LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


def on_both_loops(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a coroutine test on asyncio's own loop and on the daemon's."""

    def run(new_loop: Callable[[], asyncio.AbstractEventLoop], **fixtures: Any) -> None:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(test(**fixtures))

    wanted = inspect.signature(test).parameters.values()
    loop = inspect.Parameter("new_loop", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    run.__name__, run.__doc__ = test.__name__, test.__doc__
    run.__signature__ = inspect.Signature([loop, *wanted])  # type: ignore[attr-defined]
    run.__dict__.update(test.__dict__)
    both: Callable[..., None] = pytest.mark.parametrize("new_loop", LOOPS.values(), ids=LOOPS)(run)
    return both


@pytest.fixture(params=[True, False], ids=["tls", "clear"])
def identity(request: pytest.FixtureRequest, tmp_path: Path) -> Identity | None:
    return self_signed(tmp_path) if request.param else None


@dataclass(slots=True)
class Stream:
    """A client and a guest with the forwarder between them."""

    client: tuple[asyncio.StreamReader, asyncio.StreamWriter]
    guest: tuple[asyncio.StreamReader, asyncio.StreamWriter]
    peers: tuple[Peer, Peer]
    ended: asyncio.Task[str]

    def buffered(self) -> int:
        """Bytes that wait in the forwarder's own buffers."""
        transports = [peer._transport for peer in self.peers]
        return sum(t.get_write_buffer_size() for t in transports if t is not None)


@asynccontextmanager
async def stream(identity: Identity | None, leftover: bytes = b"") -> AsyncIterator[Stream]:
    loop = asyncio.get_running_loop()
    accepted: asyncio.Queue[Peer] = asyncio.Queue()
    guests: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()

    async def guest(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        guests.put_nowait((reader, writer))

    server = await loop.create_server(
        lambda: Peer(accepted.put_nowait),
        "127.0.0.1",
        0,
        ssl=None if identity is None else identity.server_context(),
    )
    behind = await asyncio.start_server(guest, "127.0.0.1", 0, limit=1024)
    trust = None if identity is None else ssl.create_default_context(cafile=str(identity.cert))
    port = server.sockets[0].getsockname()[1]
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trust, limit=1024)
    front = await accepted.get()
    back = await dial("127.0.0.1", behind.sockets[0].getsockname()[1])
    guest_end = await guests.get()
    ended = asyncio.create_task(forward(front, back, leftover))
    await asyncio.sleep(0)
    try:
        yield Stream((reader, writer), guest_end, (front, back), ended)
    finally:
        ended.cancel()
        with suppress(asyncio.CancelledError):
            await ended
        for one in (writer, guest_end[1]):
            leave(one)
        await asyncio.wait({front.closed, back.closed})
        server.close()
        behind.close()
        await asyncio.sleep(0.01)


def leave(writer: asyncio.StreamWriter) -> None:
    """Close, once: a second close() breaks the TLS transport of Python 3.11."""
    if not writer.transport.is_closing():
        writer.close()


async def digest(reader: asyncio.StreamReader, size: int) -> str:
    found = hashlib.sha256()
    while size:
        data = await reader.read(min(size, 65536))
        assert data, f"{size} bytes are missing"
        found.update(data)
        size -= len(data)
    return found.hexdigest()


@on_both_loops
async def test_the_leftover_goes_first_and_both_speak(identity: Identity | None) -> None:
    async with stream(identity, b"NXPROXY-3.5.0 ") as s:
        s.client[1].write(b"more")
        assert await s.guest[0].readexactly(18) == b"NXPROXY-3.5.0 more"
        s.guest[1].write(b"NXPROXY-3.5.2")
        assert await s.client[0].readexactly(13) == b"NXPROXY-3.5.2"


@on_both_loops
async def test_nothing_is_said_for_the_guest(identity: Identity | None) -> None:
    async with stream(identity) as s:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(s.client[0].read(1), 0.1)


@on_both_loops
async def test_much_data_both_ways_at_once(identity: Identity | None) -> None:
    up, down = random.Random(1).randbytes(8 * MIB), random.Random(2).randbytes(8 * MIB)
    async with stream(identity) as s:
        s.client[1].write(up)
        s.guest[1].write(down)
        found = tuple(await asyncio.gather(digest(s.guest[0], len(up)), digest(s.client[0], len(down))))
        assert found == (hashlib.sha256(up).hexdigest(), hashlib.sha256(down).hexdigest())
        assert tuple(peer.received for peer in s.peers) == (len(up), len(down))


@on_both_loops
@pytest.mark.parametrize("towards", ["guest", "client"])
async def test_a_slow_reader_stops_the_sender_and_loses_nothing(
    identity: Identity | None, towards: str
) -> None:
    data = random.Random(3).randbytes(24 * MIB)
    async with stream(identity) as s:
        source, sink = (s.client, s.guest) if towards == "guest" else (s.guest, s.client)
        source[1].write(data)
        await asyncio.sleep(0.5)
        read_by_us = sum(peer.received for peer in s.peers)
        assert read_by_us < 16 * MIB, "the forwarder goes on reading for a reader that does not"
        assert s.buffered() < 4 * HIGH_WATER
        assert await digest(sink[0], len(data)) == hashlib.sha256(data).hexdigest()


@on_both_loops
@pytest.mark.parametrize("closing", ["client", "guest"])
async def test_what_is_under_way_is_delivered_before_the_end(identity: Identity | None, closing: str) -> None:
    data = random.Random(4).randbytes(3 * MIB)
    async with stream(identity) as s:
        leaving, staying = (s.client, s.guest) if closing == "client" else (s.guest, s.client)
        leaving[1].write(data)
        leave(leaving[1])
        assert await digest(staying[0], len(data)) == hashlib.sha256(data).hexdigest()
        assert await staying[0].read() == b""
        leave(staying[1])
        cause = await asyncio.wait_for(s.ended, 5)
        assert cause == {"client": "the client left", "guest": "the desktop ended the session"}[closing]


@on_both_loops
async def test_a_half_closed_client_gets_what_the_guest_had_sent(tmp_path: Path) -> None:
    async with stream(None) as s:
        s.guest[1].write(b"x" * MIB)
        await asyncio.sleep(0.05)
        s.client[1].write(b"last words")
        s.client[1].write_eof()
        assert await s.guest[0].read() == b"last words"
        received = 0
        while data := await s.client[0].read(65536):
            received += len(data)
        assert received >= HIGH_WATER
        await asyncio.wait_for(s.ended, 5)


@on_both_loops
async def test_a_reset_ends_both(identity: Identity | None) -> None:
    async with stream(identity) as s:
        s.client[1].transport.abort()
        assert await s.guest[0].read() == b""
        assert await asyncio.wait_for(s.ended, 5) == "the client left"


@on_both_loops
async def test_cutting_closes_both_at_once(identity: Identity | None) -> None:
    async with stream(identity) as s:
        s.guest[1].write(b"x" * (4 * MIB))
        await asyncio.sleep(0.1)
        s.ended.cancel()
        await asyncio.wait({peer.closed for peer in s.peers}, timeout=10)
        assert all(peer.closed.done() for peer in s.peers)


@on_both_loops
async def test_an_end_that_never_reads_is_given_up(
    identity: Identity | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forwarder, "LINGER_S", 0.3)
    async with stream(identity) as s:
        s.peers[0].write(b"x" * (16 * MIB))
        s.peers[0].finish()
        await asyncio.wait_for(s.ended, 5)


@on_both_loops
@pytest.mark.parametrize("leaving", ["guest", "client"])
async def test_an_end_that_leaves_unheard_is_noticed_though_the_other_never_reads(
    identity: Identity | None, monkeypatch: pytest.MonkeyPatch, leaving: str
) -> None:
    monkeypatch.setattr(forwarder, "LOOK_S", 0.05)
    monkeypatch.setattr(forwarder, "LINGER_S", 0.3)
    async with stream(identity) as s:
        front, back = s.peers
        (_, writer), source, sink = (s.guest, back, front) if leaving == "guest" else (s.client, front, back)
        async with asyncio.timeout(20):
            while sink._roomy.is_set():  # no more than that: an end behind a full window is heard by nobody
                writer.write(b"x" * 16384)
                await writer.drain()
                await asyncio.sleep(0)
        writer.transport.abort()
        ended = await asyncio.wait_for(s.ended, 10)
        assert ended == ("the desktop ended the session" if leaving == "guest" else "the client left")
        assert source.closed.done()


@on_both_loops
async def test_a_stalled_stream_with_both_ends_alive_goes_on(
    identity: Identity | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forwarder, "LOOK_S", 0.02)
    monkeypatch.setattr(forwarder, "LINGER_S", 0.05)
    async with stream(identity) as s:
        s.guest[1].write(b"x" * (8 * MIB))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(s.ended), 0.5)
        assert await digest(s.client[0], 8 * MIB)


@on_both_loops
async def test_keep_alive_and_no_delay_are_set() -> None:
    async with stream(None) as s:
        for peer in s.peers:
            assert peer._transport is not None
            link = peer._transport.get_extra_info("socket")
            assert link.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert link.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            idle, interval, probes = (
                link.getsockopt(socket.IPPROTO_TCP, option)
                for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
            )
            assert idle + interval * probes <= 300, "a vanished machine must not keep its session for hours"
            assert 0 < link.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) <= 300_000


@on_both_loops
async def test_a_peer_that_says_too_much_too_early_is_cut() -> None:
    loop = asyncio.get_running_loop()
    accepted: asyncio.Queue[Peer] = asyncio.Queue()
    server = await loop.create_server(lambda: Peer(accepted.put_nowait), "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection("127.0.0.1", server.sockets[0].getsockname()[1])
    peer = await accepted.get()
    writer.write(b"x" * (2 * EARLY_MAX))
    with suppress(ConnectionError):
        assert await reader.read() == b""
    await asyncio.wait_for(peer.closed, 5)
    writer.transport.abort()
    server.close()


@on_both_loops
async def test_room_is_waited_for_until_the_far_side_reads(identity: Identity | None) -> None:
    async with stream(identity) as s:
        client = s.peers[0]
        for _ in range(128):
            client.write(b"x" * 65536)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.room(), 0.1)
        assert await digest(s.client[0], 8 * MIB)
        await asyncio.wait_for(client.room(), 5)


@on_both_loops
async def test_there_is_room_again_when_the_far_side_is_gone(identity: Identity | None) -> None:
    async with stream(identity) as s:
        client = s.peers[0]
        for _ in range(128):
            client.write(b"x" * 65536)
        s.client[1].transport.abort()
        await asyncio.wait_for(client.room(), 5)
