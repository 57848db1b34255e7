"""`qa config ssl`: what clients or OpenSSL would refuse never gets as far as the database."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import select

from appliance.storage.schema import events
from tests.support.authority import Certificate, authority, key_text, rsa_key
from tests.support.bad_input import Bad, check_refused
from tests.support.qa import Installation

ROOT = authority()
MIDDLE = ROOT.issue("middle", rsa_key(1), authority=True)
SERVER = MIDDLE.issue("server")
CHAIN = SERVER.text + MIDDLE.text + ROOT.text


async def stored(qa: Installation) -> dict[str, str]:
    async with qa.store() as store, store.read() as tx:
        return {key.removeprefix("l7r.ssl."): value for key, value in (await tx.settings.ssl_all()).items()}


@dataclass
class Files:
    """Writes files, and tells their names as arguments."""

    directory: Path

    def __call__(self, **texts: str) -> list[str]:
        words = []
        for name, text in texts.items():
            file = self.directory / f"{name}.pem"
            file.write_text(text)
            words.append(f"{name}={file}")
        return words


@pytest.fixture
def files(tmp_path: Path) -> Files:
    (tmp_path / "brought").mkdir()
    return Files(tmp_path / "brought")


@pytest.fixture
def ready(qa: Installation) -> Installation:
    qa.ok("admin", "init", "--yes")
    return qa


def test_a_pair_with_its_chain(ready: Installation, files: Files) -> None:
    said = ready.ok("config", "ssl", *files(key=SERVER.key_text, cert=CHAIN))
    assert (said.out, said.err) == ("SSL certificate and private key set.\n\n", "")
    assert asyncio.run(stored(ready)) == {"key": SERVER.key_text, "cert": CHAIN}
    words = asyncio.run(audit(ready))
    assert words[-1] == ("config ssl", "CN=server")
    assert "PRIVATE" not in str(words)


async def audit(qa: Installation) -> list[tuple[str, str | None]]:
    async with qa.store() as store, store.read() as tx:
        rows = await tx.connection.execute(select(events.c.what, events.c.now))
        return [(row.what, row.now) for row in rows]


def test_what_is_not_given_again_is_gone(ready: Installation, files: Files) -> None:
    lists = {"ca": ROOT.text, "crl": ROOT.revokes(MIDDLE)}
    said = ready.ok("config", "ssl", *files(key=SERVER.key_text, cert=CHAIN, **lists))
    assert said.out == "SSL certificate, private key, ca and crl set.\n\n"
    assert set(asyncio.run(stored(ready))) == {"key", "cert", "ca", "crl"}
    ready.ok("config", "ssl", *files(key=SERVER.key_text, cert=CHAIN))
    assert set(asyncio.run(stored(ready))) == {"key", "cert"}


ELLIPTIC = ec.generate_private_key(ec.SECP256R1())


@pytest.mark.parametrize(
    ("shown", "warning"),
    [
        (ROOT.issue("old", days=-3), "the certificate CN=old expired on "),
        (ROOT.issue("modern", ELLIPTIC), "the Perl client of QVD calls keys of elliptic curves weak"),
        (ROOT.issue("nameless", named=False), "names no host (subjectAltName)"),
    ],
    ids=["expired", "elliptic", "nameless"],
)
def test_what_only_deserves_a_word(
    ready: Installation, files: Files, shown: Certificate, warning: str
) -> None:
    said = ready.ok("config", "ssl", *files(key=shown.key_text, cert=shown.text))
    (line,) = said.err.splitlines()
    assert line.startswith("Warning: ")
    assert warning in line
    assert asyncio.run(stored(ready))["cert"] == shown.text


def test_a_list_that_has_ended(ready: Installation, files: Files) -> None:
    texts = {"ca": ROOT.text, "crl": ROOT.revokes(days=-1)}
    said = ready.ok("config", "ssl", *files(key=SERVER.key_text, cert=CHAIN, **texts))
    assert "all client certificates will be refused" in said.err


WEAK = rsa_key(0, 1024)
STRANGER = authority("stranger")
REFUSED = {
    "the key of another": ({"key": key_text(rsa_key(2)), "cert": CHAIN}, "belongs to another key"),
    "the server last": ({"key": SERVER.key_text, "cert": MIDDLE.text + SERVER.text}, "is not the first"),
    "a link is missing": ({"key": SERVER.key_text, "cert": SERVER.text + ROOT.text}, "did not issue"),
    "a weak key": ({"key": key_text(WEAK), "cert": ROOT.issue("weak", WEAK).text}, "1024 bits"),
    "a pass phrase": ({"key": key_text(rsa_key(), b"phrase"), "cert": CHAIN}, "pass phrase"),
    "files exchanged": ({"key": CHAIN, "cert": SERVER.key_text}, "holds no "),
    "no PEM at all": ({"key": "rubbish", "cert": CHAIN}, "no private key"),
    "an empty certificate": ({"key": SERVER.key_text, "cert": ""}, "no certificate"),
    "half a certificate": ({"key": SERVER.key_text, "cert": SERVER.text[:500]}, "no certificate"),
    "a list without authority": ({"key": SERVER.key_text, "cert": CHAIN, "crl": ROOT.revokes()}, "give ca="),
    "a foreign list": (
        {"key": SERVER.key_text, "cert": CHAIN, "ca": ROOT.text, "crl": STRANGER.revokes()},
        "signed this list",
    ),
    "an authority that is none": ({"key": SERVER.key_text, "cert": CHAIN, "ca": "x"}, "ca: this holds no"),
    "a list that is none": (
        {"key": SERVER.key_text, "cert": CHAIN, "ca": ROOT.text, "crl": "x"},
        "crl: this holds no list",
    ),
    "too much": ({"key": SERVER.key_text, "cert": CHAIN * 40}, "longer than 32768"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_used_is_refused(ready: Installation, files: Files, name: str) -> None:
    texts, says = REFUSED[name]
    said = check_refused(ready, Bad(" ".join(["config", "ssl", *files(**texts)]), says))
    assert "BEGIN" not in said.err


def test_files_that_are_none(ready: Installation, files: Files) -> None:
    key, cert = files(key=SERVER.key_text, cert=CHAIN)
    check_refused(ready, Bad(f"config ssl key=/nowhere/at/all {cert}", "No such file"))
    check_refused(ready, Bad(f"config ssl {key} cert={files.directory}", "Is a directory"))
    binary = files.directory / "cert.der"
    binary.write_bytes(os.urandom(400))
    check_refused(ready, Bad(f"config ssl {key} cert={binary}", "not in PEM form"))
    check_refused(ready, Bad(f"config ssl {key}", "cert is missing", 2))


def test_client_certificates_need_an_authority_whichever_comes_first(
    ready: Installation, files: Files
) -> None:
    check_refused(ready, Bad("config set l7r.client.cert.require=1", "qa config ssl ca="))
    words = files(key=SERVER.key_text, cert=CHAIN, ca=ROOT.text)
    ready.ok("config", "ssl", *words)
    ready.ok("config", "set", "l7r.client.cert.require=1")
    check_refused(ready, Bad(" ".join(["config", "ssl", *words[:2]]), "l7r.client.cert.require is on"))


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("l7r.ssl.options.SSL_cipher_list=rot13", "OpenSSL knows none"),
        ("l7r.ssl.options.SSL_version=SSLv3", "write versions like"),
        ("l7r.auth.plugins=kerberos", "there are default"),
        ("l7r.address=somewhere:8443", "addresses separated by commas"),
    ],
)
def test_settings_of_the_broker_are_vetted(ready: Installation, word: str, says: str) -> None:
    check_refused(ready, Bad(f"config set {word}", says))
