"""Where clients arrive: accepts them, counts them, shakes hands, and has each served by a task of its own.

A connection is counted from its acceptance until it is closed, its handshake included (`gate`). Each
handshake uses the certificate of its moment, so that another one disturbs nobody who is connected.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeAlias

from appliance import config
from appliance.clock import Timers
from appliance.config import Settings
from appliance.l7r.forwarder import LINGER_S, Peer
from appliance.l7r.gate import Bounds, Gate, Place
from appliance.l7r.listening import Claim
from appliance.log import facts

logger = logging.getLogger(__name__)

HANDSHAKE_S = 120.0
"""Clients show an unknown certificate to their user in the middle of the handshake."""
ACCEPT_AGAIN_S = 1.0
TELL_AGAIN_S = 60.0
"""Pause between log lines about clients turned away: whoever floods the port must not flood the log."""

Serve: TypeAlias = Callable[[Peer, Place], Awaitable[None]]


class Reception:
    """The open port and all who have come through it."""

    def __init__(
        self, serve: Serve, settings: Callable[[], Settings], clock: Timers, tasks: asyncio.TaskGroup
    ) -> None:
        self._serve = serve
        self._clock = clock
        self._tasks = tasks
        self._gate = Gate(lambda: bounds(settings()))
        self._claim: Claim | None = None
        self._accepting: set[asyncio.Task[None]] = set()
        self._visits: set[asyncio.Task[None]] = set()
        self._turned_away = 0
        self._told_at: float | None = None
        self.tls: ssl.SSLContext | None = None
        """For the handshakes to come; None: clients speak in clear."""

    @property
    def claim(self) -> Claim | None:
        """Where clients are accepted."""
        return self._claim

    def open(self, claim: Claim) -> None:
        """Accept clients at `claim`, whose sockets are ours from now on.

        :raises NetworkError: somebody else listens there
        """
        claim.listen()
        self._claim = claim
        for each in claim.sockets:
            self._begin(self._accept(each), f"accept {each.getsockname()[0]}", self._accepting)

    async def shut(self) -> None:
        """Accept nobody any more; who is in stays."""
        await _ended(self._accepting)
        if self._claim is not None:
            self._claim.close()
            self._claim = None

    async def close(self) -> None:
        """Accept nobody any more, and end whoever is in."""
        await self.shut()
        await _ended(self._visits)

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                accepted, where = await loop.sock_accept(listener)
            except ConnectionError:
                continue  # the client has left already
            except OSError as exc:  # no descriptors or no memory are left: that passes
                logger.warning("no client can be accepted", extra=facts(reason=exc.strerror or exc))
                await self._clock.sleep(ACCEPT_AGAIN_S)
                continue
            address = str(where[0])
            place = self._gate.enter(address)
            if isinstance(place, Place):
                self._begin(self._visit(accepted, place), f"client {address}", self._visits)
            else:
                accepted.close()
                self._tell_turned_away(address, place)

    async def _visit(self, accepted: socket.socket, place: Place) -> None:
        client = Peer()
        try:
            if await self._shake_hands(accepted, client):
                await self._serve(client, place)
        except Exception:
            logger.exception("the connection failed", extra=facts(client=client.address))
        finally:
            client.finish()
            if client.connected:
                client.closed.add_done_callback(lambda _: place.leave())
            else:
                accepted.close()
                place.leave()

    async def _shake_hands(self, accepted: socket.socket, client: Peer) -> bool:
        """Make `client` the far side of a connection; whether it came to that."""
        tls = self.tls
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: client,
                accepted,
                ssl=tls,
                ssl_handshake_timeout=HANDSHAKE_S if tls else None,
                ssl_shutdown_timeout=LINGER_S if tls else None,
            )
        except OSError as exc:
            logger.debug("no handshake", extra=facts(reason=exc))
            return False
        return True

    def _tell_turned_away(self, address: str, reason: str) -> None:
        self._turned_away += 1
        now = self._clock.monotonic()
        if self._told_at is None or now - self._told_at >= TELL_AGAIN_S:
            count = self._turned_away
            logger.warning("client turned away", extra=facts(client=address, reason=reason, clients=count))
            self._told_at, self._turned_away = now, 0

    def _begin(self, work: Coroutine[Any, Any, None], name: str, among: set[asyncio.Task[None]]) -> None:
        task = self._tasks.create_task(work, name=name)
        among.add(task)
        task.add_done_callback(among.discard)


def bounds(settings: Settings) -> Bounds:
    """How many connections the settings allow."""
    return Bounds(
        connections=settings[config.L7R_MAX_CONNECTIONS],
        per_address=settings[config.L7R_MAX_PER_ADDRESS],
        strangers_per_address=settings[config.L7R_MAX_STRANGERS],
    )


async def _ended(tasks: set[asyncio.Task[None]]) -> None:
    ending = set(tasks)
    for task in ending:
        task.cancel()
    if ending:
        await asyncio.wait(ending)
