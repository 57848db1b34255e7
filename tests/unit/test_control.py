"""Both ends of the control socket, on real sockets."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest

from appliance import control
from appliance.control import ControlServer, Peer, Request, Stream, open_stream
from appliance.control_frames import MAX_PAYLOAD, FrameDecoder, FrameKind, encode
from appliance.errors import (
    AdminError,
    ConfigError,
    ConflictError,
    DaemonDownError,
    HostError,
    UsageError,
)


async def echo(stream: Stream, request: Request) -> None:
    stream.offer(FrameKind.EVENT, {"asked": request.get("text")})
    while frame := await stream.receive():
        stream.offer(frame.kind, frame.payload)


async def refuse(stream: Stream, request: Request) -> None:
    raise ConflictError("VM 7 does not run", hint="start it")


async def fall_over(stream: Stream, request: Request) -> None:
    raise RuntimeError("a bug")


async def flood(stream: Stream, request: Request) -> None:
    while stream.offer(FrameKind.DATA, bytes(MAX_PAYLOAD)):
        await asyncio.sleep(0)


async def listen(stream: Stream, request: Request) -> None:
    await stream.receive()


HANDLERS: Mapping[str, control.Handler] = {
    "echo": echo,
    "refuse": refuse,
    "fall over": fall_over,
    "flood": flood,
    "listen": listen,
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "appliance.sock"


@pytest.fixture
async def server(path: Path) -> AsyncIterator[ControlServer]:
    async with asyncio.TaskGroup() as tasks, ControlServer(path, HANDLERS, tasks) as server:
        yield server


async def collect(stream: Stream, sizes: list[int]) -> None:
    """Note the size of every frame until the stream ends."""
    while frame := await stream.receive():
        sizes.append(len(frame.payload))


async def answer_to(path: Path, raw: bytes) -> str:
    """What the daemon says last to a client that sends `raw`."""
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(raw)
    try:
        said = list(FrameDecoder().feed(await reader.read()))
    finally:
        writer.close()
    assert [frame.kind for frame in said] == [FrameKind.ERROR]
    return said[0].error().message


async def test_a_stream_carries_frames_both_ways_until_the_client_ends_it(
    server: ControlServer, path: Path
) -> None:
    async with await open_stream(path, {"want": "echo", "text": "hällo"}) as stream:
        first = await stream.receive()
        assert first is not None
        assert first.content() == {"asked": "hällo"}
        for payload in (b"", b"x", bytes(MAX_PAYLOAD)):
            await stream.send(FrameKind.DATA, payload)
            echoed = await stream.receive()
            assert echoed is not None
            assert (echoed.kind, echoed.payload) == (FrameKind.DATA, payload)


async def test_an_error_of_the_handler_is_raised_at_the_client(server: ControlServer, path: Path) -> None:
    async with await open_stream(path, {"want": "refuse"}) as stream:
        with pytest.raises(ConflictError, match=r"VM 7 does not run \(start it\)"):
            await stream.receive()


async def test_a_bug_in_a_handler_ends_its_stream_alone(
    server: ControlServer, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with await open_stream(path, {"want": "fall over"}) as stream:
        with pytest.raises(AdminError, match="could not serve this"):
            await stream.receive()
    assert "RuntimeError: a bug" in caplog.text
    async with await open_stream(path, {"want": "echo"}) as stream:
        assert await stream.receive() is not None


async def test_an_unknown_wish_names_the_known_ones(server: ControlServer, path: Path) -> None:
    async with await open_stream(path, {"want": "coffee"}) as stream:
        with pytest.raises(UsageError, match=r"'coffee'.*echo, fall over, flood"):
            await stream.receive()


@pytest.mark.parametrize(
    ("rubbish", "reason"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "too long"),
        (b"\x00\x00\x00\x00\x63", "no frame of kind 99"),
        (encode(FrameKind.DATA, b"early"), "first frame is no request"),
        (encode(FrameKind.REQUEST, b"{"), "does not hold JSON"),
        (encode(FrameKind.REQUEST, b"[]"), "does not hold a JSON object"),
        (encode(FrameKind.REQUEST, {"want": "echo"})[:-3], "no request came"),
    ],
)
async def test_rubbish_is_answered_with_an_error_and_closed(
    server: ControlServer, path: Path, rubbish: bytes, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "REQUEST_S", 0.1)
    assert reason in await answer_to(path, rubbish)


async def test_a_client_that_does_not_read_loses_its_stream_and_is_told(
    server: ControlServer, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with await open_stream(path, {"want": "flood"}) as stream:
        while "does not keep up" not in caplog.text:
            await asyncio.sleep(0.01)
        received: list[int] = []
        with pytest.raises(AdminError, match="did not keep up"):
            await collect(stream, received)
    assert 0 < sum(received) < 4 * control.BACKLOG_BYTES


async def test_a_client_that_never_reads_cannot_hold_up_the_end_of_the_daemon(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "FLUSH_S", 0.1)
    with socket.socket(socket.AF_UNIX) as rude:
        async with asyncio.timeout(20), asyncio.TaskGroup() as tasks, ControlServer(path, HANDLERS, tasks):
            rude.connect(str(path))
            rude.send(encode(FrameKind.REQUEST, {"want": "flood"}))
            await asyncio.sleep(0.1)


async def test_without_a_daemon_the_client_is_told_so(path: Path) -> None:
    with pytest.raises(DaemonDownError, match=r"the daemon is not running \(start it"):
        await open_stream(path, {"want": "echo"})


async def test_a_daemon_that_stops_says_so_to_its_clients(path: Path) -> None:
    async with asyncio.TaskGroup() as tasks:
        async with ControlServer(path, HANDLERS, tasks):
            stream = await open_stream(path, {"want": "listen"})
            await asyncio.sleep(0.05)
        with pytest.raises(DaemonDownError, match="the daemon stops"):
            await stream.receive()
        await stream.close()
    assert not path.exists()


async def test_the_socket_is_its_owners_alone(server: ControlServer, path: Path) -> None:
    assert path.stat().st_mode & 0o777 == 0o600


async def test_a_live_socket_is_not_taken(server: ControlServer, path: Path) -> None:
    async with asyncio.TaskGroup() as tasks:
        with pytest.raises(HostError, match="another daemon listens on"):
            await ControlServer(path, HANDLERS, tasks).__aenter__()
    async with await open_stream(path, {"want": "echo"}) as stream:
        assert await stream.receive() is not None


async def test_a_dead_daemons_socket_is_replaced(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with pytest.raises(DaemonDownError):
        await open_stream(path, {"want": "echo"})
    async with (
        asyncio.TaskGroup() as tasks,
        ControlServer(path, HANDLERS, tasks),
        await open_stream(path, {"want": "echo"}) as stream,
    ):
        assert await stream.receive() is not None


async def test_a_file_in_the_way_is_left_alone(path: Path) -> None:
    path.write_text("precious")
    async with asyncio.TaskGroup() as tasks:
        with pytest.raises(HostError, match="in the way"):
            await ControlServer(path, HANDLERS, tasks).__aenter__()
    assert path.read_text() == "precious"


async def test_a_path_that_is_too_long_names_the_setting(tmp_path: Path) -> None:
    async with asyncio.TaskGroup() as tasks:
        with pytest.raises(ConfigError, match=r"path\.control = "):
            await ControlServer(tmp_path / ("x" * 120), HANDLERS, tasks).__aenter__()


async def test_the_kernel_says_who_is_there(server: ControlServer, path: Path) -> None:
    async with await open_stream(path, {"want": "echo"}) as stream:
        assert stream.peer == Peer(pid=os.getpid(), uid=os.geteuid())


def test_root_and_the_daemons_own_user_are_admitted() -> None:
    assert Peer(pid=1, uid=0).is_admitted(999)
    assert Peer(pid=1, uid=999).is_admitted(999)
    assert not Peer(pid=1, uid=1000).is_admitted(999)
