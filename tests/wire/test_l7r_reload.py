"""Certificate, TLS settings and port change under connected clients, who notice nothing (trap T28)."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509

from appliance.clock import SystemClock
from appliance.model import AlarmKind, Secret
from appliance.ops import certificate
from appliance.ops.certificate import Identity
from tests.support.authority import Certificate, authority, rsa_key
from tests.support.broker import Client, Installation, connect_request, free_port, installation, request

ROOT = authority()
NX = b"NXPROXY-3.5.0 "


async def given(node: Installation, shown: Certificate, **more: str) -> None:
    """What `qa config ssl` does, and the HKD when it notices."""
    identity = Identity(key=Secret(shown.key_text), cert=shown.text, **more)
    async with node.store.write() as tx:
        await certificate.install(tx, identity, SystemClock().now(), clients_need_one=False, by="test")
    node.feed.announce_all()


def met(node: Installation, context: ssl.SSLContext | None = None) -> x509.Certificate:
    """The certificate that a new client meets; it pings, too."""
    if context is None:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection(("127.0.0.1", node.port), timeout=5) as plain,
        context.wrap_socket(plain) as tls,
    ):
        found = tls.getpeercert(binary_form=True)
        tls.sendall(request("/qvd/ping"))
        said = tls.recv(4096)
    if not said:
        raise ConnectionResetError
    assert b"200 OK" in said
    assert found is not None
    return x509.load_der_x509_certificate(found)


async def until_met(node: Installation, wanted: Certificate) -> None:
    async with asyncio.timeout(20):
        while await asyncio.to_thread(met, node) != wanted.certificate:
            await asyncio.sleep(0.02)


async def until_logged(caplog: pytest.LogCaptureFixture, text: str) -> None:
    async with asyncio.timeout(20):
        while text not in caplog.text:
            await asyncio.sleep(0.02)


async def in_session(node: Installation) -> Client:
    await node.guest(7)
    client = await node.client()
    reply, _ = await client.connect(7)
    assert reply.status == 101
    await talks(client)
    return client


async def talks(client: Client) -> None:
    await client.send(NX)
    assert await asyncio.wait_for(client.reader.readexactly(len(NX)), 10) == NX


async def test_another_certificate_for_new_clients_and_nothing_for_the_others(tmp_path: Path) -> None:
    async with installation(tmp_path) as node:
        client, idle = await in_session(node), await node.client()
        shown = ROOT.issue("another")
        await given(node, shown, ca=ROOT.text)
        await until_met(node, shown)
        await talks(client)
        assert (await idle.ask("/qvd/list_of_vm?")).status == 200
        files = {file.name: file for file in (tmp_path / "run" / "l7r" / "ssl").iterdir()}
        assert set(files) == {"key.pem", "cert.pem", "ca.pem"}
        assert {file.stat().st_mode & 0o777 for file in files.values()} == {0o600}
        assert files["cert.pem"].read_text() == shown.text
        await given(node, again := ROOT.issue("again"))
        await until_met(node, again)
        assert not files["ca.pem"].exists()


async def test_what_cannot_be_used_leaves_everything_as_it_was(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="appliance.l7r")
    async with installation(tmp_path) as node:
        before = await asyncio.to_thread(met, node)
        async with node.store.write() as tx:
            await tx.settings.set_ssl({"l7r.ssl.cert": ROOT.issue("of another key", rsa_key(1)).text})
        for _ in range(3):
            node.feed.announce_all()
            await until_logged(caplog, "TLS stays as it was")
        assert await asyncio.to_thread(met, node) == before
        assert caplog.text.count("TLS stays as it was") == 1
        await given(node, shown := ROOT.issue("good"))
        await until_met(node, shown)


async def test_files_that_cannot_be_written_leave_everything_as_it_was(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with installation(tmp_path) as node:
        directory = tmp_path / "run" / "l7r" / "ssl"
        directory.rename(directory.with_name("moved"))
        directory.touch()
        before = await asyncio.to_thread(met, node)
        await given(node, shown := ROOT.issue("another"))
        await until_logged(caplog, "TLS stays as it was")
        assert await asyncio.to_thread(met, node) == before
        directory.unlink()
        node.feed.announce_all()
        await until_met(node, shown)


async def test_client_certificates_are_asked_for_and_checked(tmp_path: Path) -> None:
    good, revoked = ROOT.issue("good", rsa_key(2)), ROOT.issue("revoked", rsa_key(3))
    stranger = authority("a stranger").issue("foreign", rsa_key(2))
    async with installation(tmp_path) as node:
        client = await in_session(node)
        await given(node, shown := ROOT.issue("server"), ca=ROOT.text, crl=ROOT.revokes(revoked))
        await until_met(node, shown)
        node.settings["l7r.client.cert.require"] = "1"
        node.feed.announce_all()
        async with asyncio.timeout(20):
            with suppress(ssl.SSLError, ConnectionError):
                while True:
                    await asyncio.to_thread(met, node)
        assert await asyncio.to_thread(met, node, presenting(tmp_path, good)) == shown.certificate
        for other in (revoked, stranger):
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await asyncio.to_thread(met, node, presenting(tmp_path, other))
        await talks(client)


def presenting(directory: Path, own: Certificate) -> ssl.SSLContext:
    file = directory / "client.pem"
    file.write_text(own.key_text + own.text)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.load_cert_chain(file)
    return context


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
async def test_old_clients_can_be_let_in(tmp_path: Path) -> None:
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    old.set_ciphers("ALL:@SECLEVEL=0")
    old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1
    async with installation(tmp_path) as node:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.to_thread(met, node, old)
        node.settings["l7r.ssl.options.SSL_version"] = "SSLv23:!SSLv2:!SSLv3"
        node.feed.announce_all()
        async with asyncio.timeout(20):
            while True:
                with suppress(ssl.SSLError, ConnectionError):
                    await asyncio.to_thread(met, node, old)
                    break
                await asyncio.sleep(0.02)


async def test_ciphers_can_be_chosen(tmp_path: Path) -> None:
    settings = {"l7r__ssl__options__SSL_version": "TLSv1_2"}
    settings["l7r__ssl__options__SSL_cipher_list"] = "ECDHE+AES256"
    async with installation(tmp_path, **settings) as node:
        client = await node.client()
        name, version, _ = client.writer.get_extra_info("cipher")
        assert ("AES256" in name, version) == (True, "TLSv1.2")


async def test_the_port_moves_and_whoever_is_connected_stays(tmp_path: Path) -> None:
    async with installation(tmp_path) as node:
        client = await in_session(node)
        waiting = await node.client()
        await waiting.send(connect_request(8))
        before, node.port = node.port, free_port()
        node.settings["l7r.port"] = str(node.port)
        node.feed.announce_all()
        assert (await (await node.admitted()).ask("/qvd/ping")).status == 200
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", before), timeout=5)
        await talks(client)
        await node.guest(8)
        assert (await waiting.final())[0].status == 101


async def test_a_port_that_cannot_be_had_changes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with installation(tmp_path) as node:
        client = await in_session(node)
        with socket.create_server(("127.0.0.1", 0)) as another:
            node.settings["l7r.port"] = str(another.getsockname()[1])
            node.feed.announce_all()
            await until_logged(caplog, "the port stays as it was")
            assert (await (await node.admitted()).ask("/qvd/ping")).status == 200
        await talks(client)
        node.port = int(node.settings["l7r.port"])
        node.feed.announce_all()
        assert (await (await node.admitted()).ask("/qvd/ping")).status == 200


async def test_addresses_come_and_go_on_the_same_port(tmp_path: Path) -> None:
    async with installation(tmp_path) as node:
        client = await in_session(node)
        for addresses in ("127.0.0.2,127.0.0.1", "127.0.0.2", "0.0.0.0", "127.0.0.1"):
            node.settings["l7r.address"] = addresses
            node.feed.announce_all()
            for address in ("127.0.0.1", "127.0.0.2"):
                heard = address in addresses or addresses == "0.0.0.0"
                await until_heard(address, node.port, heard)
        await talks(client)


async def until_heard(address: str, port: int, wanted: bool) -> None:
    async with asyncio.timeout(20):
        while True:
            heard = False
            with suppress(ConnectionError), socket.create_connection((address, port), timeout=5):
                heard = True
            if heard is wanted:
                return
            await asyncio.sleep(0.02)


async def test_a_certificate_that_runs_out_is_an_alarm_until_there_is_another(tmp_path: Path) -> None:
    async with installation(tmp_path) as node:
        async with node.store.read() as tx:
            (alarm,) = await tx.alarms.find()  # the broker of the tests begins with a day that is left
        assert (alarm.kind, alarm.object) == (AlarmKind.CERTIFICATE, "l7r")
        tomorrow = SystemClock().now() + timedelta(days=1)
        assert alarm.text.startswith("the certificate of the L7R expires on ")
        assert alarm.text.endswith((f"{tomorrow:%Y-%m-%d}", f"{tomorrow - timedelta(days=1):%Y-%m-%d}"))
        await given(node, shown := ROOT.issue("long-lived"))
        await until_met(node, shown)
        async with node.store.read() as tx:
            assert await tx.alarms.find() == []
