"""The TLS side of the broker: key and certificate from the database, as a context for the listener."""

from __future__ import annotations

import os
import ssl
import tempfile
from pathlib import Path

from appliance.config import Settings
from appliance.errors import ConfigError
from appliance.storage.paths import Paths
from appliance.storage.settings import SSL_CERT, SSL_KEY
from appliance.storage.store import Store

REMEDY = "run qa admin init, or set another pair with qa config ssl"


async def server_context(store: Store, settings: Settings) -> ssl.SSLContext:
    """A context with the installation's certificate, TLS 1.2 or later, tickets inside the handshake only.

    TLS 1.3 sends its session tickets after the handshake: bytes that are no reply. The QVD clients wait
    for the socket to be readable and then insist on data: those of 3.5 end with "socket closed
    unexpectedly", the native one with CURLE_AGAIN. So TLS 1.3 gets none; TLS 1.2 resumes sessions.

    OpenSSL reads keys from files only, so both are written below `path.l7r.ssl`, for nobody else to read.

    :raises ConfigError: there is no certificate, or it does not fit its key
    """
    async with store.read() as tx:
        key, cert = await tx.settings.ssl(SSL_KEY), await tx.settings.ssl(SSL_CERT)
    if not key or not cert:
        raise ConfigError("there is no certificate for l7r.port", hint=REMEDY)
    directory = Paths(settings).ssl
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory.chmod(0o700)
    key_file = _written(directory / "key.pem", key)
    cert_file = _written(directory / "cert.pem", cert)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.num_tickets = 0
    try:
        context.load_cert_chain(cert_file, key_file)
    except (ssl.SSLError, ValueError) as exc:
        raise ConfigError(f"l7r.ssl.cert and l7r.ssl.key cannot be used: {exc}", hint=REMEDY) from exc
    return context


def _written(file: Path, text: str) -> Path:
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")  # made with mode 0600
    with os.fdopen(handle, "w", encoding="ascii") as stream:
        stream.write(text)
    return Path(name).replace(file)
