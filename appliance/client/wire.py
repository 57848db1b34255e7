"""The client's side of QVD's HTTP dialect (protocol.md 1.2 to 1.7): bytes in, events out; no sockets.

Requests are written as the Perl client writes them. Replies are read tolerantly: CRLF or bare LF, header
names in any case, a body only where `Content-Length` announces one.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias
from urllib.parse import quote

from appliance import harmless
from appliance.client.failures import ConnectionFailedError
from appliance.model import Secret, VmId

MAX_HEAD = 64 * 1024
MAX_BODY = 4 * 1024 * 1024
USER_AGENT = "qvd-client (linux)"

_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})(?: .*)?")
_END_OF_HEAD = re.compile(rb"\r?\n\r?\n")


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who asks; `login` may not contain a colon (protocol.md 1.3)."""

    login: str
    password: Secret

    def header(self) -> str:
        """The value of `Authorization`: a secret."""
        plain = f"{self.login}:{self.password.reveal()}"
        return "Basic " + base64.b64encode(plain.encode()).decode()


@dataclass(frozen=True, slots=True)
class Desktop:
    """One line of the server's list (protocol.md 1.6)."""

    vm_id: VmId
    name: str
    state: str
    blocked: bool
    returns: bool = False
    """Whether it is on its way back: being restarted, or started. Only this appliance says so."""
    in_use: bool = False
    """Whether a client has it, or is about to."""


@dataclass(frozen=True, slots=True)
class Progress:
    """A 102: what the server is doing for us."""

    text: str


@dataclass(frozen=True, slots=True)
class Reply:
    """A final answer other than 101."""

    status: int
    body: bytes

    @property
    def text(self) -> str:
        """The first line of the body, as a person may read it."""
        lines = self.body.decode(errors="replace").strip().splitlines()
        return printable(lines[0]) if lines else ""


@dataclass(frozen=True, slots=True)
class Switched:
    """The 101: `leftover` and all that follows are NX bytes."""

    slave_key: Secret
    leftover: bytes


Event: TypeAlias = Progress | Reply | Switched


def printable(text: str, limit: int = 300) -> str:
    """`text` of a stranger made harmless for a terminal, and short."""
    return harmless.printable(text[:limit], "?")


def list_request(credentials: Credentials) -> bytes:
    """The request for the list of desktops."""
    return _request("/qvd/list_of_vm?", credentials, {"Accept": "application/json"})


def connect_request(credentials: Credentials, vm_id: VmId, parameters: Mapping[str, str]) -> bytes:
    """The request to attach to `vm_id`; `parameters` are `qvd.client.*`."""
    query = "&".join(f"{_quoted(name)}={_quoted(value)}" for name, value in parameters.items())
    upgrade = {"Connection": "Upgrade", "Upgrade": "QVD/1.0"}
    return _request(f"/qvd/connect_to_vm?id={vm_id}&{query}", credentials, upgrade)


def _request(url: str, credentials: Credentials, headers: Mapping[str, str]) -> bytes:
    fields = {"Authorization": credentials.header(), **headers, "User-Agent": USER_AGENT}
    lines = [f"GET {url} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items()), "", ""]
    return "\r\n".join(lines).encode("ascii")


def _quoted(text: str) -> str:
    return quote(text, safe="")


def desktops(body: bytes) -> list[Desktop]:
    """The server's list.

    :raises ConnectionFailedError: it is not such a list
    """
    try:
        return [_desktop(entry) for entry in json.loads(body)]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as exc:
        raise ConnectionFailedError("the server's list of desktops cannot be understood") from exc


def _desktop(entry: Mapping[str, Any]) -> Desktop:
    presence = int(entry.get("presence") or 0)
    return Desktop(
        VmId(int(entry["id"])),
        printable(str(entry["name"])),
        printable(str(entry["state"])),
        blocked=bool(int(entry["blocked"] or 0)),
        returns=bool(presence & 1),
        in_use=bool(presence & 2),
    )


class ReplyReader:
    """Turns the bytes of one connection into events, however they are split.

    After `Switched` it must be fed no more. Every malformed input is a `ConnectionFailedError`.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._reply: tuple[int, int] | None = None  # status and body length of the reply being read

    def feed(self, data: bytes) -> Iterator[Event]:
        """The events that `data` completes."""
        self._buffer += data
        while (event := self._next()) is not None:
            yield event
            if isinstance(event, Switched):
                return

    def _next(self) -> Event | None:
        while self._reply is None:
            head = self._head()
            if head is None:
                return None
            status, headers = head
            if status == 101:
                leftover = bytes(self._buffer)
                self._buffer.clear()
                return Switched(Secret(headers.get("x-qvd-slave-key", "")), leftover)
            if status == 102:
                return Progress(printable(headers.get("x-qvd-vm-info", "working")))
            if status >= 200:
                self._reply = (status, _length(headers))
        status, length = self._reply
        if len(self._buffer) < length:
            return None
        body = bytes(self._buffer[:length])
        del self._buffer[:length]
        self._reply = None
        return Reply(status, body)

    def _head(self) -> tuple[int, dict[str, str]] | None:
        """Take one status line and its headers off the buffer, or None if they are not complete."""
        end = _END_OF_HEAD.search(self._buffer, 0, MAX_HEAD)
        if end is None:
            if len(self._buffer) >= MAX_HEAD:
                raise ConnectionFailedError("the server's reply has no end: this is no QVD server")
            if not b"HTTP/1.".startswith(bytes(self._buffer[:7])):
                raise _no_qvd_server()
            return None
        status_line, *lines = bytes(self._buffer[: end.start()]).split(b"\n")
        del self._buffer[: end.end()]
        match = _STATUS_LINE.fullmatch(status_line.rstrip(b"\r"))
        if match is None:
            raise _no_qvd_server()
        headers: dict[str, str] = {}
        for line in lines:
            name, _, value = line.decode("latin-1").partition(":")
            headers.setdefault(name.strip().lower(), value.strip())
        return int(match[1]), headers


def _length(headers: Mapping[str, str]) -> int:
    text = headers.get("content-length", "0")
    if not (text.isascii() and text.isdigit() and len(text) < 10) or int(text) > MAX_BODY:
        raise ConnectionFailedError(f"the server announces an impossible length: {printable(text, 40)}")
    return int(text)


def _no_qvd_server() -> ConnectionFailedError:
    return ConnectionFailedError("what answers does not speak HTTP: this is no QVD server")
