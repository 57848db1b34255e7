"""The certificate of the broker: the self-signed one of the beginning, and those that people bring.

What people bring is looked at before it is stored: a pair that clients refuse, or OpenSSL, would keep
everybody out. What only deserves a word is a warning.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import ip_address
from itertools import pairwise

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes, PublicKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from appliance.errors import AdminError
from appliance.model import Secret
from appliance.storage.settings import SSL_CA, SSL_CERT, SSL_CRL, SSL_KEY
from appliance.storage.store import Tx

VALID = timedelta(days=3650)
SKEW = timedelta(days=1)
"""How far a client's clock may be behind."""
KEY_BITS = 2048
"""Of RSA: the Perl client calls every key up to 1024 bits weak, of elliptic curves too, and refuses it."""
LONGEST = 32_768
"""Characters of a PEM text: what the column holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What the broker shows to clients, and by what it knows theirs: PEM texts."""

    key: Secret
    cert: str
    ca: str | None = None
    crl: str | None = None


def self_signed(names: Sequence[str], now: datetime) -> tuple[Secret, str]:
    """Key and certificate (RSA, PEM) of a server known by `names`: host names and addresses."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=KEY_BITS)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:64])])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(now + VALID)
        .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return Secret(pem.decode()), certificate.public_bytes(serialization.Encoding.PEM).decode()


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


async def install(tx: Tx, identity: Identity, now: datetime, *, clients_need_one: bool, by: str) -> list[str]:
    """Have the broker use `identity` from now on, and nothing of the former one; returns warnings.

    `clients_need_one` says whether clients must show certificates (`l7r.client.cert.require`).

    :raises AdminError: it cannot be used; nothing is changed
    """
    warnings = check(identity, now)
    if clients_need_one and identity.ca is None:
        raise AdminError(
            "ca: l7r.client.cert.require is on, and clients would be checked against nothing",
            hint="give ca=FILE, or set l7r.client.cert.require=0 first",
        )
    texts = {
        SSL_KEY: identity.key.reveal(),
        SSL_CERT: identity.cert,
        SSL_CA: identity.ca,
        SSL_CRL: identity.crl,
    }
    await tx.settings.replace_ssl({name: text for name, text in texts.items() if text is not None})
    subject = _certificates(identity.cert, "cert")[0].subject.rfc4514_string()
    await tx.log.append(by=by, what="config ssl", object="certificate", now=subject)
    return warnings


def check(identity: Identity, now: datetime) -> list[str]:
    """Warnings about key, certificates and lists that can be used.

    :raises AdminError: one of them cannot
    """
    texts = {"key": identity.key.reveal(), "cert": identity.cert, "ca": identity.ca, "crl": identity.crl}
    for name, text in texts.items():
        if text is not None and len(text) > LONGEST:
            raise AdminError(f"{name}: the file is longer than {LONGEST} characters")
    chain = _certificates(identity.cert, "cert")
    key = _key(identity.key)
    if _public(key.public_key()) != _public(chain[0].public_key()):
        if any(_public(key.public_key()) == _public(each.public_key()) for each in chain[1:]):
            raise AdminError("cert: the server's certificate is not the first", hint=ORDER)
        raise AdminError("cert: the certificate belongs to another key", hint="give the pair made together")
    _check_order(chain)
    _prove(identity)
    warnings = [*_about_key(key), *_about_time(chain, now)]
    if not _has_names(chain[0]):
        warnings.append("cert: the certificate names no host (subjectAltName): clients will warn their users")
    return warnings + _check_authority(identity, now)


def last_day(certificate: str) -> datetime | None:
    """When the first certificate of a PEM text runs out; None if the text holds none."""
    try:
        return x509.load_pem_x509_certificate(certificate.encode()).not_valid_after_utc
    except ValueError:
        return None


ORDER = "put the server's certificate first, then the one that issued it, and so on"


def _key(text: Secret) -> PrivateKeyTypes:
    try:
        key = serialization.load_pem_private_key(text.reveal().encode(), password=None)
    except TypeError as exc:
        raise AdminError(
            "key: the key is protected by a pass phrase, which the daemon could not type",
            hint="remove it: openssl pkey -in KEY -out NEWKEY",
        ) from exc
    except (ValueError, UnsupportedAlgorithm) as exc:
        raise AdminError("key: this holds no private key in PEM form") from exc
    if isinstance(key, rsa.RSAPrivateKey) and key.key_size < KEY_BITS:
        raise AdminError(f"key: {key.key_size} bits of RSA are too weak", hint=f"at least {KEY_BITS} bits")
    if not isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey):
        raise AdminError("key: clients of QVD know keys of RSA and of elliptic curves only")
    return key


def _certificates(text: str, name: str) -> list[x509.Certificate]:
    try:
        found = x509.load_pem_x509_certificates(text.encode())
        for each in found:
            each.public_key()
        return found
    except (ValueError, UnsupportedAlgorithm) as exc:
        raise AdminError(f"{name}: this holds no certificate in PEM form") from exc


def _public(key: PublicKeyTypes) -> bytes:
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def _check_order(chain: Sequence[x509.Certificate]) -> None:
    for number, (each, issuer) in enumerate(pairwise(chain), start=1):
        try:
            each.verify_directly_issued_by(issuer)
        except (ValueError, TypeError, InvalidSignature) as exc:
            raise AdminError(
                f"cert: certificate {number + 1} of the file did not issue certificate {number}", hint=ORDER
            ) from exc


def _prove(identity: Identity) -> None:
    """Have OpenSSL load the pair, as the daemon will; in memory, for the key is nobody else's."""
    memory = os.memfd_create("pair", os.MFD_CLOEXEC)
    try:
        os.write(memory, f"{identity.key.reveal()}\n{identity.cert}\n".encode())
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(f"/proc/self/fd/{memory}")
    except ssl.SSLError as exc:
        raise AdminError(f"cert: OpenSSL refuses the pair: {exc.reason or exc}") from exc
    finally:
        os.close(memory)


