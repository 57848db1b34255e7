"""What a VMA is told at `x_start` (protocol.md 3.4). Pure.

The client's own words go first and may be overruled by anything an administrator attached to OSF, DI,
user or VM; who the desktop user is, and the slave key, are ours alone.
"""

from __future__ import annotations

import re
import secrets
import string
from collections.abc import Mapping

from appliance.model import Secret, User

EXPECTED = tuple(f"qvd.client.{name}" for name in ("keyboard", "os", "link", "geometry", "fullscreen"))
"""Always sent, if need be empty: a real QVD VMA fails without them."""

EXTRA_ARGS = "qvd.client.nxagent.extra_args"
SAFE_OPTIONS = frozenset(
    {
        "autodpi",
        "backingstore",
        "cache",
        "composite",
        "data",
        "defer",
        "delta",
        "images",
        "limit",
        "magicpixel",
        "menu",
        "pack",
        "render",
        "resize",
        "shmem",
        "shpix",
        "stream",
        "streaming",
        "tile",
        "xinerama",
    }
)
"""NX options about speed and looks. Those that open ports or files, choose channels, or touch the clipboard
are the administrator's: they may be given as a property, never by the client."""
SAFE_VALUE = re.compile(r"[A-Za-z0-9_.+/-]*")
ONE_WORD = re.compile(r"[A-Za-z0-9_+/-]*")
"""How far an expected value counts. A VMA puts each into the line of NX options, where a comma begins
another: of `pc105/us,ru` the first layout is meant, and no option passes under the name of a value."""

KEY_LENGTH = 64
KEY_ALPHABET = string.ascii_letters + string.digits


def fresh_slave_key() -> Secret:
    """A key that lets this client, and no other, use the session's side channels."""
    return Secret("".join(secrets.choice(KEY_ALPHABET) for _ in range(KEY_LENGTH)))


def safe_extra_args(written: str) -> tuple[str, tuple[str, ...]]:
    """The NX options of a client that it may set, comma-joined, and those that were dropped."""
    options = [option.strip() for option in written.split(",") if option.strip()]
    safe = [option for option in options if _is_safe(option)]
    return ",".join(safe), tuple(option for option in options if not _is_safe(option))


def x_parameters(
    client: Mapping[str, str], properties: Mapping[str, str], owner: User, slave_key: Secret
) -> dict[str, str]:
    """All parameters of `x_start`; the later source wins."""
    asked = dict(client)
    for name in asked.keys() & EXPECTED:
        asked[name] = _one_word(asked[name])
    if EXTRA_ARGS in asked:
        asked[EXTRA_ARGS] = safe_extra_args(asked[EXTRA_ARGS])[0]
    return {
        **dict.fromkeys(EXPECTED, ""),
        **asked,
        **properties,
        "qvd.vm.user.name": owner.login,
        "qvd.vm.user.uid": str(owner.uid),
        "qvd.vm.user.gid": str(owner.gid),
        "qvd.slave.key": slave_key.reveal(),
    }


def _one_word(value: str) -> str:
    found = ONE_WORD.match(value)
    return found.group() if found else ""


def _is_safe(option: str) -> bool:
    name, _, value = option.partition("=")
    return name in SAFE_OPTIONS and SAFE_VALUE.fullmatch(value) is not None
