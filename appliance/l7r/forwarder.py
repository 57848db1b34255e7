"""The two ends of a session, and the stream between them: bytes both ways, flow control, a tally.

A `Peer` is first read from, piece by piece; once joined with another, what it receives goes straight to
the other's transport. Nothing is held without a bound: before the join a peer may send `EARLY_MAX` bytes,
after it a side that cannot write stops the other from reading. When one side ends, what is under way is
delivered to the other, within `LINGER_S`, and both are closed. Of a side that is not being read nobody hears
that it has ended; so meanwhile the kernel is asked, every `LOOK_S`.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import cast

EARLY_MAX = 128 * 1024
HIGH_WATER = 256 * 1024
LINGER_S = 30.0
LOOK_S = 1.0
TCP_ESTABLISHED = 1
"""The first byte of `TCP_INFO` while neither end has closed."""
KEEP_ALIVE = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 20),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 6),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 180_000),
)
"""An end whose machine has vanished, or that takes nothing, is given up after three minutes."""


class Peer(asyncio.Protocol):
    """One end of a session."""

    def __init__(self, opened: Callable[[Peer], None] | None = None) -> None:
        loop = asyncio.get_running_loop()
        self._loop = loop
        self._opened = opened
        self._transport: asyncio.Transport | None = None
        self._other: Peer | None = None
        self._early = bytearray()
        self._reader: asyncio.Future[None] | None = None
        self._roomy = asyncio.Event()
        self._roomy.set()
        self._finishing = False
        self._look: asyncio.TimerHandle | None = None
        self.closed: asyncio.Future[None] = loop.create_future()
        """Done once the connection is gone."""
        self.ended = False
        """Whether nothing more will be received."""
        self.on_end: Callable[[], None] | None = None
        """Called when nothing more will be received, unless the peer is joined."""
        self.ended_first = False
        """Whether this end of a joined pair was the first to end."""
        self.received = 0

    # -- for the one who talks with the peer

    @property
    def connected(self) -> bool:
        """Whether there has been a connection."""
        return self._transport is not None

    @property
    def address(self) -> str:
        """The IP address of the far side."""
        name = self._transport.get_extra_info("peername") if self._transport is not None else None
        return str(name[0]) if name else "unknown"

    async def read(self) -> bytes:
        """The next bytes; empty at the end. One reader at a time."""
        while not self._early and not self.ended:
            self._reader = self._loop.create_future()
            await self._reader
        return self.take_early()

    def take_early(self) -> bytes:
        """What has come and was not read, without waiting."""
        early = bytes(self._early)
        self._early.clear()
        return early

    def write(self, data: bytes) -> None:
        """Send; what is sent to an end that is closing is lost."""
        if data and self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    async def room(self) -> None:
        """Wait until so much of what was written is on its way that more may be written."""
        await self._roomy.wait()

    def finish(self) -> None:
        """Deliver what was written, for at most `LINGER_S`, and close."""
        if self._transport is None or self._finishing:
            return
        self._finishing = True
        if not self._transport.is_closing():  # a second close() breaks the TLS transport of Python 3.11
            self._transport.close()
        timer = self._loop.call_later(LINGER_S, self.abort)
        self.closed.add_done_callback(lambda _: timer.cancel())

    def abort(self) -> None:
        """Close at once; what was not sent yet is lost."""
        if self._transport is not None and not self.closed.done():
            self._transport.abort()

    # -- asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=HIGH_WATER)
        link: socket.socket | None = transport.get_extra_info("socket")
        if link is not None:
            link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for level, option, value in KEEP_ALIVE:
                link.setsockopt(level, option, value)
        if self._opened is not None:
            self._opened(self)

    def data_received(self, data: bytes) -> None:
        self.received += len(data)
        if self._other is not None:
            self._other.write(data)
        elif len(self._early) + len(data) > EARLY_MAX:
            self.abort()
        else:
            self._early += data
            self._wake_reader()

    def eof_received(self) -> None:
        self._end()

    def connection_lost(self, exc: Exception | None) -> None:
        self._look_no_more()
        self._roomy.set()
        self._end()
        if not self.closed.done():
            self.closed.set_result(None)

    def pause_writing(self) -> None:
        self._roomy.clear()
        if self._other is not None:
            self._other._stop_reading()

    def resume_writing(self) -> None:
        self._roomy.set()
        if self._other is not None:
            self._other._go_on_reading()

    # -- joined

    def _join(self, other: Peer) -> None:
        self._other = other
        self.on_end = None
        if not other._roomy.is_set():
            self._stop_reading()
        early = self.take_early()
        if early:
            other.write(early)
        if self.ended:
            self.ended_first = not other.ended
            other.finish()

    def _stop_reading(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()
            self._look_no_more()
            self._look = self._loop.call_later(LOOK_S, self._look_whether_ended)

    def _look_whether_ended(self) -> None:
        """While nothing is read: has the far side ended? Then what it said has `LINGER_S` to be delivered."""
        if self._transport is None or self._transport.is_closing():
            return
        link = self._transport.get_extra_info("socket")
        if link.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == TCP_ESTABLISHED:
            self._look = self._loop.call_later(LOOK_S, self._look_whether_ended)
        else:
            self._look = self._loop.call_later(LINGER_S, self._give_up)

    def _give_up(self) -> None:
        self._end()
        self.abort()
        if self._other is not None:
            self._other.abort()

    def _look_no_more(self) -> None:
        if self._look is not None:
            self._look.cancel()
            self._look = None

    def _go_on_reading(self) -> None:
        self._look_no_more()
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def _end(self) -> None:
        if self.ended:
            return
        self.ended = True
        self._wake_reader()
        if self._other is not None:
            self.ended_first = not self._other.ended
            self._other.finish()
            self.finish()
        elif self.on_end is not None:
            self.on_end()

    def _wake_reader(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)


async def dial(address: str, port: int) -> Peer:
    """Open a connection to a guest.

    :raises OSError: it cannot be reached
    """
    loop = asyncio.get_running_loop()
    _, peer = await loop.create_connection(Peer, address, port)
    return peer


async def forward(client: Peer, guest: Peer, leftover: bytes = b"") -> str:
    """Carry bytes both ways until both ends are closed; says who ended it.

    `leftover` goes to the guest first. Cancelling cuts both ends at once.
    """
    try:
        guest.write(leftover)
        client._join(guest)
        guest._join(client)
        await asyncio.wait({client.closed, guest.closed}, return_when=asyncio.ALL_COMPLETED)
        return "the client left" if client.ended_first else "the desktop ended the session"
    finally:
        client.abort()
        guest.abort()
