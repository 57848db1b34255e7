"""The control socket: streams between the daemon and the tools of its administrator.

The database is the truth; what does not belong in it (the bytes of a console, progress, samples)
goes over one Unix socket by path. A client connects, says in its first frame what it wants, and the
handler registered under that name has the stream until one of the two ends it. Who connects is known
from the kernel (SO_PEERCRED): root and the daemon's own user are let in.

The daemon never waits for a client: `offer` puts a frame into a bounded backlog, and a client that
lets it fill up loses its stream with a frame that says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
import stat
import struct
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeAlias

from appliance.control_frames import Frame, FrameDecoder, FrameError, FrameKind, encode, encode_error
from appliance.errors import AdminError, ApplianceError, ConfigError, DaemonDownError, HostError, UsageError
from appliance.log import facts

logger = logging.getLogger(__name__)

BACKLOG_BYTES = 262_144
"""How much may wait in the daemon for one client that does not read."""
MAX_STREAMS = 256
REQUEST_S = 5.0
"""How long a client may take to say what it wants."""
FLUSH_S = 2.0
"""How long a client may take to read the last frames."""
READ_BYTES = 65_536

START_HINT = "start it with: systemctl start qvd-appliance"


@dataclass(frozen=True, slots=True)
class Peer:
    """The process at the other end, as the kernel knows it."""

    pid: int
    uid: int

    def is_admitted(self, own_uid: int) -> bool:
        """Whether a daemon of the user `own_uid` serves this peer."""
        return self.uid in {0, own_uid}


class Stream:
    """One conversation over the control socket, from either end."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._decoder = FrameDecoder()
        self._received: deque[Frame] = deque()
        self._ended = False
        self.peer = _peer(writer.get_extra_info("socket"))
        self.farewell: str | None = None
        """Why the other end has ended the stream in good order; None if it just went away."""

    def offer(self, kind: FrameKind, payload: bytes | Mapping[str, object]) -> bool:
        """Queue a frame without ever waiting; false if the stream has ended.

        A peer that has let its backlog fill up is cut off here.
        """
        if self._ended:
            return False
        if self._writer.transport.get_write_buffer_size() > BACKLOG_BYTES:
            logger.warning("a client of the control socket does not keep up", extra=facts(pid=self.peer.pid))
            self.fail(AdminError("this view was ended because it did not keep up", hint="attach again"))
            return False
        self._writer.write(encode(kind, payload))
        return True

    async def send(self, kind: FrameKind, payload: bytes | Mapping[str, object]) -> None:
        """Send a frame, waiting until there is room; for the end that may be kept waiting."""
        if not self._ended:
            self._writer.write(encode(kind, payload))
            with contextlib.suppress(ConnectionError):
                await self._writer.drain()

    async def receive(self) -> Frame | None:
        """The next frame; None when the stream has ended.

        :raises FrameError: the peer speaks something else
        :raises ApplianceError: the peer's own error, if it has ended the stream with one
        """
        while not self._received:
            try:
                data = await self._reader.read(READ_BYTES)
            except ConnectionError:
                return None
            if not data:
                return None
            self._received.extend(self._decoder.feed(data))
        frame = self._received.popleft()
        match frame.kind:
            case FrameKind.END:
                self.farewell = str(frame.content().get("reason", ""))
                return None
            case FrameKind.ERROR:
                raise frame.error()
            case _:
                return frame

    def end(self, reason: str) -> None:
        """End the stream in good order; what was offered before is still delivered."""
        self._finish(encode(FrameKind.END, {"reason": reason}))

    def fail(self, error: ApplianceError) -> None:
        """End the stream with an error, which the peer's `receive` raises."""
        self._finish(encode_error(error))

    async def close(self) -> None:
        """Let go of the connection, giving the peer a moment to read the last frames."""
        self._ended = True
        self._writer.close()
        try:
            async with asyncio.timeout(FLUSH_S):
                await self._writer.wait_closed()
        except TimeoutError:
            self._writer.transport.abort()
        except OSError:
            return

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    def _finish(self, last: bytes) -> None:
        if not self._ended:
            self._ended = True
            self._writer.write(last)
            self._writer.close()
            self._reader.feed_eof()


Request: TypeAlias = Mapping[str, object]
Handler: TypeAlias = Callable[[Stream, Request], Awaitable[None]]


