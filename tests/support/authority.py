"""A certificate authority for tests: issues certificates, authorities below it, and lists of revoked ones."""

from __future__ import annotations

import functools
import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

NOW = datetime.now(UTC)
PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


@functools.cache
def rsa_key(which: int | str = 0, bits: int = 2048) -> rsa.RSAPrivateKey:
    """One of a few keys, each made once: that takes a while."""
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


def key_text(key: PrivateKey, phrase: bytes | None = None) -> str:
    """A private key in PEM form."""
    protection = (
        serialization.NoEncryption() if phrase is None else serialization.BestAvailableEncryption(phrase)
    )
    text = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, protection)
    return text.decode()


@dataclass(frozen=True)
class Certificate:
    """A certificate with its key."""

    certificate: x509.Certificate
    key: PrivateKey

    @property
    def text(self) -> str:
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    @property
    def key_text(self) -> str:
        return key_text(self.key)

    def issue(
        self,
        name: str,
        key: PrivateKey | None = None,
        *,
        days: int = 365,
        authority: bool = False,
        named: bool = True,
    ) -> Certificate:
        """A certificate signed by this one."""
        return _signed(name, key or rsa_key(), self, days=days, authority=authority, named=named)

    def revokes(self, *certificates: Certificate, days: int = 30) -> str:
        """A list of revoked certificates, in PEM form."""
        ends = NOW + timedelta(days=days)
        made = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.certificate.subject)
            .last_update(ends - timedelta(days=60))
            .next_update(ends)
        )
        for each in certificates:
            revoked = x509.RevokedCertificateBuilder().serial_number(each.certificate.serial_number)
            made = made.add_revoked_certificate(revoked.revocation_date(NOW).build())
        return made.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def authority(name: str = "test authority") -> Certificate:
    """A root with a key of its own."""
    return _signed(name, rsa_key(name), None, days=365, authority=True, named=False)


def _signed(
    name: str, key: PrivateKey, issuer: Certificate | None, *, days: int, authority: bool, named: bool
) -> Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    ends = NOW + timedelta(days=days)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(min(NOW, ends) - timedelta(days=400))
        .not_valid_after(ends)
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
    )
    if named:
        names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        made = made.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return Certificate(made.sign(key if issuer is None else issuer.key, hashes.SHA256()), key)
