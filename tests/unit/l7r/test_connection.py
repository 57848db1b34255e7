"""A conversation goes at the pace of the client that reads it."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import cast

import pytest

from appliance.config import Settings
from appliance.l7r.connection import Connection
from appliance.l7r.forwarder import Peer
from appliance.l7r.gate import Bounds, Gate, Place
from appliance.l7r.services import Services

SERVICES = cast("Services", SimpleNamespace(settings=lambda: Settings({})))


async def test_a_client_that_does_not_read_is_not_answered_on_and_on() -> None:
    accepted: asyncio.Queue[Peer] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Peer(accepted.put_nowait), "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    peer = await accepted.get()
    place = Gate(lambda: Bounds(connections=1, per_address=1, strangers_per_address=1)).enter("127.0.0.1")
    assert isinstance(place, Place)
    peer.pause_writing()
    serving = asyncio.create_task(Connection(SERVICES, peer, place).serve())
    writer.write(b"GET /nothing HTTP/1.1\r\n\r\n" * 2)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.read(1), 0.1)
    peer.resume_writing()
    for _ in range(2):
        assert (await reader.readuntil(b"name\r\n")).startswith(b"HTTP/1.1 404 ")
    writer.close()
    await asyncio.wait_for(serving, 5)
    peer.finish()
    server.close()
