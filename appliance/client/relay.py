"""Joins two byte streams until one of them ends, with back-pressure and without an unbounded buffer."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass

CHUNK = 64 * 1024
FLUSH_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Stream:
    """One end of a connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


@dataclass(frozen=True, slots=True)
class Ending:
    """Which side ended the session, and the error if it was not in good order."""

    by_server: bool
    error: OSError | None


async def join(server: Stream, local: Stream, leftover: bytes, first_bytes: Callable[[], None]) -> Ending:
    """Carry bytes both ways; `leftover` came from the server already.

    What one side sent before it ended still reaches the other. `first_bytes` is called when the server's
    first bytes are there.
    """
    async with asyncio.TaskGroup() as group:
        down = group.create_task(_from_server(server, local, leftover, first_bytes), name="server to nxproxy")
        up = group.create_task(_copy(local.reader, server.writer), name="nxproxy to server")
        await asyncio.wait((down, up), return_when=asyncio.FIRST_COMPLETED)
        by_server = down.done()
        for task in (down, up):
            task.cancel()
    target = local.writer if by_server else server.writer
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(FLUSH_TIMEOUT_S):
            target.close()
            await target.wait_closed()
    ended = down if by_server else up
    return Ending(by_server, ended.result())


async def _from_server(
    server: Stream, local: Stream, leftover: bytes, first_bytes: Callable[[], None]
) -> OSError | None:
    try:
        data = leftover or await server.reader.read(CHUNK)
        if data:
            first_bytes()
            local.writer.write(data)
            await local.writer.drain()
    except OSError as exc:
        return exc
    return await _copy(server.reader, local.writer) if data else None


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> OSError | None:
    """Copy until `source` ends; the error that ended it early, if any."""
    try:
        while data := await source.read(CHUNK):
            target.write(data)
            await target.drain()
    except OSError as exc:
        return exc
    return None
