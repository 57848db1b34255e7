"""The joined streams: nothing is lost, nothing piles up, and it is known who ended the session."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from appliance.client.relay import Ending, Stream, join


async def stream_pair() -> tuple[Stream, Stream]:
    """Two ends of one connection."""
    near, far = socket.socketpair()
    return Stream(*await asyncio.open_connection(sock=near)), Stream(*await asyncio.open_connection(sock=far))


@pytest.fixture
async def ends() -> AsyncIterator[tuple[Stream, Stream, Stream, Stream]]:
    """The server, our end towards it, our end towards nxproxy, and nxproxy."""
    server, to_server = await stream_pair()
    to_local, local = await stream_pair()
    yield server, to_server, to_local, local
    for stream in (server, to_server, to_local, local):
        stream.writer.close()
        with suppress(OSError):
            await stream.writer.wait_closed()


async def test_all_bytes_arrive_both_ways_and_the_server_ends(
    ends: tuple[Stream, Stream, Stream, Stream],
) -> None:
    server, to_server, to_local, local = ends
    firsts: list[None] = []
    async with asyncio.TaskGroup() as group:
        joined = group.create_task(join(to_server, to_local, b"left over ", lambda: firsts.append(None)))
        server.writer.write(b"and the rest")
        local.writer.write(b"from nxproxy")
        assert await server.reader.readexactly(12) == b"from nxproxy"
        server.writer.close()
        assert await local.reader.read() == b"left over and the rest"
    assert joined.result() == Ending(by_server=True, error=None)
    assert firsts == [None]


async def test_what_nxproxy_said_last_reaches_the_server(ends: tuple[Stream, Stream, Stream, Stream]) -> None:
    server, to_server, to_local, local = ends
    async with asyncio.TaskGroup() as group:
        joined = group.create_task(join(to_server, to_local, b"", lambda: None))
        local.writer.write(b"x" * 300_000)
        local.writer.close()
        assert await server.reader.read() == b"x" * 300_000
    assert joined.result() == Ending(by_server=False, error=None)


async def test_a_server_that_ends_at_once(ends: tuple[Stream, Stream, Stream, Stream]) -> None:
    server, to_server, to_local, _ = ends
    server.writer.close()
    firsts: list[None] = []
    ending = await join(to_server, to_local, b"", lambda: firsts.append(None))
    assert ending == Ending(by_server=True, error=None)
    assert not firsts


async def test_a_slow_reader_stops_the_sender(ends: tuple[Stream, Stream, Stream, Stream]) -> None:
    server, to_server, to_local, local = ends
    total = 8 * 1024 * 1024
    async with asyncio.TaskGroup() as group:
        joined = group.create_task(join(to_server, to_local, b"", lambda: None))
        server.writer.write(b"y" * total)
        server.writer.close()
        for _ in range(200):
            await asyncio.sleep(0.001)
        waiting = server.writer.transport.get_write_buffer_size()
        assert waiting > total // 2, "a far side that reads nothing must leave the bytes with their sender"
        received = 0
        while data := await local.reader.read(65536):
            received += len(data)
    assert received == total
    assert joined.result().by_server


async def test_a_server_that_is_cut_off_is_at_fault(ends: tuple[Stream, Stream, Stream, Stream]) -> None:
    server, to_server, to_local, local = ends
    async with asyncio.TaskGroup() as group:
        joined = group.create_task(join(to_server, to_local, b"", lambda: None))
        local.writer.write(b"z" * 4_000_000)
        await asyncio.sleep(0.05)
        server.writer.transport.abort()  # with bytes unread: the other end sees a reset
    assert joined.result().by_server
    assert isinstance(joined.result().error, ConnectionError)


async def test_nxproxy_that_is_cut_off_ends_the_session(ends: tuple[Stream, Stream, Stream, Stream]) -> None:
    server, to_server, to_local, local = ends
    async with asyncio.TaskGroup() as group:
        joined = group.create_task(join(to_server, to_local, b"", lambda: None))
        server.writer.write(b"z" * 4_000_000)
        await asyncio.sleep(0.05)
        local.writer.transport.abort()
    assert not joined.result().by_server
