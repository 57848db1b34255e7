"""How the longer texts among the settings are read. Pure; a text that cannot be read is a `ValueError`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

EVERY = ("0.0.0.0", "::")  # noqa: S104  what `*` stands for
HOST_NAME = re.compile(r"[0-9A-Za-z][0-9A-Za-z.-]*")
SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt])(?:i?b)?", re.IGNORECASE)
UNITS = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
TLS_VERSIONS = ("1.0", "1.1", "1.2", "1.3")
TLS_WORDS: Mapping[str, tuple[str, ...]] = {
    "SSLV23": TLS_VERSIONS,
    "SSLV2": (),
    "SSLV3": (),
    "TLSV1": ("1.0",),
    **{f"TLSV{version.replace('.', '_')}": (version,) for version in TLS_VERSIONS},
    **{f"TLSV{version.replace('.', '')}": (version,) for version in TLS_VERSIONS},
}
"""What the words of a list mean; the two versions of SSL can only be unwanted."""


def addresses(text: str) -> tuple[str, ...]:
    """A comma list of IP addresses (brackets allowed) or host names; `*` is every one of IPv4 and IPv6.

    :raises ValueError: it names none, or one of them can be neither
    """
    found = [word.removeprefix("[").removesuffix("]") for word in _words(text)]
    if not found or not all(word == "*" or _names_host(word) for word in found):
        raise ValueError("write *, or addresses separated by commas: 192.0.2.1, 2001:db8::1, 0.0.0.0, ::")
    return tuple(dict.fromkeys(each for word in found for each in (EVERY if word == "*" else (word,))))


def _names_host(word: str) -> bool:
    try:
        ip_address(word)
    except ValueError:
        return HOST_NAME.fullmatch(word) is not None
    return True


def one_of(*known: str) -> Callable[[str], tuple[str, ...]]:
    """A parser of a comma list of words that are all `known`; each counts once."""

    def parse(text: str) -> tuple[str, ...]:
        found = tuple(dict.fromkeys(_words(text)))
        if not found or not set(found) <= set(known):
            raise ValueError(f"there are {', '.join(known)}")
        return found

    return parse


def tls_versions(text: str) -> tuple[str, str]:
    """The lowest and the highest TLS version of a list like `TLSv1_2:TLSv1_3` or `SSLv23:!TLSv1`.

    The words are those of QVD's files: a version, `SSLv23` for all, `!` before one that is not wanted.

    :raises ValueError: a word is unknown, no version is left, or one in the middle is left out
    """
    wanted: set[str] = set()
    unwanted: set[str] = set()
    for word in re.split(r"[:,\s]+", text.strip()):
        negated, name = word.startswith("!"), word.removeprefix("!").upper().replace(".", "_")
        named = TLS_WORDS.get(name)
        if named is None or not (named or negated):
            raise ValueError(
                "write versions like TLSv1_2:TLSv1_3, SSLv23 for all of TLS, ! before unwanted ones"
            )
        (unwanted if negated else wanted).update(named)
    left = [version for version in TLS_VERSIONS if version in wanted - unwanted]
    if not left:
        raise ValueError("it leaves no version of TLS")
    if left != list(TLS_VERSIONS[TLS_VERSIONS.index(left[0]) :][: len(left)]):
        raise ValueError("no version can be left out between two others")
    return left[0], left[-1]


def ciphers(text: str) -> str | None:
    """A cipher list in OpenSSL's words; empty for none.

    :raises ValueError: OpenSSL knows none of them
    """
    if not text.strip():
        return None
    import ssl

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).set_ciphers(text.strip())
    except ssl.SSLError:
        raise ValueError("OpenSSL knows none of these ciphers") from None
    return text.strip()


@dataclass(frozen=True, slots=True)
class Portion:
    """A part of something: a share of it, from 0 to 1, or so many bytes."""

    share: float
    size: int

    def of(self, whole: int) -> int:
        """How many bytes it is of `whole` bytes."""
        return round(self.share * whole) + self.size


def portion(text: str) -> Portion:
    """A portion: `5%`, or a size with a suffix.

    :raises ValueError: it is neither, or more than all
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*%", text.strip())
    if match is None:
        try:
            return Portion(0.0, size_bytes(text))
        except ValueError:
            raise ValueError("write a share like 5%, or a size like 512m") from None
    if not float(match[1]) <= 100:
        raise ValueError("there are no more than 100%")
    return Portion(float(match[1]) / 100, 0)


def size_bytes(text: str) -> int:
    """A size with a suffix k, m, g or t, in bytes.

    :raises ValueError: it is none, or beyond any disk
    """
    match = SIZE.fullmatch(text.strip())
    if match is None or not float(match[1]) * UNITS[match[2].lower()] < 1 << 62:
        raise ValueError("write a size with a suffix: 512m, 64g")
    return round(float(match[1]) * UNITS[match[2].lower()])


def choice(*known: str) -> Callable[[str], str]:
    """A parser of one word that is `known`."""

    def parse(text: str) -> str:
        if text.strip().lower() not in known:
            raise ValueError(f"write one of {', '.join(known)}")
        return text.strip().lower()

    return parse


@dataclass(frozen=True, slots=True)
class Webhook:
    """An address to which notices are posted; the password in it shows nowhere."""

    url: str = field(repr=False)

    def __str__(self) -> str:
        return without_passwords(self.url)


def hook(text: str) -> Path | Webhook | None:
    """What is told of an event: an executable by its absolute path, or an http or https address; empty: none.

    :raises ValueError: it is neither
    """
    wanted = "write the absolute path of an executable, or an address such as https://example.org/hook"
    word = text.strip()
    if not word:
        return None
    if not word.isprintable():
        raise ValueError(wanted)
    if word.startswith("/"):
        return Path(word)
    try:
        parts = urlsplit(word)
        complete = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        complete = False
    if not complete or " " in word:
        raise ValueError(wanted)
    return Webhook(word)


def without_passwords(text: str) -> str:
    """The text without who logs in, and how, in the addresses in it."""
    return re.sub(r"(?<=://)\S*@", "***@", text)


def link_name(longest: int) -> Callable[[str], str]:
    """A name of a network link, of at most so many characters; the kernel takes 15."""

    def parse(text: str) -> str:
        name = text.strip()
        if not re.fullmatch(rf"[A-Za-z0-9_][A-Za-z0-9_.-]{{0,{longest - 1}}}", name):
            raise ValueError(f"write 1 to {longest} letters, digits or _ . -")
        return name

    return parse


def mac_prefix(text: str) -> str:
    """The first three octets of hardware addresses, each of one machine."""
    octets = text.strip().lower()
    if not re.fullmatch(r"[0-9a-f][02468ace](:[0-9a-f]{2}){2}", octets):
        raise ValueError("write three octets like 54:52:00, the first of them even")
    return octets


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())
