"""`vma.conf`: Java-properties syntax, the defaults of protocol.md 4.9, and typed access.

The file is read once, at start. Names outside the table are kept (hooks may refer to them) and have no
effect.
"""

from __future__ import annotations

from typing import Mapping

PATH = "/etc/qvd/vma.conf"

DEFAULTS = {
    "path.run": "/var/run/qvd",
    "path.log": "/var/log",
    "vma.pid_file": "${path.run}/vma.pid",
    "vma.rpc.allow": "",  # addresses that may call; empty: the default gateway's
    "vma.rpc.port": "3030",
    "vma.audio.enable": "0",
    "vma.printing.enable": "0",
    "vma.slave.enable": "0",
    "vma.slave.command": "/usr/lib/qvd/bin/qvd-vma-slaveserver",
    "vma.user.default.name": "qvd",
    "vma.user.default.groups": "",
    "vma.user.home.path": "/home",
    "vma.user.home.fs": "ext4",
    "vma.user.home.drive": "/dev/vdb",
    "vma.user.shell": "/bin/bash",
    "vma.user.umask": "0022",
    "vma.default.lang": "en_US.UTF-8",
    "vma.default.client.keyboard": "pc105/en",
    "vma.default.client.link": "adsl",
    "vma.hook.timeout": "20",
    "vma.expire.timeout": "86400",  # how long the expire hook may wait for its user
    "vma.message.timeout": "86400",  # how long a message may wait for its reader
    "vma.log.limit": "1048576",
    "command.nxagent": "/usr/bin/nxagent",
    "command.nxagent.args.extra": "",
    "command.nxdiag": "/usr/bin/nxdiag",
    "command.x-session": "/etc/X11/Xsession",
    "command.x-session.args.extra": "",
    "command.xinit": "/usr/bin/xinit",
    "command.useradd": "/usr/sbin/useradd",
    "command.userdel": "/usr/sbin/userdel",
    "command.groupadd": "/usr/sbin/groupadd",
    "command.groupdel": "/usr/sbin/groupdel",
    "command.poweroff": "",
    "internal.nxagent.display": "100",
    "internal.nxagent.timeout.initiating": "20",
    "internal.nxagent.timeout.provisioning": "600",
    "internal.nxagent.timeout.listening": "10",
    "internal.nxagent.timeout.suspending": "20",
    "internal.nxagent.timeout.stopping": "20",
    "internal.vma.nxagent.tolerancechecks": "",
    "internal.vma.slave.config": "${path.run}/slave.conf",
}

_ESCAPES = {"t": "\t", "n": "\n", "r": "\r", "f": "\f"}


class ConfError(Exception):
    """A setting cannot be used: the message names the key."""


class Conf:
    """Settings by dotted key, `${other.key}` resolved."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = {**DEFAULTS, **values}

    @classmethod
    def load(cls, path: str = PATH) -> Conf:
        """The file's settings over the defaults; no file means the defaults."""
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                return cls(parse(file.read()))
        except FileNotFoundError:
            return cls({})

    def __getitem__(self, key: str) -> str:
        return self._resolve(key, ())

    def get(self, key: str) -> str:
        """The value, or nothing for a key that has neither default nor entry."""
        return self._resolve(key, ()) if key in self._values else ""

    def flag(self, key: str) -> bool:
        return self[key].strip().lower() not in ("", "0", "no", "false", "off")

    def number(self, key: str, base: int = 10) -> int:
        try:
            return int(self[key], base)
        except ValueError:
            raise ConfError(f"{key} is '{self[key]}', not a number") from None

    def seconds(self, key: str) -> float:
        try:
            value = float(self[key])
        except ValueError:
            value = -1.0
        if not 0 < value < 1e7:
            raise ConfError(f"{key} is '{self[key]}', not a number of seconds")
        return value

    def words(self, key: str) -> list[str]:
        """A comma-separated list."""
        return [word.strip() for word in self[key].split(",") if word.strip()]

    def _resolve(self, key: str, within: tuple[str, ...]) -> str:
        if key in within:
            raise ConfError(f"{key} refers to itself")
        if key not in self._values:
            raise ConfError(
                f"{within[-1]} refers to {key}, which is not set" if within else f"{key} is not set"
            )
        out, rest = "", self._values[key]
        while True:
            before, opening, rest = rest.partition("${")
            out += before
            if not opening:
                return out
            name, closing, rest = rest.partition("}")
            if not closing:
                return out + opening + name
            out += self._resolve(name.strip(), (*within, key))


def parse(text: str) -> Mapping[str, str]:
    """Java properties: `key = value`, `key: value`, `key value`; `#` and `!` begin comments."""
    values: dict[str, str] = {}
    lines = iter(text.splitlines())
    for raw in lines:
        line = raw.lstrip(" \t\f")
        if not line or line[0] in "#!":
            continue
        while _continues(line):
            line = line[:-1] + next(lines, "").lstrip(" \t\f")
        key, value = _split(line)
        values[_unescape(key)] = _unescape(value.rstrip())
    return values


def _continues(line: str) -> bool:
    return (len(line) - len(line.rstrip("\\"))) % 2 == 1


def _split(line: str) -> tuple[str, str]:
    at = 0
    while at < len(line) and line[at] not in "=: \t\f":
        at += 2 if line[at] == "\\" else 1
    rest = line[at:].lstrip(" \t\f")
    if rest[:1] in ("=", ":"):
        rest = rest[1:].lstrip(" \t\f")
    return line[:at], rest


def _unescape(text: str) -> str:
    out, rest = "", text
    while True:
        before, slash, rest = rest.partition("\\")
        out += before
        if not slash or not rest:
            return out
        if rest[0] == "u" and len(rest) > 4:
            try:
                out, rest = out + chr(int(rest[1:5], 16)), rest[5:]
                continue
            except ValueError:
                pass
        out, rest = out + _ESCAPES.get(rest[0], rest[0]), rest[1:]
