"""Recorded dialogues between QVD's own HKD/L7R and QVD's own VMA, replayed against ours from both ends."""

from __future__ import annotations

import ast
import asyncio
import re
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from appliance.errors import VmaRefusedError, VmaUnreachableError
from appliance.vma import wire, xsession
from appliance.vma.conf import Conf
from appliance.vma.hooks import Hooks
from appliance.vma.loop import Loop
from appliance.vma.messages import Messages
from appliance.vma.question import Question
from appliance.vma.service import Service
from appliance.vma.wire import ReplyParser, Request, RequestParser, XState
from appliance.vma_client import Answer, ExpireAnswer, VmaClient

TRANSCRIPT = Path(__file__).parent / "transcripts" / "vma.txt"


@dataclass
class Block:
    """The requests that went out on one connection, and all that came back on it."""

    title: str
    sent: bytes = b""
    came: bytes = b""
    repeats: int = field(default=0)

    @property
    def call(self) -> str:
        return self.sent.split(b" ")[1].partition(b"?")[0].rpartition(b"/")[2].decode()


def blocks() -> list[Block]:
    found: list[Block] = []
    title = ""
    for line in TRANSCRIPT.read_text().splitlines():
        kind, _, rest = line.strip().partition(" ")
        if kind == "====":
            title = rest
            found.append(Block(title))
        elif kind == "request":
            if not found or found[-1].came:
                found.append(Block(title))
            found[-1].sent += ast.literal_eval(rest.strip())
        elif kind == "reply" and rest.strip() != "(closed)":
            found[-1].came += ast.literal_eval(rest.strip())
        elif again := re.match(r"\(the same exchange (\d+) more times\)", line.strip()):
            found[-1].repeats = int(again[1])
    return [block for block in found if block.sent]


BLOCKS = blocks()


def replies(data: bytes) -> list[wire.Reply]:
    """The final replies in what came back, the unasked ones included."""
    found = []
    while data:
        reply = ReplyParser().feed(data)
        assert reply is not None
        found.append(reply)
        end = data.index(reply.body, data.rindex(b"\r\n\r\n", 0, data.index(reply.body)))
        data = data[end + len(reply.body) :]
    return found


def test_the_transcript_is_read_whole() -> None:
    assert len(BLOCKS) > 40
    assert sum(line.startswith("request  b'GET") for line in TRANSCRIPT.read_text().splitlines()) == sum(
        block.sent.count(b"GET ") for block in BLOCKS
    )


# -- our VMA, asked by a real HKD and L7R ---------------------------------------------------------------


class StillLoop:
    """Time stands still and nothing is forked: deterministic replies only."""

    def after(self, seconds: float, callback: Callable[[], None]) -> StillLoop:
        return self

    def cancel(self) -> None:
        pass


class Stage:
    """Our service with an nxagent that says whatever leads to the recorded state."""

    def __init__(self, logs: Path) -> None:
        limits = dict.fromkeys(xsession.LIMITS, 10.0)
        conf = Conf({"path.log": str(logs), "path.run": str(logs)})
        loop, hooks = cast("Loop", StillLoop()), Hooks(conf)
        question, messages = Question(conf, loop, hooks), Messages(conf, loop, hooks)
        self.service = Service(conf, loop, hooks, question, messages, limits, lambda: None)

    def state(self) -> XState:
        return self.service.session.x_state

    def lead_to(self, wanted: XState) -> None:
        """Post what nxagent reports on its way to `wanted`, and only what it can report from here."""
        while self.state() is not wanted:
            session = self.service.session
            if session.phase is xsession.Phase.PREPARING:
                self.service.post(xsession.Prepared(0, session.launch, session.attempt, True))
                continue
            if wanted is XState.STOPPED:
                self.service.post(xsession.Ended(0, session.launch))
                continue
            word = _NEXT[self.state(), wanted]
            word = {"starting": "resuming"}.get(word, word) if session.attempt else word
            self.service.post(xsession.Word(0, session.launch, word))

    def ask(self, data: bytes, portion: int) -> bytes:
        """What is answered to these bytes, fed in portions."""
        parser, out = RequestParser(), bytearray()
        try:
            for at in range(0, len(data), portion):
                for request in parser.feed(data[at : at + portion]):
                    self.service.serve(request, out.extend)
        except wire.HeadError as exc:
            out += wire.refusal(exc.status)
        return bytes(out)


_NEXT = {
    (XState.STARTING, XState.LISTENING): "starting",
    (XState.LISTENING, XState.CONNECTED): "started",
    (XState.CONNECTED, XState.SUSPENDED): "suspending",
    (XState.SUSPENDING, XState.SUSPENDED): "suspended",
    (XState.LISTENING, XState.STOPPING): "aborting",
    (XState.LISTENING, XState.SUSPENDED): "suspending",
}