class ControlServer:
    """The daemon's end of the control socket; `async with` listens and closes.

    :raises HostError: (on entering) another daemon listens there, or the socket cannot be made
    """

    def __init__(self, path: Path, handlers: Mapping[str, Handler], tasks: asyncio.TaskGroup) -> None:
        """`handlers` serve streams by the name in the request's `want`; each runs as a task of `tasks`."""
        self._path = path
        self._handlers = handlers
        self._tasks = tasks
        self._own_uid = os.geteuid()
        self._server: asyncio.Server | None = None
        self._inode: int | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        listener = _bind(self._path)
        self._inode = self._path.stat().st_ino
        self._server = await asyncio.start_unix_server(self._accept, sock=listener)
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._server is None:
            return
        self._server.close()
        with contextlib.suppress(FileNotFoundError):
            if self._path.stat().st_ino == self._inode:
                self._path.unlink()
        for task in self._connections:
            task.cancel()
        if self._connections:
            await asyncio.wait(self._connections)
        await self._server.wait_closed()
        self._server = None

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        stream = Stream(reader, writer)
        task = self._tasks.create_task(self._serve(stream), name=f"control stream of pid {stream.peer.pid}")
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _serve(self, stream: Stream) -> None:
        try:
            async with stream:
                try:
                    await self._converse(stream)
                    stream.end("done")
                except ApplianceError as exc:
                    stream.fail(exc)
                except asyncio.CancelledError:
                    stream.fail(DaemonDownError("the daemon stops", hint=START_HINT))
                    raise
                except Exception:
                    logger.exception("a handler of the control socket failed")
                    stream.fail(AdminError("the daemon could not serve this", hint="see its log"))
        except Exception:
            logger.exception("a control stream could not be closed")

    async def _converse(self, stream: Stream) -> None:
        if not stream.peer.is_admitted(self._own_uid):
            raise AdminError("only root and the user of the daemon are served here")
        if len(self._connections) > MAX_STREAMS:
            raise AdminError(f"the daemon already serves {MAX_STREAMS} streams")
        try:
            async with asyncio.timeout(REQUEST_S):
                first = await stream.receive()
        except TimeoutError:
            raise FrameError(f"no request came within {REQUEST_S:g} s") from None
        if first is None:
            return
        if first.kind is not FrameKind.REQUEST:
            raise FrameError("the first frame is no request")
        request = first.content()
        handler = self._handlers.get(str(request.get("want")))
        if handler is None:
            known = ", ".join(sorted(self._handlers))
            raise UsageError(f"nobody here serves {request.get('want')!r}", hint=f"one of: {known}")
        await handler(stream, request)


async def open_stream(path: Path, request: Request) -> Stream:
    """Connect to the daemon whose control socket is `path`, and ask for a stream.

    :raises DaemonDownError: nobody listens there
    :raises AdminError: the socket may not be used by this user
    """
    try:
        reader, writer = await asyncio.open_unix_connection(path)
    except (FileNotFoundError, ConnectionRefusedError) as exc:
        raise DaemonDownError("the daemon is not running", hint=START_HINT) from exc
    except PermissionError as exc:
        raise AdminError(f"the control socket {path} is not for this user", hint="run it as root") from exc
    except OSError as exc:
        raise AdminError(f"the control socket {path} cannot be used: {exc.strerror or exc}") from exc
    stream = Stream(reader, writer)
    await stream.send(FrameKind.REQUEST, request)
    return stream


def _peer(connection: socket.socket) -> Peer:
    pid, uid, _ = struct.unpack(
        "3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    )
    return Peer(pid=pid, uid=uid)


def _bind(path: Path) -> socket.socket:
    """A listening socket at `path`, never wider open than 0600; a dead daemon's socket is replaced."""
    _make_way(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        os.fchmod(listener.fileno(), 0o600)  # bind() gives this mode to the file it makes
        listener.bind(str(path))
        listener.listen()
    except OSError as exc:
        listener.close()
        if exc.errno == errno.EADDRINUSE:
            raise HostError(f"another daemon has just taken {path}") from exc
        if exc.errno is None:
            raise ConfigError(f"path.control = {path}: the path is too long for a socket") from exc
        raise HostError(f"the control socket {path} cannot be made: {exc.strerror}") from exc
    return listener


def _make_way(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise HostError(
            f"{path} is in the way of the control socket", hint="move it away, or set path.control"
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
        except FileNotFoundError:
            return
        except BlockingIOError:
            raise _taken(path) from None
        else:
            raise _taken(path)


def _taken(path: Path) -> HostError:
    return HostError(
        f"another daemon listens on {path}", hint="stop it, or give this one a path.run of its own"
    )
