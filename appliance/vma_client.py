"""The host's end of the VMA RPC (protocol.md 3): one fresh connection per call, one reply, then close.

A real QVD VMA keeps the connection of `x_start` open for the whole session and writes a second reply there
that nobody asked for; so a reply ends where its `Content-Length` says and the connection is of no further
use. Proxies named in the environment never apply.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

from appliance.errors import VmaRefusedError, VmaUnreachableError
from appliance.vma import wire
from appliance.vma.wire import XState

_log = logging.getLogger(__name__)


class VmaClient:
    """Calls the VMA of one guest. Every method raises VmaUnreachableError or VmaRefusedError."""

    def __init__(self, address: str, port: int = wire.PORT, *, timeout_s: float = 4.0) -> None:
        self._address, self._port, self._timeout_s = address, port, timeout_s

    def __repr__(self) -> str:
        return f"VmaClient({self._address}:{self._port})"

    async def ping(self) -> None:
        """Whether the guest is alive: returns if it is."""
        await self._call(wire.PING)

    async def x_state(self) -> XState:
        return self._state(wire.X_STATE, await self._call(wire.X_STATE))

    async def x_start(self, params: Mapping[str, str]) -> None:
        """Order a session, new or resumed; that it listens is learnt from `x_state`.

        All five of `qvd.client.{keyboard,os,link,geometry,fullscreen}` must be there for a real QVD VMA.
        """
        if not await self._call(wire.X_START, params):
            raise VmaRefusedError(f"VMA {self._address}: x_start was answered without a promise")

    async def x_suspend(self) -> XState:
        """Suspend the session. A suspend that was begun is answered `starting`, as QVD does."""
        return self._state(wire.X_SUSPEND, await self._call(wire.X_SUSPEND))

    async def x_stop(self) -> XState:
        return self._state(wire.X_STOP, await self._call(wire.X_STOP))

    async def poweroff(self) -> None:
        """Order the guest off; only its departure tells that it obeyed.

        A real QVD VMA reports a failure after it has begun, which looks like a hook's refusal: either way the
        caller waits for the departure until its own time is up.
        """
        reply = await self._exchange(wire.POWEROFF, {})
        try:
            self._value(wire.POWEROFF, reply)
        except VmaRefusedError as exc:
            if reply.status != 200:
                raise
            _log.warning("%s", exc)

    async def expire(self, soft: str | None, hard: str | None) -> None:
        """Tell the guest's user that the desktop is due for a restart."""
        dates = {wire.EXPIRATION_SOFT: soft, wire.EXPIRATION_HARD: hard}
        await self._call(wire.EXPIRE, {name: date for name, date in dates.items() if date is not None})

    def _state(self, method: str, value: Any) -> XState:
        try:
            return XState(value)
        except ValueError:
            raise VmaRefusedError(
                f"VMA {self._address}: {method} answered {str(value)[:40]!r}, which is no X state"
            ) from None

    async def _call(self, method: str, params: Mapping[str, str] | None = None) -> Any:
        return self._value(method, await self._exchange(method, params or {}))

    def _value(self, method: str, reply: wire.Reply) -> Any:
        try:
            return reply.value()
        except wire.CallFailed as exc:
            raise VmaRefusedError(f"VMA {self._address}: {method} failed: {exc}") from exc
        except wire.ReplyError as exc:
            raise VmaUnreachableError(f"VMA {self._address}: {method}: {exc}") from exc

    async def _exchange(self, method: str, params: Mapping[str, str]) -> wire.Reply:
        where = f"VMA {self._address}:{self._port}: {method}"
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._dialogue(method, params)
        except TimeoutError as exc:
            raise VmaUnreachableError(f"{where}: no answer within {self._timeout_s:g} s") from exc
        except OSError as exc:
            raise VmaUnreachableError(f"{where}: {exc.strerror or exc}") from exc
        except wire.ReplyError as exc:
            raise VmaUnreachableError(f"{where}: {exc}") from exc

    async def _dialogue(self, method: str, params: Mapping[str, str]) -> wire.Reply:
        reader, writer = await asyncio.open_connection(self._address, self._port)
        try:
            writer.write(wire.encode_call(method, params))
            parser = wire.ReplyParser()
            while data := await reader.read(16 * 1024):
                reply = parser.feed(data)
                if reply is not None:
                    return reply
            raise wire.ReplyError("the connection was closed before the answer")
        finally:
            writer.transport.abort()  # a second reply may be on its way; nobody waits for it
