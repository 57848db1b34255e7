"""The first certificate is one that every deployed client can be told to accept."""

from __future__ import annotations

from datetime import UTC, datetime
from ipaddress import ip_address

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from appliance.ops.certificate import self_signed

NOW = datetime(2026, 11, 21, tzinfo=UTC)


def test_clients_that_count_the_bits_of_a_key_find_enough() -> None:
    _, pem = self_signed(["node1"], NOW)
    key = x509.load_pem_x509_certificate(pem.encode()).public_key()
    assert isinstance(key, RSAPublicKey)
    assert key.key_size >= 2048


def test_names_and_addresses_are_told_apart() -> None:
    _, pem = self_signed(["node1", "10.44.0.1"], NOW)
    extensions = x509.load_pem_x509_certificate(pem.encode()).extensions
    names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["node1"]
    assert names.get_values_for_type(x509.IPAddress) == [ip_address("10.44.0.1")]
