"""What real clients sent, replayed against our broker over real TLS, whole and one byte at a time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.broker import Client, Reply, installation
from tests.support.transcripts import Dialogue, Exchange, dialogues

RECORDED = dialogues("clients.txt")
NX = b"NXPROXY-3.5.0-3.5.99 stream=default,data=default "


def recorded_status(exchange: Exchange) -> int:
    """The final status that the front end gave; a `stop_vm` without id is 422 with a real L7R."""
    if b"/qvd/stop_vm HTTP" in exchange.request:
        return 422
    heads = [line for line in exchange.answer.split(b"\r\n") if line.startswith(b"HTTP/1.1 ")]
    return int(heads[-1].split()[1])


OURS: dict[str, type] = {"presence": int}
"""What our list says beyond the recorded one's; clients pass over keys that they do not know."""


def shape(body: bytes) -> list[dict[str, type]]:
    return [{key: type(value) for key, value in vm.items()} for vm in json.loads(body)]


@pytest.mark.parametrize("piece", [None, 1], ids=["whole", "bytewise"])
@pytest.mark.parametrize("dialogue", RECORDED, ids=lambda d: f"C{d.number}")
async def test_a_recorded_client_is_served(tmp_path: Path, dialogue: Dialogue, piece: int | None) -> None:
    async with installation(tmp_path) as node:
        for vm_id in (7, 8):
            await node.guest(vm_id)
        client = await node.client()
        for exchange in dialogue.exchanges:
            await client.send(exchange.request, piece=piece)
            reply, interim = await client.final()
            assert reply.status == recorded_status(exchange)
            await check(client, exchange, reply, interim)


async def check(client: Client, exchange: Exchange, reply: Reply, interim: list[Reply]) -> None:
    _, _, recorded_body = exchange.answer.rpartition(b"\r\n\r\n")
    match reply.status:
        case 101:
            assert 1 <= len(interim) <= 6
            assert set(reply.headers) == {"X-QVD-Slave-Key"}
            await client.send(NX)
            assert await client.reader.readexactly(len(NX)) == NX
        case 200:
            assert shape(reply.body)[:1] == [vm | OURS for vm in shape(recorded_body)[:1]]
            assert {"Content-Type", "Content-Length"} == set(reply.headers)
        case _:
            assert reply.body.endswith(b"\r\n")


async def test_the_two_connections_of_the_c_client(tmp_path: Path) -> None:
    """The list's connection stays open and idle; the desktop comes on a second one, with bare line feeds."""
    pair = [dialogue.exchanges[0].request for dialogue in RECORDED if dialogue.number in (15, 16)]
    assert b"\r" not in pair[1]
    async with installation(tmp_path) as node:
        await node.guest(7)
        first = await node.client()
        await first.send(pair[0])
        assert (await first.reply()).status == 200
        second = await node.client()
        await second.send(pair[1])
        assert (await second.final())[0].status == 101
        await second.send(NX)
        assert await second.reader.readexactly(len(NX)) == NX
        assert not first.reader.at_eof()
        await first.close()
        await second.send(NX)
        assert await second.reader.readexactly(len(NX)) == NX


async def test_five_wrong_passwords_and_then_the_right_one(tmp_path: Path) -> None:
    wrong = [d for d in RECORDED if d.number in range(3, 8)]
    assert len(wrong) == 5
    async with installation(tmp_path) as node:
        for dialogue in wrong:
            client = await node.client()
            await client.send(dialogue.exchanges[0].request)
            reply = await client.reply()
            assert reply.status == 401
            assert reply.headers["WWW-Authenticate"] == 'Basic realm="QVD"'
            await client.close()
        assert [vm["id"] for vm in await node.list()] == [1, 7, 8]
        assert await node.counters() == {"http_requests": 6, "auth_attempts": 6, "auth_ok": 1}
