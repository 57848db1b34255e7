"""The client is strict: it says why it does not trust a server, and what else answered in its place."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest

from appliance.client.certificate import tls_context
from appliance.client.connection import connect
from appliance.client.failures import CertificateError, ConnectionFailedError, RefusedError
from appliance.client.session import fetch_list
from appliance.client.wire import Credentials
from appliance.model import Secret
from tests.support.tls import Identity, self_signed, serving

ALICE = Credentials("alice", Secret("secret"))


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def try_it(identity: Identity, context: ssl.SSLContext, host: str = "127.0.0.1") -> None:
    async with serving(silent, identity.server_context()) as port:
        connection = await connect(host, port, context)
        await connection.close()


async def test_the_right_certificate(tmp_path: Path) -> None:
    identity = self_signed(tmp_path)
    await try_it(identity, tls_context(identity.cert, verify=True))


async def test_an_unknown_certificate(tmp_path: Path) -> None:
    with pytest.raises(CertificateError, match=r"not signed by an authority known here.*--ca"):
        await try_it(self_signed(tmp_path), tls_context(None, verify=True))


async def test_a_certificate_for_another_address(tmp_path: Path) -> None:
    identity = self_signed(tmp_path, addresses=("10.0.0.1",))
    with pytest.raises(CertificateError, match=r"it is not for 127\.0\.0\.1"):
        await try_it(identity, tls_context(identity.cert, verify=True))


async def test_a_certificate_for_another_name(tmp_path: Path) -> None:
    identity = self_signed(tmp_path, names=("desktops.example",))
    with pytest.raises(CertificateError, match="it is not for localhost"):
        await try_it(identity, tls_context(identity.cert, verify=True), host="localhost")


async def test_an_expired_certificate(tmp_path: Path) -> None:
    identity = self_signed(tmp_path, days=-2)
    with pytest.raises(CertificateError, match="it has expired"):
        await try_it(identity, tls_context(identity.cert, verify=True))


async def test_no_check_when_told_so(tmp_path: Path) -> None:
    await try_it(self_signed(tmp_path, addresses=("10.0.0.1",), days=-2), tls_context(None, verify=False))


async def test_old_tls_is_refused(tmp_path: Path) -> None:
    assert tls_context(None, verify=True).minimum_version == ssl.TLSVersion.TLSv1_2
    assert tls_context(None, verify=False).minimum_version == ssl.TLSVersion.TLSv1_2


@pytest.mark.parametrize(("content", "says"), [(None, "No such file"), ("not PEM", "no PEM certificate")])
def test_a_useless_ca_file(content: str | None, says: str, tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_text(content)
    with pytest.raises(CertificateError, match=says):
        tls_context(file, verify=True)


async def test_a_server_without_tls(tmp_path: Path) -> None:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail ready\r\n")
        await reader.read()

    async with serving(speak, None) as port:
        with pytest.raises(ConnectionFailedError, match="does not speak TLS"):
            await connect("127.0.0.1", port, tls_context(None, verify=False))


async def test_nobody_listens() -> None:
    async with serving(silent, None) as port:
        pass
    with pytest.raises(ConnectionFailedError, match=f"cannot reach 127.0.0.1:{port}: Connection refused"):
        await connect("127.0.0.1", port, tls_context(None, verify=False))


async def test_a_server_that_hangs_up(tmp_path: Path) -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")

    identity = self_signed(tmp_path)
    async with serving(hang_up, identity.server_context()) as port:
        connection = await connect("127.0.0.1", port, tls_context(identity.cert, verify=True))
        with pytest.raises(ConnectionFailedError, match="closed the connection before it answered"):
            await fetch_list(connection, ALICE)
        await connection.close()


async def test_a_server_that_says_nothing(tmp_path: Path) -> None:
    identity = self_signed(tmp_path)
    async with serving(silent, identity.server_context()) as port:
        connection = await connect("127.0.0.1", port, tls_context(identity.cert, verify=True))
        with pytest.raises(RefusedError, match=r"said nothing for 0\.05 s"):
            await connection.event(0.05)
        await connection.close()
