"""`qa admin init`: sets up what is missing, and only that."""

from __future__ import annotations

import asyncio
import ssl
from ipaddress import ip_address

from cryptography import x509

from appliance.storage.settings import SSL_CERT, SSL_KEY
from tests.support.qa import Installation


def test_sets_up_an_installation(bare: Installation) -> None:
    said = bare.ok("admin", "init")
    assert "Host node1 registered" in said.out
    assert [host["name"] for host in bare.listed("host")] == ["node1"]


def test_a_second_run_changes_nothing_and_says_so(qa: Installation) -> None:
    before = (qa.directory / "storage/qvd.db").read_bytes()
    assert "Nothing to do" in qa.ok("admin", "init").out
    assert (qa.directory / "storage/qvd.db").read_bytes() == before


def test_nobody_else_can_look_into_the_storage(qa: Installation) -> None:
    assert (qa.directory / "storage").stat().st_mode & 0o077 == 0
    assert (qa.directory / "storage/qvd.db").stat().st_mode & 0o077 == 0


def test_an_open_storage_is_closed(bare: Installation) -> None:
    (bare.directory / "storage").mkdir(mode=0o755)
    bare.ok("admin", "init")
    assert (bare.directory / "storage").stat().st_mode & 0o077 == 0


def test_the_certificate_names_the_node_and_the_gateway(qa: Installation) -> None:
    async def stored() -> tuple[str | None, str | None]:
        async with qa.write() as tx:
            return await tx.settings.ssl(SSL_CERT), await tx.settings.ssl(SSL_KEY)

    cert, key = asyncio.run(stored())
    assert cert is not None
    assert key is not None
    names = (
        x509.load_pem_x509_certificate(cert.encode())
        .extensions.get_extension_for_class(x509.SubjectAlternativeName)
        .value
    )
    assert "node1" in names.get_values_for_type(x509.DNSName)
    assert {ip_address("127.0.0.1"), ip_address("10.9.0.1")} <= set(names.get_values_for_type(x509.IPAddress))
    ssl.create_default_context().load_verify_locations(cadata=cert)


def test_everything_that_is_missing_is_named_at_once(bare: Installation) -> None:
    bare.config.write_text(f"path.storage.root = {bare.directory}/storage\npath.run = {bare.directory}/run\n")
    said = bare("admin", "init")
    assert said.status == 1
    assert all(key in said.err for key in ("ip.start", "netmask", "gateway"))
    assert not (bare.directory / "storage").exists()


def test_a_network_that_makes_no_sense_is_refused(bare: Installation) -> None:
    bare.write_config(vm__network__ip__start="10.8.0.2")
    assert "vm.network.ip.start = 10.8.0.2 is not in 10.9.0.0/29" in bare("admin", "init").err


def test_a_slip_in_the_file_is_refused(bare: Installation) -> None:
    bare.write_config(l7r__prot="1")
    said = bare("admin", "init")
    assert said.status == 1
    assert "did you mean l7r.port?" in said.err


def test_keys_without_effect_are_warned_about(bare: Installation) -> None:
    bare.write_config(l7r__as_user="qvd")
    assert "l7r.as_user" in bare.ok("admin", "init").err


def test_a_node_that_is_called_otherwise_than_before_is_told_its_name(qa: Installation) -> None:
    qa.write_config(nodename="node2")
    said = qa("admin", "init")
    assert said.status == 1
    assert "nodename = node1 back" in said.err
    assert [host["name"] for host in qa.listed("host", "id=1")] == ["node1"]


def test_without_a_database_the_remedy_is_named(bare: Installation) -> None:
    said = bare("vm", "list")
    assert said.status == 1
    assert "run qa admin init" in said.err
