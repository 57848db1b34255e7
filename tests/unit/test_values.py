"""The longer texts among the settings."""

from __future__ import annotations

import pytest

from appliance import config
from appliance.config import Settings
from appliance.errors import ConfigError
from appliance.values import addresses, ciphers, one_of, tls_versions


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
