"""Our client meets the recorded answers of a front end, whole and one byte at a time, over real TLS."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from appliance.client.certificate import tls_context
from appliance.client.connection import Connection, connect
from appliance.client.failures import CredentialsError
from appliance.client.reporter import Reporter
from appliance.client.session import attach, fetch_list
from appliance.client.wire import Credentials, Desktop, ReplyReader
from appliance.clock import ManualClock
from appliance.model import Secret, VmId
from tests.support.tls import Serve, self_signed, serving
from tests.support.transcripts import Dialogue, Exchange, dialogues

ALICE = Credentials("alice", Secret("secret"))
VM7 = Desktop(VmId(7), "vm7", "running", blocked=False)
VM8 = Desktop(VmId(8), "vm8", "running", blocked=False)
ABOUT_US = {
    "qvd.client.os": "linux",
    "qvd.client.link": "lan",
    "qvd.client.keyboard": "pc105/es",
    "qvd.client.geometry": "1024x768",
    "qvd.client.fullscreen": "0",
}
NX = b"NXPROXY-3.5.0-3.5.99 cachelist=none "


def is_ours(exchange: Exchange) -> bool:
    """Our client has no `stop_vm`."""
    return b"/qvd/stop_vm" not in exchange.request


RECORDED = [Dialogue(d.number, [e for e in d.exchanges if is_ours(e)]) for d in dialogues("clients.txt")]


def player(exchanges: Sequence[Exchange], heard: list[bytes], piece: int | None) -> Serve:
    """A server that answers each request with the next recorded answer, `piece` bytes a write."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for exchange in exchanges:
            heard.append(await reader.readuntil(b"\r\n\r\n"))
            answer = exchange.answer
            if b" 101 " in answer:
                answer += NX
            for start in range(0, len(answer), piece or len(answer)):
                writer.write(answer[start : start + (piece or len(answer))])
                await writer.drain()
        await reader.read()

    return serve


async def rest_of(connection: Connection, leftover: bytes) -> bytes:
    return leftover + await connection.reader.readexactly(len(NX) - len(leftover))


def test_the_record_is_complete() -> None:
    assert len(RECORDED) == 18
    assert sum(len(dialogue.exchanges) for dialogue in RECORDED) == 22


@pytest.mark.parametrize("piece", [None, 1], ids=["whole", "bytewise"])
@pytest.mark.parametrize("dialogue", RECORDED, ids=lambda dialogue: f"connection{dialogue.number}")
async def test_replay(dialogue: Dialogue, piece: int | None, tmp_path: Path) -> None:
    identity = self_signed(tmp_path)
    heard: list[bytes] = []
    out = io.StringIO()
    reporter = Reporter(ManualClock(datetime(2030, 1, 1, tzinfo=UTC)), debug=True, out=out)
    async with serving(player(dialogue.exchanges, heard, piece), identity.server_context()) as port:
        connection = await connect("127.0.0.1", port, tls_context(identity.cert, verify=True))
        try:
            for exchange in dialogue.exchanges:
                if b"/qvd/connect_to_vm" in exchange.request:
                    switched = await attach(connection, ALICE, VM8, ABOUT_US, reporter)
                    assert switched.slave_key.reveal() == "K" * 64
                    assert await rest_of(connection, switched.leftover) == NX
                elif b" 401 " in exchange.answer:
                    with pytest.raises(CredentialsError):
                        await fetch_list(connection, ALICE)
                else:
                    assert await fetch_list(connection, ALICE) == [VM7, VM8]
        finally:
            await connection.close()
    assert len(heard) == len(dialogue.exchanges)
    if any(b" 101 " in exchange.answer for exchange in dialogue.exchanges):
        said = [line.split(" ", 2)[2] for line in out.getvalue().splitlines() if line.startswith("[")]
        steps = [line.partition("] ")[2] for line in out.getvalue().splitlines() if line.startswith("[")]
        assert steps[-3:] == ["Checking VM", "Connecting X session", "Connection established"], said


@pytest.mark.parametrize("dialogue", RECORDED, ids=lambda dialogue: f"connection{dialogue.number}")
def test_the_parser_alone_does_not_care_how_answers_are_cut(dialogue: Dialogue) -> None:
    for exchange in dialogue.exchanges:
        whole = list(ReplyReader().feed(exchange.answer))
        bytewise = ReplyReader()
        cut = [e for byte in exchange.answer for e in bytewise.feed(bytes([byte]))]
        assert cut == whole
        assert whole


async def test_our_requests_are_those_of_the_perl_client(tmp_path: Path) -> None:
    recorded = next(d for d in RECORDED if d.number == 2)
    identity = self_signed(tmp_path)
    heard: list[bytes] = []
    reporter = Reporter(ManualClock(datetime(2030, 1, 1, tzinfo=UTC)), debug=False, out=io.StringIO())
    async with serving(player(recorded.exchanges, heard, None), identity.server_context()) as port:
        connection = await connect("127.0.0.1", port, tls_context(identity.cert, verify=True))
        await fetch_list(connection, ALICE)
        await attach(connection, ALICE, VM8, ABOUT_US, reporter)
        await connection.close()
    for ours, theirs in zip(heard, (e.request for e in recorded.exchanges), strict=True):
        our_line, *our_headers = ours.split(b"\r\n")
        their_line, *their_headers = theirs.split(b"\r\n")
        assert [h for h in our_headers if not h.startswith(b"User-Agent")] == [
            h for h in their_headers if not h.startswith(b"User-Agent")
        ]
        ours_asked, theirs_asked = our_line.split(b" ")[1], their_line.split(b" ")[1]
        assert ours_asked.partition(b"?")[0] == theirs_asked.partition(b"?")[0]
        assert set(ours_asked.partition(b"?")[2].split(b"&")) <= set(
            theirs_asked.partition(b"?")[2].split(b"&")
        )
