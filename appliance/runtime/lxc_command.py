"""Speaks to a container's monitor over its command socket: which state, which terminal.

This is liblxc's own protocol, pinned to LXC 5 (`Lxc.check` refuses another version). The socket is
abstract and so belongs to the network namespace in which the monitor was started; a socket of ours is
made there by a thread that visits that namespace. Calls block and belong in a thread: a monitor that
is stuck costs `TIMEOUT_S`.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
from pathlib import Path

from appliance.errors import BackendError
from appliance.runtime import lxc_config
from appliance.threads import begun_apart

TIMEOUT_S = 5.0
GET_TTY, GET_STATE = 0, 3
RUNNING = 2
REQUEST = struct.Struct("iiQ")
REPLY = struct.Struct("iiQ")
CREDENTIALS = struct.Struct("iII")
PEER = struct.Struct("iII")

_libc = ctypes.CDLL(None, use_errno=True)


def dial(container: str, monitor: int | None = None) -> socket.socket:
    """A connection to a container's monitor; with `monitor`, from that process's network namespace.

    :raises ConnectionRefusedError: no monitor listens there
    """
    connection = _made_in(monitor) if monitor is not None and _is_elsewhere(monitor) else _made()
    try:
        connection.settimeout(TIMEOUT_S)
        connection.connect(f"\0{lxc_config.VIEW}/{container}/command")
    except BaseException:
        connection.close()
        raise
    return connection


def peer(connection: socket.socket) -> int:
    """The process number of the monitor at the other end."""
    pid, _, _ = PEER.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, PEER.size))
    return int(pid)


def state(connection: socket.socket) -> int:
    """The container's state; answered once its init has been started.

    :raises BackendError: the monitor gave no proper answer
    """
    _, _, value, _ = _call(connection, GET_STATE)
    return value


def terminal(connection: socket.socket, number: int) -> int:
    """The master of terminal `number`, ours until both it and `connection` are closed.

    Never ask for number 0: readers of the console can wedge the monitor.

    :raises BackendError: somebody else holds it
    """
    assert number > 0
    status, _, _, descriptors = _call(connection, GET_TTY, number)
    if status < 0 or not descriptors:
        raise BackendError(f"terminal {number} is held by somebody else ({os.strerror(-min(status, 0))})")
    return descriptors[0]


def _call(connection: socket.socket, command: int, data: int = 0) -> tuple[int, int, int, list[int]]:
    credentials = CREDENTIALS.pack(os.getpid(), os.getuid(), os.getgid())
    ancillary = [(socket.SOL_SOCKET, socket.SCM_CREDENTIALS, credentials)]
    try:
        connection.sendmsg([REQUEST.pack(command, 0, data)], ancillary)
        message, descriptors, _, _ = socket.recv_fds(connection, REPLY.size, 4)
    except OSError as exc:
        raise BackendError(f"the container's monitor does not answer: {exc}") from exc
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)
    if len(message) != REPLY.size:
        for descriptor in descriptors:
            os.close(descriptor)
        raise BackendError(
            f"the container's monitor answered {len(message)} bytes instead of {REPLY.size}",
            hint="this program speaks to LXC 5",
        )
    status, length, value = REPLY.unpack(message)
    return status, length, value, descriptors


def _made() -> socket.socket:
    return socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)


def _is_elsewhere(pid: int) -> bool:
    try:
        there = Path(f"/proc/{pid}/ns/net").stat()
    except FileNotFoundError as exc:
        raise ConnectionRefusedError(f"the monitor {pid} is gone") from exc
    return there.st_ino != Path("/proc/thread-self/ns/net").stat().st_ino


def _made_in(pid: int) -> socket.socket:
    """A socket of another process's network namespace, made by a thread that goes there and ends."""

    def visit() -> socket.socket:
        namespace = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            if _libc.setns(namespace, 0) != 0:
                number = ctypes.get_errno()
                raise BackendError(f"cannot visit the network namespace of {pid}: {os.strerror(number)}")
        finally:
            os.close(namespace)
        return _made()

    return begun_apart(visit).result()
