"""Pixmaps that keep nxagent from resuming with its windows in the wrong order.

For a new client nxagent creates all windows anew, the topmost of each family first, so that they are upside
down, and then puts each below the sibling it belongs under; but it leaves out a window whose sibling has the
same number as at the last client (nx-libs 3.5.99.26, Window.c: `siblingAbove`). An idle desktop often gives
its windows the same numbers again, and then a window manager's empty frame hides its program for good: 4 of
73 takeovers showed a black window, and none of 320 with such pixmaps. They are created before the windows
and so move their numbers; the VMA holds some for every other client.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from typing import Optional, Tuple

from appliance.vma.loop import Loop

PIXMAPS = 101  # far more than the handful of resources by which an idle desktop differs between two clients
_MAX_SETUP = 1 << 18
CREATE_PIXMAP, FREE_PIXMAP = 53, 54
HELLO = struct.pack("<BxHHHHxx", ord("l"), 11, 0, 0, 0)


def setup(data: bytes) -> Optional[Tuple[int, int]]:
    """Our first number and the root window, from what the X server says first; None if more of it is to come.

    Raises ValueError if it refuses us, or is none (X Window System Protocol, chapter 8).
    """
    if len(data) < 8:
        return None
    accepted, words = struct.unpack_from("<B5xH", data)
    size = 8 + 4 * words
    if accepted != 1 or not 40 < size <= _MAX_SETUP:
        raise ValueError("no X server, or one that refuses us")
    if len(data) < size:
        return None
    vendor, formats = struct.unpack_from("<24xH3xB", data)
    screens = 40 + (vendor + 3) // 4 * 4 + 8 * formats
    if screens + 4 > size:
        raise ValueError("an X server without a screen")
    return struct.unpack_from("<I", data, 12)[0], struct.unpack_from("<I", data, screens)[0]


class Ballast:
    """A client of the session's X server, or none. Belongs to the VMA's loop.

    Without it a resume is as good as without this module: whatever goes wrong ends it quietly.
    """

    def __init__(self, loop: Loop, path: str) -> None:
        """`path`: the X server's socket."""
        self._loop, self._path = loop, path
        self._socket: Optional[socket.socket] = None
        self._greeting = b""
        self._held = False
        self.own: Optional[Tuple[int, int]] = None
        """The first number of ours and the root window, while the server has us for a client."""

    @property
    def connected(self) -> bool:
        """Whether there is a line to the X server."""
        return self._socket is not None

    def shift(self) -> None:
        """A client has come; for the next one hold the pixmaps, or let them go if they are held."""
        if self._socket is None:
            self._connect()
        elif self.own is not None:
            self._change(self._socket, *self.own)

    def drop(self) -> None:
        """The session is over."""
        if self._socket is not None:
            self._loop.forget(self._socket)
            self._socket.close()
        self._socket, self.own, self._greeting, self._held = None, None, b"", False

    def _connect(self) -> None:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            sock.connect(self._path)
            sock.sendall(HELLO)
        except OSError:
            sock.close()
            return
        self._socket = sock
        self._loop.on_read(sock, lambda: self._read(sock))

    def _read(self, sock: socket.socket) -> None:
        data = b""
        with contextlib.suppress(OSError):
            data = sock.recv(65536)
        if not data:
            self.drop()
        elif self.own is None:
            self._greeting += data
            try:
                self.own = setup(self._greeting)
            except ValueError:
                self.drop()
                return
            if self.own is not None:
                self._change(sock, *self.own)

    def _change(self, sock: socket.socket, first: int, root: int) -> None:
        numbers = range(first, first + PIXMAPS)
        if self._held:
            requests = b"".join(struct.pack("<BxHI", FREE_PIXMAP, 2, number) for number in numbers)
        else:
            requests = b"".join(
                struct.pack("<BBHIIHH", CREATE_PIXMAP, 1, 4, number, root, 1, 1) for number in numbers
            )
        try:
            sock.sendall(requests)
            self._held = not self._held
        except OSError:
            self.drop()
