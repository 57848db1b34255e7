"""The client as a process, with the real nxproxy on a real X server, against a server on loopback."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.support.tls import Identity, Serve, self_signed, serving

pytestmark = pytest.mark.host

CLIENT = Path(sys.executable).with_name("qvd-client")
LIST = b'[{"id": 7, "state": "stopped", "name": "alice-1", "blocked": 0}]'
TWO = (
    b'[{"id": 7, "state": "stopped", "name": "a", "blocked": 0},'
    b' {"id": 8, "state": "running", "name": "b", "blocked": 1}]'
)
SWITCH = (
    b"HTTP/1.1 102 Processing\r\nX-QVD-VM-Info: starting X\r\n\r\n"
    b"HTTP/1.1 101 Switching Protocols\r\nX-QVD-Slave-Key: secret-key\r\n\r\n"
)


def reply(status: int, body: bytes = b"because\r\n") -> bytes:
    return b"HTTP/1.1 %d Reason\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body)


def answering(*answers: bytes) -> Serve:
    """A server that gives one answer to each request, then waits for the client to leave."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in answers:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
        await reader.read()

    return serve


@pytest.fixture
def identity(tmp_path: Path) -> Identity:
    return self_signed(tmp_path)


@pytest.fixture
async def x_server() -> AsyncIterator[str]:
    """The name of an X display that only this test has."""
    readable, writable = os.pipe()
    process = await asyncio.create_subprocess_exec(
        *("Xvfb", "-displayfd", str(writable), "-screen", "0", "800x600x24", "-nolisten", "tcp"),
        pass_fds=(writable,),
        stderr=asyncio.subprocess.DEVNULL,
    )
    os.close(writable)
    with os.fdopen(readable) as pipe:
        number = (await asyncio.to_thread(pipe.readline)).strip()
    yield f":{number}"
    process.terminate()
    await process.wait()


