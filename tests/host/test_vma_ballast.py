"""What the VMA holds in a session between two clients, at a real X server."""

from __future__ import annotations

import contextlib
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from appliance.vma.ballast import HELLO, PIXMAPS, Ballast, setup
from appliance.vma.loop import Loop

pytestmark = [pytest.mark.host, pytest.mark.timeout(60)]

GET_GEOMETRY = 14
"""Of a number that is no drawable the answer is an error, which begins with 0 (X protocol, chapter 1)."""


def exists(line: socket.socket, number: int) -> bool:
    """Whether there is such a drawable: every client of an X server can ask."""
    line.sendall(struct.pack("<BxHI", GET_GEOMETRY, 2, number))
    return line.recv(32, socket.MSG_WAITALL)[0] == 1


@pytest.fixture
def asker(display: int) -> Iterator[socket.socket]:
    """Another client of the X server."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
        line.settimeout(10)
        line.connect(f"/tmp/.X11-unix/X{display}")
        line.sendall(HELLO)
        greeting = b""
        while setup(greeting) is None:
            greeting += line.recv(65536)
        yield line


@pytest.fixture
def display() -> Iterator[int]:
    """A real X server's number."""
    server = subprocess.Popen(
        ["Xvfb", "-displayfd", "1", "-screen", "0", "640x480x24", "-nolisten", "tcp", "-ac", "-noreset"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert server.stdout is not None
    try:
        yield int(server.stdout.readline())
    finally:
        server.terminate()
        server.wait(10)
        server.stdout.close()


def until(loop: Loop, condition: Callable[[], bool]) -> None:
    """Run the loop until `condition` holds."""
    for _ in range(200):
        if condition():
            return
        loop.after(0.02, loop.stop)
        loop._running = True
        loop.run()
    raise AssertionError("it never came true")


def test_every_other_client_finds_the_pixmaps(display: int, asker: socket.socket) -> None:
    loop = Loop()
    ballast = Ballast(loop, f"/tmp/.X11-unix/X{display}")
    ballast.shift()
    until(loop, lambda: ballast.own is not None)
    assert ballast.own is not None
    first, _ = ballast.own

    def held() -> int:
        return sum(exists(asker, first + i) for i in range(PIXMAPS + 1))

    assert held() == PIXMAPS
    for expected in (0, PIXMAPS, 0, PIXMAPS):
        ballast.shift()
        until(loop, partial(lambda number: held() == number, expected))
    ballast.drop()
    until(loop, lambda: held() == 0)


def test_a_session_that_comes_after_another_is_met_anew(display: int) -> None:
    loop = Loop()
    ballast = Ballast(loop, f"/tmp/.X11-unix/X{display}")
    ballast.shift()
    until(loop, lambda: ballast.own is not None)
    ballast.drop()
    ballast.shift()
    until(loop, lambda: ballast.own is not None)
    ballast.drop()


def test_without_a_server_nothing_happens() -> None:
    ballast = Ballast(Loop(), "/tmp/.X11-unix/X9999")
    ballast.shift()
    assert not ballast.connected
    ballast.shift()
    ballast.drop()


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        struct.pack("<BBHHH", 0, 3, 11, 0, 1) + b"no\0\0",
        struct.pack("<BxHHH", 1, 11, 0, 65535) + bytes(8 + 4 * 65535),
        struct.pack("<BxHHH", 1, 11, 0, 9) + bytes(36),
        struct.pack("<BxHHH", 1, 11, 0, 10) + bytes(16) + b"\xff\xff" + bytes(22),
    ],
    ids=["silence", "other-words", "refusal", "too-long", "too-short", "no-screen"],
)
def test_who_answers_in_the_servers_place_is_left_alone(answer: bytes, tmp_path: Path) -> None:
    path = str(tmp_path / "X7")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path)
    listener.listen()

    def serve() -> None:
        line, _ = listener.accept()
        with line:
            line.recv(64)
            with contextlib.suppress(OSError):
                line.sendall(answer)

    server = threading.Thread(target=serve)
    server.start()
    loop = Loop()
    ballast = Ballast(loop, path)
    ballast.shift()
    until(loop, lambda: not ballast.connected)
    server.join(10)
    assert not server.is_alive()
    listener.close()
