"""Processes of a launch: who they are, and signals that hit nobody else.

A launch is a process session of its own. Its id, the leader's pid, cannot be reused while any member lives,
and membership is checked on a handle before each signal.
"""

from __future__ import annotations

import contextlib
import os
import signal
from typing import List

from appliance.vma import files


def _stat(pid: int) -> List[str]:
    """The fields of /proc/PID/stat from the state on; empty for a process that is gone or a zombie."""
    fields = files.read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return fields if fields and fields[0] not in "ZX" else []


def session_of(pid: int) -> int:
    fields = _stat(pid)
    return int(fields[3]) if fields else 0


def group_of(pid: int) -> int:
    fields = _stat(pid)
    return int(fields[2]) if fields else 0


def start_time(pid: int) -> str:
    fields = _stat(pid)
    return fields[19] if fields else ""


def members(leader: int, started: str) -> List[int]:
    """The processes of a launch; the leader last, also in the instant before its setsid."""
    if leader <= 1:
        return []
    pids = [int(name) for name in os.listdir("/proc") if name.isdecimal()]
    last = [leader] if started and start_time(leader) == started else []
    return [pid for pid in pids if pid != leader and session_of(pid) == leader] + last


def send(pid: int, leader: int, signum: int) -> bool:
    """Signal a member of the launch; on a handle, where there are handles, lest a reused pid is hit."""
    if leader <= 1:
        return False
    handle = -1
    with contextlib.suppress(OSError):  # a kernel without pidfds
        handle = os.pidfd_open(pid)
    try:
        if pid != leader and session_of(pid) != leader:
            return False
        if handle < 0:
            os.kill(pid, signum)
        else:
            signal.pidfd_send_signal(handle, signum)
        return True
    except ProcessLookupError:
        return False
    finally:
        if handle >= 0:
            os.close(handle)
