"""Sends frames from one machine and learns which of them others hear."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from tests.support.machines_on_wire import Machine

MARK = b"probe:%b;"
SEND = """
import os, socket, sys
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # one processor, one queue: they arrive in this order
wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
wire.bind((sys.argv[1], 0))
for line in sys.stdin:
    wire.send(bytes.fromhex(line))
"""
LISTEN = """
import re, socket, sys
outgoing = sys.argv[3] == "outgoing"
ear = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
ear.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
ear.bind((sys.argv[1], 0))
print("ready", flush=True)
heard = ""
while heard != sys.argv[2]:
    data, (_, _, kind, _, _) = ear.recvfrom(65536)
    if outgoing == (kind == socket.PACKET_OUTGOING):
        for mark in re.findall(rb"probe:([a-z0-9-]+);", data):
            heard = mark.decode()
            print(heard, flush=True)
"""
SERVE = """
import re, socket, sys
service = socket.socket(type=socket.SOCK_DGRAM)
service.bind(("", int(sys.argv[1])))
print("ready", flush=True)
heard = ""
while heard != sys.argv[2]:
    for mark in re.findall(rb"probe:([a-z0-9-]+);", service.recv(65536)):
        heard = mark.decode()
        print(heard, flush=True)
"""
LONGEST_S = 20.0


def mark(name: str) -> bytes:
    """What a listener recognizes in a frame."""
    return MARK % name.encode()


def send(machine: Machine, link: str, frames: Iterable[bytes]) -> None:
    """Send frames as they are, in this order."""
    subprocess.run(
        [*machine.there(), sys.executable, "-I", "-c", SEND, link],
        input="".join(f"{frame.hex()}\n" for frame in frames),
        text=True,
        check=True,
        timeout=LONGEST_S,
    )


@contextmanager
def listening(
    machine: Machine, link: str, end: str, *, outgoing: bool = False
) -> Iterator[Callable[[], set[str]]]:
    """Listen to a link; the value waits for the frame marked `end` and gives the marks heard before it.

    `outgoing`: to what is sent there instead, which on a tap is what its guest hears.
    """
    way = "outgoing" if outgoing else "incoming"
    with _hearing(machine, LISTEN, link, end, way) as heard:
        yield heard


@contextmanager
def serving(machine: Machine, port: int, end: str) -> Iterator[Callable[[], set[str]]]:
    """A service for datagrams; the value as for a link."""
    with _hearing(machine, SERVE, str(port), end) as heard:
        yield heard


@contextmanager
def _hearing(
    machine: Machine, program: str, where: str, end: str, *more: str
) -> Iterator[Callable[[], set[str]]]:
    command = [*machine.there(), sys.executable, "-I", "-c", program, where, end, *more]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as ear:
        assert ear.stdout is not None
        try:
            assert ear.stdout.readline() == "ready\n"
            yield lambda: set(ear.communicate(timeout=LONGEST_S)[0].split()) - {end}
        finally:
            ear.kill()
