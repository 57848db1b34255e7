"""The TLS connection to the server: opens it, asks, and gives back events."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from appliance.client.certificate import untrusted
from appliance.client.failures import ConnectionFailedError, RefusedError
from appliance.client.wire import Event, ReplyReader

OPEN_TIMEOUT_S = 15.0
CLOSE_TIMEOUT_S = 3.0
LIST_TIMEOUT_S = 60.0
SILENCE_TIMEOUT_S = 330.0
"""Longer than a server may be silent: it waits up to 270 s for a desktop to start (protocol.md 1.7)."""
CHUNK = 64 * 1024


class Connection:
    """One connection; after `Switched`, `reader` and `writer` carry NX bytes."""

    def __init__(self, peer: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._peer = peer
        self._replies = ReplyReader()
        self._pending: deque[Event] = deque()
        self.reader = reader
        self.writer = writer

    async def send(self, request: bytes) -> None:
        """Send one request.

        :raises ConnectionFailedError: the connection broke
        """
        self.writer.write(request)
        with self._broken_is_failure():
            await self.writer.drain()

    async def event(self, silence_s: float = SILENCE_TIMEOUT_S) -> Event:
        """What the server says next.

        :raises RefusedError: not a byte for `silence_s`
        :raises ConnectionFailedError: the connection ended or broke, or what came makes no sense
        """
        while not self._pending:
            with self._broken_is_failure():
                try:
                    async with asyncio.timeout(silence_s):
                        data = await self.reader.read(CHUNK)
                except TimeoutError as exc:
                    message = f"{self._peer} said nothing for {silence_s:g} s"
                    raise RefusedError(message, hint="try again") from exc
            if not data:
                raise ConnectionFailedError(f"{self._peer} closed the connection before it answered")
            self._pending.extend(self._replies.feed(data))
        return self._pending.popleft()

    @contextmanager
    def _broken_is_failure(self) -> Iterator[None]:
        try:
            yield
        except OSError as exc:
            raise ConnectionFailedError(f"the connection to {self._peer} broke: {_reason(exc)}") from exc

    async def close(self) -> None:
        """End the connection, without waiting long for a peer that does not."""
        self.writer.close()
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await self.writer.wait_closed()


async def connect(host: str, port: int, context: ssl.SSLContext) -> Connection:
    """A TLS connection to the server.

    :raises CertificateError: the server could not prove who it is
    :raises ConnectionFailedError: it cannot be reached, or does not speak TLS
    """
    peer = f"{host}:{port}"
    try:
        async with asyncio.timeout(OPEN_TIMEOUT_S):
            reader, writer = await asyncio.open_connection(host, port, ssl=context, server_hostname=host)
    except TimeoutError as exc:
        raise ConnectionFailedError(f"{peer} did not answer within {OPEN_TIMEOUT_S:g} s") from exc
    except ssl.SSLCertVerificationError as exc:
        raise untrusted(host, exc) from exc
    except ssl.SSLError as exc:
        raise ConnectionFailedError(
            f"{peer} does not speak TLS as we do: {_reason(exc)}", hint="is it the right port?"
        ) from exc
    except OSError as exc:
        raise ConnectionFailedError(f"cannot reach {peer}: {_reason(exc)}") from exc
    return Connection(peer, reader, writer)


def _reason(exc: OSError) -> str:
    """The cause in one clause, without asyncio's lists of attempts."""
    if isinstance(exc, ssl.SSLError):
        return (exc.reason or "handshake failed").replace("_", " ").lower()
    if exc.errno is not None and exc.errno > 0:
        return os.strerror(exc.errno)
    return exc.strerror or str(exc) or "unknown cause"
