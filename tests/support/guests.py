"""A guest on loopback: a VMA that speaks the real wire, and an nxagent that echoes what it receives.

The X session follows protocol.md 4.5 closely enough for a broker to go wrong with it: it listens only after
`x_start`, a connection at any other time is a fault, and a lost client takes a moment to be noticed.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from contextlib import suppress
from typing import Self

from appliance.vma import wire
from appliance.vma.wire import XState


class Guest:
    """One guest with ports of its own on 127.0.0.1."""

    def __init__(self) -> None:
        self.state = XState.STOPPED
        self.starts_with: Mapping[str, str] = {}
        self.calls: list[str] = []
        self.refuse_starts = 0
        """How many calls of `x_start` fail in the VMA's own words."""
        self.never_listens = False
        self.provisioning_looks = 0
        """How many calls of `x_state` answer `provisioning` before X listens."""
        self.settle_s = 0.0
        """How long nxagent takes to notice that its client is gone."""
        self.greeting = b""
        self.connections = 0
        self.connected = 0
        self.most_connected = 0
        self.strays = 0
        """Connections to nxagent while it was not listening: probes, or a second client."""
        self.received = bytearray()
        self.writer: asyncio.StreamWriter | None = None
        self._servers: list[asyncio.Server] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        for serve in (self._vma, self._nxagent):
            self._servers.append(await asyncio.start_server(serve, "127.0.0.1", 0))
        return self

    async def __aexit__(self, *exc: object) -> None:
        for server in self._servers:
            server.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    @property
    def vma_port(self) -> int:
        return int(self._servers[0].sockets[0].getsockname()[1])

    @property
    def x_port(self) -> int:
        return int(self._servers[1].sockets[0].getsockname()[1])

    async def listen_at(self, sock: socket.socket) -> None:
        """Be reached as nxagent at one more port."""
        self._servers.append(await asyncio.start_server(self._nxagent, sock=sock))

    def hang_up(self) -> None:
        """End the NX connection from the guest's side."""
        assert self.writer is not None
        self.writer.close()

    async def _vma(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._adopt()
        parser = wire.RequestParser()
        try:
            with suppress(OSError):
                while data := await reader.read(65536):
                    for request in parser.feed(data):
                        writer.write(self._answer(request))
        finally:
            await _close(writer)

    def _answer(self, request: wire.Request) -> bytes:
        self.calls.append(request.call or request.path)
        match request.call:
            case wire.X_STATE:
                return wire.success(str(self._look()))
            case wire.X_START:
                return self._start(request.params)
            case wire.PING:
                return wire.success(None)
        return wire.refusal(404)

    def _look(self) -> XState:
        seen = self.state
        if seen is XState.STARTING and not self.never_listens:
            self.state = XState.LISTENING
        if seen is XState.LISTENING and self.provisioning_looks:
            self.provisioning_looks -= 1
            return XState.PROVISIONING
        return seen

    def _start(self, params: Mapping[str, str]) -> bytes:
        if self.refuse_starts:
            self.refuse_starts -= 1
            return wire.failure("try again")
        if self.state not in (XState.STOPPED, XState.SUSPENDED):
            return wire.failure(f"cannot start from {self.state}")
        self.starts_with = dict(params)
        self.state = XState.STARTING
        return wire.success("starting")

    async def _nxagent(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._adopt()
        if self.state is not XState.LISTENING:
            self.strays += 1
            await _close(writer)
            return
        self.state = XState.CONNECTED
        self.connections += 1
        self.connected += 1
        self.most_connected = max(self.most_connected, self.connected)
        self.writer = writer
        try:
            with suppress(OSError):
                writer.write(self.greeting)
                while data := await reader.read(65536):
                    self.received += data
                    writer.write(data)
                    await writer.drain()
        finally:
            self.connected -= 1
            await _close(writer)
            self.state = XState.SUSPENDING
            await asyncio.sleep(self.settle_s)
            self.state = XState.SUSPENDED

    def _adopt(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()
