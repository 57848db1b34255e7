"""The port of a virtual machine without the machine: a tap, and frames written into it."""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x0002, 0x1000


@contextmanager
def tap(name: str) -> Iterator[int]:
    """A tap in this thread's network namespace; the value is the machine's end. It goes with the block."""
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI))
        yield descriptor
    finally:
        os.close(descriptor)


def send(descriptor: int, frames: Iterable[bytes]) -> None:
    """Let the machine say `frames`, in this order."""
    processors = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(processors)})  # one processor, one queue
    try:
        for frame in frames:
            os.write(descriptor, frame)
    finally:
        os.sched_setaffinity(0, processors)