@asynccontextmanager
async def client(
    port: int, identity: Identity, *options: str, display: str | None = None, verify: bool = True
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A running `qvd-client`, its temporary files below the test's own directory."""
    environment = {key: value for key, value in os.environ.items() if key != "DISPLAY"}
    environment |= {"QVDPASSWORD": "pw", "TMPDIR": str(identity.cert.parent)}
    if display is not None:
        environment["DISPLAY"] = display
    trust = ["--ca", str(identity.cert)] if verify else []
    process = await asyncio.create_subprocess_exec(
        *(str(CLIENT), "-h", "127.0.0.1", "-p", str(port), "-u", "alice", *trust, *options),
        env=environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def outcome(process: asyncio.subprocess.Process) -> tuple[int | None, str, str]:
    stdout, stderr = await asyncio.wait_for(process.communicate(), 30)
    return process.returncode, stdout.decode(), stderr.decode()


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def left_behind(identity: Identity) -> list[Path]:
    return list(identity.cert.parent.glob("qvd-client-*"))


async def test_the_list(identity: Identity) -> None:
    async with (
        serving(answering(reply(200, LIST)), identity.server_context()) as port,
        client(port, identity, "-l") as process,
    ):
        status, stdout, stderr = await outcome(process)
    assert (status, stderr) == (0, "")
    assert [line.split() for line in stdout.splitlines()] == [
        ["ID", "NAME", "STATE", "BLOCKED"],
        ["7", "alice-1", "stopped", "no"],
    ]


@pytest.mark.parametrize(
    ("answers", "options", "status", "says"),
    [
        ([reply(401)], [], 3, "wrong login or password"),
        ([reply(503, b"maintenance\r\n")], [], 5, "maintenance"),
        ([reply(200, b"[]")], [], 4, "you have no desktop on this server"),
        ([reply(200, LIST)], ["--vm", "bob-1"], 4, "no desktop 'bob-1'; yours: alice-1"),
        ([reply(200, TWO)], [], 2, "choose with --vm"),
        ([reply(200, TWO)], ["--vm", "b"], 4, "b is blocked"),
        ([reply(200, TWO), reply(403)], ["-o"], 4, "forbids this desktop: because"),
        ([reply(200, LIST), reply(404)], [], 4, "does not know this desktop"),
        ([reply(200, LIST), reply(408)], [], 5, "not ready in time"),
        ([reply(200, LIST), reply(426)], [], 5, "wants a newer client"),
        ([reply(200, LIST), reply(503, b"no host is free\r\n")], [], 5, "no host is free"),
    ],
)
async def test_refusals(
    answers: Sequence[bytes],
    options: Sequence[str],
    status: int,
    says: str,
    identity: Identity,
    x_server: str,
) -> None:
    async with (
        serving(answering(*answers), identity.server_context()) as port,
        client(port, identity, *options, display=x_server) as process,
    ):
        ended, _, stderr = await outcome(process)
    assert ended == status
    lines = [line for line in stderr.splitlines() if line.startswith("qvd-client: ")]
    assert len(lines) == 1
    assert says in lines[0]
    assert "pw" not in stderr.split()


async def test_a_certificate_that_nobody_vouches_for(identity: Identity) -> None:
    async with (
        serving(answering(reply(200, LIST)), identity.server_context()) as port,
        client(port, identity, "-l", verify=False) as process,
    ):
        status, _, stderr = await outcome(process)
    assert status == 6
    assert "--ca" in stderr


async def test_no_check_is_possible_but_loud(identity: Identity) -> None:
    async with (
        serving(answering(reply(200, LIST)), identity.server_context()) as port,
        client(port, identity, "-l", "-n", verify=False) as process,
    ):
        status, _, stderr = await outcome(process)
    assert status == 0
    assert "WARNING" in stderr


async def test_nobody_there(identity: Identity) -> None:
    async with serving(answering(), None) as port:
        pass
    async with client(port, identity, "-l") as process:
        status, _, stderr = await outcome(process)
    assert status == 7
    assert "Connection refused" in stderr


async def test_without_a_display_nothing_is_asked(identity: Identity) -> None:
    async with client(1, identity) as process:
        status, _, stderr = await outcome(process)
    assert status == 1
    assert "DISPLAY is not set" in stderr


async def test_a_display_that_does_not_answer(identity: Identity) -> None:
    async with (
        serving(answering(reply(200, LIST), SWITCH), identity.server_context()) as port,
        client(port, identity, display=":9999") as process,
    ):
        status, _, stderr = await outcome(process)
    assert status == 1, stderr
    assert "qvd-client: cannot open the display :9999" in stderr
    assert not left_behind(identity)


async def test_nxproxy_speaks_through_us_and_no_session_follows(identity: Identity, x_server: str) -> None:
    greeting: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(reply(200, LIST))
        request = await reader.readuntil(b"\r\n\r\n")
        assert all(
            f"qvd.client.{name}=".encode() in request for name in ("os", "link", "keyboard", "geometry")
        )
        writer.write(SWITCH)
        greeting.set_result(await reader.readuntil(b" "))
        writer.write(b"NXPROXY-3.5.0-3.5.99 ")

    async with (
        serving(serve, identity.server_context()) as port,
        client(port, identity, "-d", display=x_server) as process,
    ):
        assert (await asyncio.wait_for(greeting, 20)).startswith(b"NXPROXY-3.5.0-")
        status, _, stderr = await outcome(process)
    assert status == 5, stderr
    assert "ended before there was a picture" in stderr
    marks = [line.split()[1:3] for line in stderr.splitlines() if line.startswith("TIMELINE ")]
    assert [name for name, _ in marks] == ["asked", "102", "101", "first-nx-bytes", "ended"]
    assert [float(instant) for _, instant in marks] == sorted(float(instant) for _, instant in marks)
    assert "secret-key" not in stderr
    assert not left_behind(identity)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
async def test_a_signal_ends_everything(
    number: signal.Signals, status: int, identity: Identity, x_server: str
) -> None:
    spoken = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in (reply(200, LIST), SWITCH):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
        await reader.readuntil(b" ")
        spoken.set()
        await reader.read()

    async with (
        serving(serve, identity.server_context()) as port,
        client(port, identity, display=x_server) as process,
    ):
        await asyncio.wait_for(spoken.wait(), 20)
        (nxproxy,) = children_of(process.pid)
        assert "nxproxy" in Path(f"/proc/{nxproxy}/comm").read_text()
        process.send_signal(number)
        assert (await outcome(process))[0] == status
    assert not Path(f"/proc/{nxproxy}").exists()
    assert not left_behind(identity)


def listed(**keys: int) -> bytes:
    line = {"id": 7, "state": "stopping", "name": "alice-1", "blocked": 0} | keys
    return reply(200, json.dumps([line]).encode())


def restarting(heard: list[str], lists: list[bytes]) -> Serve:
    """A server whose sessions end as soon as nxproxy has spoken; `lists` are its answers, in order."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            request = await reader.readuntil(b"\r\n\r\n")
            if b"/qvd/list_of_vm" in request:
                heard.append("list")
                writer.write(lists.pop(0))
                continue
            heard.append("connect")
            writer.write(SWITCH)
            await reader.readuntil(b" ")
            return

    return serve


@pytest.mark.parametrize(
    ("options", "lists", "calls"),
    [
        ([], [listed(), listed(presence=1), listed()], ["list", "connect"] * 2 + ["list"]),
        ([], [listed(), listed(presence=0)], ["list", "connect", "list"]),
        ([], [listed(), reply(503)], ["list", "connect", "list"]),
        (["--no-reconnect"], [listed()], ["list", "connect"]),
    ],
    ids=["restarted", "stopped for good", "no answer", "not wanted"],
)
async def test_it_comes_back_with_a_desktop_that_is_restarted(
    options: Sequence[str], lists: list[bytes], calls: list[str], identity: Identity, x_server: str
) -> None:
    heard: list[str] = []
    async with (
        serving(restarting(heard, lists), identity.server_context()) as port,
        client(port, identity, *options, display=x_server) as process,
    ):
        status, _, stderr = await outcome(process)
    assert heard == calls
    assert status == 5, stderr
    assert stderr.count("ended before there was a picture") == 1, "the last session tells how it ended"
    assert ("alice-1 is restarted" in stderr) == (calls.count("connect") > 1)
    assert not left_behind(identity)


async def test_the_password_is_not_in_anyones_process_list(identity: Identity, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("hunter2\n")
    asked: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set_result(await reader.readuntil(b"\r\n\r\n"))
        await reader.read()

    async with (
        serving(serve, identity.server_context()) as port,
        client(port, identity, "-l", "--password-file", str(file)) as process,
    ):
        assert b"Basic YWxpY2U6aHVudGVyMg==" in await asyncio.wait_for(asked, 20)
        assert b"hunter2" not in Path(f"/proc/{process.pid}/cmdline").read_bytes()
        process.terminate()
        assert (await outcome(process))[0] == 143
