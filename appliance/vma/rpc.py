"""The RPC server: sockets in, requests out to whoever answers them.

It answers the host and nobody else: a connection from any other address, loopback included, is closed
unread, so that nobody inside the guest can give orders to root. Heads, connections and idle times are
bounded.
"""

from __future__ import annotations

import contextlib
import socket
from functools import partial
from typing import Callable, Dict, Optional, Sequence, Set

from appliance.vma.files import say
from appliance.vma.loop import Loop, Timer, now
from appliance.vma.wire import HeadError, Request, RequestParser, refusal

MAX_CONNECTIONS = 32
IDLE_S = 120.0
SEND_BUFFER = 128 * 1024  # the largest reply, the end of the logs, is half of that
ROUTES = "/proc/net/route"

Answer = Callable[[bytes], None]
Serve = Callable[[Request, Answer], None]


class Once:
    """An answer that is given once: whoever comes later is not heard."""

    def __init__(self, answer: Answer) -> None:
        self._answer: Optional[Answer] = answer

    def __call__(self, data: bytes) -> None:
        answer, self._answer = self._answer, None
        if answer is not None:
            answer(data)


def gateways(routes: str) -> Set[str]:
    """The default gateways in the text of /proc/net/route."""
    found = set()
    for line in routes.splitlines()[1:]:
        fields = line.split()
        if len(fields) > 7 and fields[1] == "00000000" and fields[7] == "00000000" and int(fields[3], 16) & 2:
            found.add(socket.inet_ntoa(int(fields[2], 16).to_bytes(4, "little")))
    return found


def may_call(address: str, allow: Sequence[str], routes: str = ROUTES) -> bool:
    """Whether this peer is the host: one of `allow`, or else the default gateway of this moment."""
    if allow:
        return address in allow
    with contextlib.suppress(OSError, ValueError), open(routes, encoding="ascii") as file:
        return address in gateways(file.read())
    return False


class Server:
    """Accepts on a listening socket and hands each request to `serve`, one at a time per connection."""

    def __init__(self, loop: Loop, listener: socket.socket, allow: Sequence[str], serve: Serve) -> None:
        self._loop, self._listener, self._allow, self._serve = loop, listener, allow, serve
        self._connections: Dict[int, _Connection] = {}
        self._refused: Set[str] = set()
        listener.setblocking(False)
        loop.on_read(listener, self._accept)

    def _accept(self) -> None:
        try:
            sock, (address, _) = self._listener.accept()
        except OSError:
            return
        if not may_call(address, self._allow):
            sock.close()
            if address not in self._refused and len(self._refused) < MAX_CONNECTIONS:
                self._refused.add(address)
                say(f"connections from {address} are refused: it is not the host (vma.rpc.allow)")
            return
        if len(self._connections) >= MAX_CONNECTIONS:
            min(self._connections.values(), key=lambda connection: connection.heard_at).close()
        self._connections[sock.fileno()] = _Connection(self._loop, sock, self._serve, self._connections)


class _Connection:
    def __init__(self, loop: Loop, sock: socket.socket, serve: Serve, others: Dict[int, _Connection]) -> None:
        self._loop, self._sock, self._serve, self._others = loop, sock, serve, others
        self._parser = RequestParser()
        self._waiting: list[Request] = []
        self._busy = False
        self._last: Optional[HeadError] = None
        self.heard_at = now()
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        loop.on_read(sock, self._readable)
        self._idle: Timer = loop.after(IDLE_S, self.close)

    def close(self) -> None:
        if self._sock.fileno() >= 0:
            self._idle.cancel()
            self._loop.forget(self._sock)
            del self._others[self._sock.fileno()]
            self._sock.close()

    def _readable(self) -> None:
        try:
            data = self._sock.recv(64 * 1024)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data or len(self._waiting) > 16:
            self.close()
            return
        self.heard_at = now()
        self._idle.cancel()
        self._idle = self._loop.after(IDLE_S, self.close)
        try:
            self._waiting.extend(self._parser.feed(data))
        except HeadError as exc:
            self._last = exc
        self._next()

    def _next(self) -> None:
        """Serve the oldest request; the one after it waits for its answer."""
        if self._busy or self._sock.fileno() < 0:
            return
        if self._waiting:
            request = self._waiting.pop(0)
            self._busy = True
            self._serve(request, partial(self._answer, request.announces_body))
        elif self._last is not None:
            self._send(refusal(self._last.status))
            self.close()

    def _answer(self, close: bool, data: bytes) -> None:
        if self._sock.fileno() < 0:
            return
        self._busy = False
        self._send(data)
        if close:
            self.close()
        elif self._waiting or self._last is not None:
            self._loop.after(0, self._next)

    def _send(self, data: bytes) -> None:
        """Replies are far smaller than a socket's buffer: a peer that takes none of it is not served on."""
        try:
            sent = self._sock.send(data)
        except OSError:
            sent = 0
        if sent != len(data):
            self.close()
