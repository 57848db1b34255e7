"""The TLS side of the broker: versions, tickets, and clients that never finish a handshake."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from contextlib import suppress
from pathlib import Path

import pytest

from appliance.l7r import reception
from tests.support.broker import Installation, installation, request


def versions(node: Installation, lowest: ssl.TLSVersion, highest: ssl.TLSVersion) -> ssl.SSLContext:
    assert node.trust is not None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version, context.maximum_version = lowest, highest
    return context


def pinged(
    node: Installation, context: ssl.SSLContext, session: ssl.SSLSession | None = None
) -> tuple[str | None, bool, ssl.SSLSession | None]:
    """Ping over a new connection: the TLS version, whether an old session was resumed, and the session."""
    with (
        socket.create_connection(("127.0.0.1", node.port), timeout=5) as plain,
        context.wrap_socket(plain, session=session) as tls,
    ):
        tls.sendall(request("/qvd/ping"))
        assert b"200 OK" in tls.recv(4096)
        return tls.version(), bool(tls.session_reused), tls.session


async def test_tls_1_2_resumes_sessions(tmp_path: Path) -> None:
    async with installation(tmp_path) as node:
        context = versions(node, ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_2)
        spoken, resumed, session = await asyncio.to_thread(pinged, node, context)
        assert (spoken, resumed) == ("TLSv1.2", False)
        _, resumed, _ = await asyncio.to_thread(pinged, node, context, session)
        assert resumed


async def test_tls_1_3_sends_nothing_but_replies(tmp_path: Path) -> None:
    """A ticket after the handshake ends the clients of 3.5 and the native one: they take it for a reply."""
    async with installation(tmp_path) as node:
        context = versions(node, ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_3)
        spoken, _, session = await asyncio.to_thread(pinged, node, context)
        assert spoken == "TLSv1.3"
        assert session is not None
        assert not session.has_ticket


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
async def test_old_versions_are_refused(tmp_path: Path) -> None:
    async with installation(tmp_path) as node:
        old = versions(node, ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1)
        with pytest.raises(ssl.SSLError):
            await asyncio.to_thread(pinged, node, old)


async def test_strangers_on_the_port_disturb_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reception, "HANDSHAKE_S", 0.3)
    async with installation(tmp_path) as node:
        for said in (b"", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\xff\xff" + b"\0" * 100):
            reader, writer = await asyncio.open_connection("127.0.0.1", node.port)
            writer.write(said)
            async with asyncio.timeout(5):
                with suppress(ConnectionError):
                    while await reader.read(4096):
                        pass
            writer.close()
        assert (await (await node.client()).ask("/qvd/ping")).status == 200
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_fifty_clients_at_once(tmp_path: Path) -> None:
    """Each of fifty connections gets its own answers, over and over."""
    async with installation(tmp_path) as node:
        clients = [await node.client() for _ in range(50)]

        async def lists(number: int) -> set[int]:
            login = ("alice", "bob")[number % 2]
            return {len((await clients[number].ask("/qvd/list_of_vm?", login)).body) for _ in range(5)}

        found = await asyncio.gather(*map(lists, range(50)))
        assert all(len(sizes) == 1 for sizes in found)
        assert len({frozenset(sizes) for sizes in found}) == 2
        assert (await node.counters())["http_requests"] == 250
