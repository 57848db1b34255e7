"""The TLS side of the broker: key and certificate from the database, as a context for new connections."""

from __future__ import annotations

import os
import ssl
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from appliance import config
from appliance.config import Settings
from appliance.errors import ConfigError, HostError
from appliance.model import Secret
from appliance.storage.paths import Paths
from appliance.storage.settings import SSL_CA, SSL_CERT, SSL_CRL, SSL_KEY
from appliance.storage.store import Store

REMEDY = "run qa admin init, or set another pair with qa config ssl"
VERSIONS: Mapping[str, ssl.TLSVersion] = {
    "1.0": ssl.TLSVersion.TLSv1,
    "1.1": ssl.TLSVersion.TLSv1_1,
    "1.2": ssl.TLSVersion.TLSv1_2,
    "1.3": ssl.TLSVersion.TLSv1_3,
}
WEAK = ("1.0", "1.1")
UNFINISHED = ".new-"
FILES = {SSL_KEY: "key.pem", SSL_CERT: "cert.pem", SSL_CA: "ca.pem", SSL_CRL: "crl.pem"}


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsWishes:
    """Everything of which a context is made: two that are equal make the same one."""

    key: Secret
    cert: str
    ca: str | None
    crl: str | None
    versions: tuple[str, str]
    ciphers: str | None
    client_certificates: bool


async def tls_wishes(store: Store, settings: Settings) -> TlsWishes | None:
    """What is wanted now; None if clients speak in clear.

    :raises ConfigError: there is no certificate
    """
    if not settings[config.L7R_USE_SSL]:
        return None
    async with store.read() as tx:
        texts = await tx.settings.ssl_all()
    key, cert = texts.get(SSL_KEY), texts.get(SSL_CERT)
    if not key or not cert:
        raise ConfigError("there is no certificate for l7r.port", hint=REMEDY)
    return TlsWishes(
        key=Secret(key),
        cert=cert,
        ca=texts.get(SSL_CA),
        crl=texts.get(SSL_CRL),
        versions=settings[config.L7R_SSL_VERSION],
        ciphers=settings[config.L7R_SSL_CIPHERS],
        client_certificates=settings[config.L7R_CLIENT_CERT],
    )


def make_context(wishes: TlsWishes, settings: Settings) -> ssl.SSLContext:
    """A context for the handshakes to come.

    TLS 1.3 sends its session tickets after the handshake: bytes that are no reply. The QVD clients wait
    for the socket to be readable and then insist on data: those of 3.5 end with "socket closed
    unexpectedly", the native one with CURLE_AGAIN. So TLS 1.3 gets none; TLS 1.2 resumes sessions.

    OpenSSL reads keys from files only, so all are written below `path.l7r.ssl`, for nobody else to read.

    :raises ConfigError: the certificate does not fit its key, or a setting cannot be honoured
    :raises HostError: the files cannot be written
    """
    directory = Paths(settings).ssl
    try:
        files = _written(wishes, directory)
    except OSError as exc:
        raise HostError(f"the TLS files in {directory} cannot be written: {exc.strerror or exc}") from exc
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.num_tickets = 0
    _set_versions(context, wishes)
    try:
        context.load_cert_chain(files[SSL_CERT], files[SSL_KEY])
    except (ssl.SSLError, ValueError) as exc:
        raise ConfigError(f"l7r.ssl.cert and l7r.ssl.key cannot be used: {exc}", hint=REMEDY) from exc
    if wishes.client_certificates:
        _require_certificates(context, files)
    return context


def _set_versions(context: ssl.SSLContext, wishes: TlsWishes) -> None:
    lowest, highest = wishes.versions
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # old versions are wanted here, or refused
        context.minimum_version, context.maximum_version = VERSIONS[lowest], VERSIONS[highest]
    ciphers = wishes.ciphers or ("DEFAULT" if lowest in WEAK else None)
    if ciphers is None:
        return
    if lowest in WEAK and "@SECLEVEL" not in ciphers:
        ciphers += ":@SECLEVEL=0"  # OpenSSL 3 speaks the old versions at no higher level
    try:
        context.set_ciphers(ciphers)
    except ssl.SSLError as exc:
        raise ConfigError(
            f"l7r.ssl.options.SSL_cipher_list = {wishes.ciphers!r}: OpenSSL knows none of these ciphers"
        ) from exc


def _require_certificates(context: ssl.SSLContext, files: Mapping[str, Path]) -> None:
    if SSL_CA not in files:
        raise ConfigError(
            "l7r.client.cert.require is on, and no authority is named",
            hint="name it with qa config ssl ca=FILE, beside key= and cert=",
        )
    context.verify_mode = ssl.CERT_REQUIRED
    try:
        context.load_verify_locations(files[SSL_CA])
        if SSL_CRL in files:
            context.load_verify_locations(files[SSL_CRL])
            context.verify_flags |= ssl.VerifyFlags.VERIFY_CRL_CHECK_LEAF
    except (ssl.SSLError, ValueError) as exc:
        raise ConfigError(f"l7r.ssl.ca and l7r.ssl.crl cannot be used: {exc}", hint=REMEDY) from exc


def _written(wishes: TlsWishes, directory: Path) -> dict[str, Path]:
    """The files with the present texts; those that are no longer wanted are gone."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory.chmod(0o700)
    for left in directory.glob(f"{UNFINISHED}*"):  # of a process that was killed
        left.unlink(missing_ok=True)
    texts = {SSL_KEY: wishes.key.reveal(), SSL_CERT: wishes.cert, SSL_CA: wishes.ca, SSL_CRL: wishes.crl}
    for name, text in texts.items():
        if text is None:
            (directory / FILES[name]).unlink(missing_ok=True)
        else:
            _replace(directory / FILES[name], text)
    return {name: directory / FILES[name] for name, text in texts.items() if text is not None}


def _replace(file: Path, text: str) -> None:
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=UNFINISHED)  # made with mode 0600
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
        Path(name).replace(file)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