def _about_key(key: PrivateKeyTypes) -> list[str]:
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return ["key: the Perl client of QVD calls keys of elliptic curves weak and refuses them: use RSA"]
    return []


def _about_time(chain: Sequence[x509.Certificate], now: datetime) -> list[str]:
    warnings = []
    for each in chain:
        name = each.subject.rfc4514_string() or "without a name"
        if each.not_valid_after_utc < now:
            warnings.append(f"cert: the certificate {name} expired on {each.not_valid_after_utc:%Y-%m-%d}")
        elif each.not_valid_before_utc > now:
            warnings.append(f"cert: the certificate {name} begins on {each.not_valid_before_utc:%Y-%m-%d}")
    return warnings


def _has_names(certificate: x509.Certificate) -> bool:
    try:
        certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except (x509.ExtensionNotFound, ValueError):
        return False
    return True


def _check_authority(identity: Identity, now: datetime) -> list[str]:
    """Warnings about what client certificates are checked against."""
    if identity.ca is None:
        if identity.crl is not None:
            raise AdminError("crl: a list of revoked certificates needs its authority", hint="give ca= too")
        return []
    authorities = _certificates(identity.ca, "ca")
    if identity.crl is None:
        return []
    try:
        revoked = x509.load_pem_x509_crl(identity.crl.encode())
    except ValueError as exc:
        raise AdminError("crl: this holds no list of revoked certificates in PEM form") from exc
    if not any(_signed(revoked, each) for each in authorities):
        raise AdminError("crl: none of the certificates in ca signed this list")
    ends = revoked.next_update_utc
    if ends is not None and ends < now:
        return [f"crl: the list ended on {ends:%Y-%m-%d}: all client certificates will be refused"]
    return []


def _signed(revoked: x509.CertificateRevocationList, authority: x509.Certificate) -> bool:
    key = authority.public_key()
    try:
        return revoked.issuer == authority.subject and revoked.is_signature_valid(key)  # type: ignore[arg-type]  # of other kinds it raises
    except (TypeError, ValueError, UnsupportedAlgorithm):
        return False
