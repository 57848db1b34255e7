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
        down = group.create_task(_down(server, local, leftover, first_bytes), name="server to nxproxy")
        up = group.create_task(_up(local, server), name="nxproxy to server")
        await asyncio.wait((down, up), return_when=asyncio.FIRST_COMPLETED)
        ending = down.result() if down.done() else up.result()
        for task in (down, up):
            task.cancel()
    target = local.writer if ending.by_server else server.writer
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(FLUSH_TIMEOUT_S):
            target.close()
            await target.wait_closed()
    return ending


async def _down(server: Stream, local: Stream, leftover: bytes, first_bytes: Callable[[], None]) -> Ending:
    data = leftover
    try:
        data = data or await server.reader.read(CHUNK)
    except OSError as exc:
        return Ending(by_server=True, error=exc)
    if not data:
        return Ending(by_server=True, error=None)
    first_bytes()
    by_reader, error = await _copy(data, server.reader, local.writer)
    return Ending(by_server=by_reader, error=error)


async def _up(local: Stream, server: Stream) -> Ending:
    by_reader, error = await _copy(b"", local.reader, server.writer)
    return Ending(by_server=not by_reader, error=error)


async def _copy(
    data: bytes, source: asyncio.StreamReader, target: asyncio.StreamWriter
) -> tuple[bool, OSError | None]:
    """Copy `data` and what follows it; whether the source ended it (else the target), and with what error."""
    while True:
        try:
            target.write(data)
            await target.drain()
        except OSError as exc:
            return False, exc
        try:
            data = await source.read(CHUNK)
        except OSError as exc:
            return True, exc
        if not data:
            return True, None
