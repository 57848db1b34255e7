"""The longer texts among the settings."""

from __future__ import annotations

import pytest

from appliance import config
from appliance.config import Settings
from appliance.errors import ConfigError
from appliance.values import addresses, ciphers, one_of, portion, tls_versions


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("*", ("0.0.0.0", "::")),
        ("::", ("::",)),
        ("[2001:db8::1], 192.0.2.1", ("2001:db8::1", "192.0.2.1")),
        ("localhost,localhost", ("localhost",)),
        ("fe80::1%eth0", ("fe80::1%eth0",)),
    ],
)
def test_addresses(text: str, found: tuple[str, ...]) -> None:
    assert addresses(text) == found


@pytest.mark.parametrize("text", ["", ",", "a b", "::1::", "[", "host:8443", "-x"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ValueError, match="write"):
        addresses(text)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("TLSv1_2:TLSv1_3", ("1.2", "1.3")),
        ("TLSv1_2:!SSLv3:!SSLv2:!TLSv1", ("1.2", "1.2")),
        ("SSLv23:!SSLv2:!SSLv3", ("1.0", "1.3")),
        ("SSLv23:!TLSv1:!TLSv11", ("1.2", "1.3")),
        ("TLSv12 TLSv1_1", ("1.1", "1.2")),
        ("TLSv1.3", ("1.3", "1.3")),
    ],
)
def test_tls_versions(text: str, found: tuple[str, str]) -> None:
    assert tls_versions(text) == found


@pytest.mark.parametrize("text", ["", "SSLv3", "TLSv1_4", "!TLSv1", "TLSv1_2:!TLSv1_2", "TLSv1:TLSv1_2", "1"])
def test_what_is_no_list_of_tls_versions(text: str) -> None:
    with pytest.raises(ValueError):
        tls_versions(text)


def test_ciphers_are_those_that_openssl_knows() -> None:
    assert ciphers("") is None
    assert ciphers("HIGH:!aNULL:!MD5") == "HIGH:!aNULL:!MD5"
    with pytest.raises(ValueError, match="OpenSSL"):
        ciphers("rot13")


def test_a_list_of_known_words() -> None:
    parse = one_of("default", "ldap")
    assert parse("ldap, default,ldap") == ("ldap", "default")
    for text in ("", "default,kerberos"):
        with pytest.raises(ValueError, match="there are default, ldap"):
            parse(text)


def test_an_unknown_authenticator_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(ConfigError, match=r"l7r\.auth\.plugins = 'kerberos'.*there are default"):
        Settings({"l7r.auth.plugins": "kerberos"})[config.L7R_AUTH_PLUGINS]


@pytest.mark.parametrize(
    ("text", "of_a_gib"),
    [("5%", 53_687_091), ("0%", 0), ("100 %", 1 << 30), ("512m", 512 << 20), ("1.5k", 1536), ("2g", 2 << 30)],
)
def test_portions_are_shares_or_sizes(text: str, of_a_gib: int) -> None:
    assert portion(text).of(1 << 30) == of_a_gib


@pytest.mark.parametrize("text", ["", "5", "101%", "-1%", "m", "1x", "nan%", "9999999999999t"])
def test_other_texts_are_no_portions(text: str) -> None:
    with pytest.raises(ValueError, match=r"write a share|no more than"):
        portion(text)