def plain(data: bytes) -> bytes:
    """Without the free text of errors and its length (protocol.md 1.2)."""
    return re.sub(rb"(HTTP/1.1 [45]..[^\r]*\r\nContent-Type: text/plain\r\nContent-Length: )\d+\r\n\r\n.*",
                  rb"\1N", data, flags=re.DOTALL)  # fmt: skip


@pytest.mark.parametrize("portion", [1, 7, 1 << 20])
def test_our_vma_answers_as_the_real_one(portion: int, tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    for block in BLOCKS:
        if block.call == wire.POWEROFF:
            continue
        for _ in range(block.repeats + 1):
            recorded = block.came
            if block.call == wire.X_STATE and block.sent.count(b"GET ") == 1:
                stage.lead_to(XState(replies(recorded)[0].value()))
            answer = stage.ask(block.sent, portion)
            if block.call == wire.X_START:
                recorded = recorded[: len(answer)]  # the real one adds a second reply that nobody asked for
            assert plain(answer) == plain(recorded), block.title


def test_what_the_real_server_does_not_send_is_answered_in_kind(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    for sent, status in (
        (b"\r\n\n\r\nGET /vma/ping HTTP/1.1\n\n", b"200 OK"),
        (b"GET /vma/ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", b"200 OK"),
        (b"GET /vma/ping?a b c HTTP/1.1\r\n\r\n", b"200 OK"),
        (b"GET /vma/deep/down/ping HTTP/1.1\r\n\r\n", b"200 OK"),
        (b"GET /other/ping HTTP/1.1\r\n\r\n", b"404 Not Found"),
        (b"GET /vma/ HTTP/1.1\r\n\r\n", b"404 Not Found"),
        (b"get /vma/ping HTTP/1.1\r\n\r\n", b"404 Not Found"),
        (b"rubbish\r\n\r\n", b"400 Bad Request"),
        (b"GET /vma/ping HTTP/2\r\n\r\n", b"505 HTTP Version Not Supported"),
        (b"GET /vma/ping HTTP/1.1\r\nno colon\r\n\r\n", b"400 Bad Request"),
        (b"GET /" + b"x" * 70_000, b"400 Bad Request"),
        (b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 200 + b"\r\n", b"400 Bad Request"),
    ):
        assert stage.ask(sent, 4096).startswith(b"HTTP/1.1 " + status + b"\r\n"), sent[:60]


# -- our client, answered by a real VMA -----------------------------------------------------------------


class Recorded:
    """Says what the real VMA said, in portions, and keeps the connection open as it did."""

    def __init__(self, came: bytes, portion: int) -> None:
        self._came, self._portion = came, portion
        self.heard = b""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            self.heard = await reader.readuntil(b"\r\n\r\n")
            for at in range(0, len(self._came), self._portion):
                writer.write(self._came[at : at + self._portion])
                await writer.drain()
                await asyncio.sleep(0)
            await reader.read()  # until the client has gone
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def real_vma(came: bytes, portion: int = 1 << 20) -> AsyncIterator[tuple[VmaClient, Recorded]]:
    recorded = Recorded(came, portion)
    server = await asyncio.start_server(recorded.serve, "127.0.0.1", 0)
    try:
        yield VmaClient("127.0.0.1", server.sockets[0].getsockname()[1], timeout_s=2), recorded
    finally:
        server.close()


CALLS: Mapping[str, Callable[[VmaClient, Request], Coroutine[Any, Any, Any]]] = {
    wire.PING: lambda client, _: client.ping(),
    wire.X_STATE: lambda client, _: client.x_state(),
    wire.X_START: lambda client, request: client.x_start(request.params),
    wire.X_SUSPEND: lambda client, _: client.x_suspend(),
    wire.X_STOP: lambda client, _: client.x_stop(),
    wire.EXPIRE: lambda client, _: client.expire("2030-01-31 18:00:00", None, ask=1),
}


def real_calls() -> Iterator[Block]:
    """Every call of the real RPC client with its answer, each kind once."""
    seen = set()
    for block in BLOCKS:
        if b"QVD::HTTPC" in block.sent and block.call in CALLS and (block.call, block.came) not in seen:
            seen.add((block.call, block.came))
            yield block


@pytest.mark.parametrize("portion", [1, 1 << 20])
@pytest.mark.parametrize("block", list(real_calls()), ids=lambda block: f"{block.call}-{len(block.came)}")
async def test_our_client_understands_the_real_vma(block: Block, portion: int) -> None:
    expected = replies(block.came)[0]
    (request,) = RequestParser().feed(block.sent)
    async with real_vma(block.came, portion) as (client, recorded):
        if b'""' in expected.body:
            with pytest.raises(VmaRefusedError, match="retry later"):
                await CALLS[block.call](client, request)
        else:
            value = await CALLS[block.call](client, request)
            assert value is False if block.call == wire.EXPIRE else value in (None, expected.value())
        (asked,) = RequestParser().feed(recorded.heard)
        assert asked.path == request.path
        assert block.call == wire.EXPIRE or asked.params == request.params
        assert "host" not in asked.headers


@pytest.mark.parametrize(
    ("came", "asking"),
    [
        (wire.success("asking"), True),
        (wire.success(None), False),
        (wire.success(1), False),
        (wire.success({"answer": "asking"}), False),
        (wire.failure("the hook failed"), False),
        (wire.refusal(404), False),
    ],
)
async def test_only_a_guest_that_asks_is_waited_for(came: bytes, asking: bool) -> None:
    async with real_vma(came) as (client, recorded):
        assert await client.expire(None, "H", ask=7, final=True, later_s=600, postponements=2) is asking
        (asked,) = RequestParser().feed(recorded.heard)
    assert asked.params == {
        "vm.expiration.hard": "H",
        "vm.expiration.ask": "7",
        "vm.expiration.final": "1",
        "vm.expiration.later": "600",
        "vm.expiration.postponements": "2",
    }


NOBODY = ExpireAnswer(None, Answer.NONE)


@pytest.mark.parametrize(
    ("came", "answer"),
    [
        (wire.success({"ask": 7, "answer": "restart"}), ExpireAnswer(7, Answer.RESTART)),
        (wire.success({"ask": None, "answer": "later"}), ExpireAnswer(None, Answer.LATER)),
        (wire.success({"ask": 8, "answer": "asking"}), ExpireAnswer(8, Answer.ASKING)),
        (wire.success({"ask": True, "answer": "later"}), ExpireAnswer(None, Answer.LATER)),
        (wire.success({"ask": 7, "answer": "perhaps"}), NOBODY),
        (wire.success(["restart"]), NOBODY),
        (wire.success(None), NOBODY),
    ],
)
async def test_an_answer_is_one_of_four_words(came: bytes, answer: ExpireAnswer) -> None:
    async with real_vma(came) as (client, recorded):
        assert await client.expire_answer(12.5) == answer
        assert b"GET /vma/expire_answer?wait=12.5 HTTP/1.1" in recorded.heard


@pytest.mark.parametrize("came", [wire.failure("what?"), wire.refusal(404)])
async def test_a_real_vma_has_no_answers(came: bytes) -> None:
    async with real_vma(came) as (client, _):
        with pytest.raises(VmaRefusedError):
            await client.expire_answer(12.5)


async def test_x_start_reads_one_reply_and_hangs_up() -> None:
    twice = next(
        block.came for block in BLOCKS if block.came.count(b"200 OK") == 2 and block.call == wire.X_START
    )
    async with real_vma(twice) as (client, _):
        await client.x_start({})
        assert await asyncio.wait_for(client.x_state(), 10) is XState.STARTING


async def test_a_poweroff_that_has_begun_is_not_an_error() -> None:
    async with real_vma(wire.failure("Can't power off: interrupted system call")) as (client, _):
        await client.poweroff()
    async with real_vma(wire.success(0)) as (client, _):
        await client.poweroff()
    async with real_vma(wire.refusal(404)) as (client, _):
        with pytest.raises(VmaRefusedError, match="poweroff failed: 404 Not Found"):
            await client.poweroff()


@pytest.mark.parametrize(
    ("came", "reason"),
    [
        (b"", "no answer within"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n1\n", "no answer within"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "not an HTTP reply"),
        (b"HTTP/1.1 200 OK\r\n\r\n1\n\r\n", "no Content-Length"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n", "too large"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "no Content-Length"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n]1[", "not a list of JSON values"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "holds 0 values"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000, "too large"),
    ],
)
async def test_rubbish_is_an_unreachable_vma(came: bytes, reason: str) -> None:
    async with real_vma(came) as (client, _):
        slow = VmaClient(client._address, client._port, timeout_s=0.2)
        with pytest.raises(VmaUnreachableError, match=reason):
            await slow.ping()


async def test_nobody_there_and_states_unheard_of() -> None:
    with pytest.raises(VmaUnreachableError, match=r"127\.0\.0\.1:1: ping: "):
        await VmaClient("127.0.0.1", 1).ping()
    async with real_vma(wire.success("dancing")) as (client, _):
        with pytest.raises(VmaRefusedError, match="'dancing', which is no X state"):
            await client.x_state()
