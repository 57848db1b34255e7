"""Who is at the other end of a loopback connection: another user must not get at the desktop's bytes."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

_LOCAL_ADDRESS, _REMOTE_ADDRESS, _UID = 1, 2, 7


def is_ours(writer: asyncio.StreamWriter) -> bool:
    """Whether the peer of an IPv4 loopback connection is a process of this user."""
    own_port = writer.get_extra_info("sockname")[1]
    peer_port = writer.get_extra_info("peername")[1]
    return owner(Path("/proc/net/tcp").read_text(), peer_port, own_port) == os.getuid()


def owner(table: str, local_port: int, remote_port: int) -> int | None:
    """The uid that owns the socket from `local_port` to `remote_port` in `table` (/proc/net/tcp)."""
    for line in table.splitlines()[1:]:
        fields = line.split()
        if len(fields) > _UID and (_port(fields[_LOCAL_ADDRESS]), _port(fields[_REMOTE_ADDRESS])) == (
            local_port,
            remote_port,
        ):
            return int(fields[_UID])
    return None


def _port(address: str) -> int:
    return int(address.rpartition(":")[2], 16)
