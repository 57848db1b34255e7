"""The QVD dialect of HTTP (protocol.md 1.2): bytes in, requests out, replies as bytes.

Nothing here performs I/O. The deployed clients speak something that general HTTP parsers refuse:
no `Host`, bare LF, raw blanks in URLs, look-ups that mind capitals. All of their quirks live in this
file. It is tolerant of the dialect, strict about size, and anything else becomes a `ProtocolError`,
after which the wire is dead and the connection is closed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from appliance.errors import ProtocolError
from appliance.model import Secret

VERSION = "HTTP/1.1"
MAX_LINE = 16 * 1024
MAX_HEAD = 64 * 1024
MAX_HEADERS = 100
MAX_INFO = 400
"""Characters of an interim reply: some clients show it in one line, and read heads into small buffers."""
BLANKS = re.compile(rb"[ \t\r\n]+")
"""What may stand before a request, at any length."""

REASONS = {
    101: "Switching Protocols",
    102: "Processing",
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    408: "Request Timeout",
    422: "Unprocessable Entity",
    426: "Upgrade Required",
    500: "Internal Server Error",
    503: "Service Unavailable",
    505: "HTTP Version Not Supported",
}

TEXT = "text/plain"
JSON = "application/json"


@dataclass(frozen=True, slots=True)
class Request:
    """One request head. Header names are in lower case; values, which hold passwords, are not shown."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str] = field(repr=False)


class ClientWire:
    """One client's connection as a conversation, from its first byte to the 101."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._head_size = 0
        self._first: tuple[str, str, str] | None = None
        self._headers: list[tuple[str, str]] = []
        self._failure: ProtocolError | None = None

    def feed(self, data: bytes) -> Iterator[Request]:
        """Take `data` in, and yield each request that it completes.

        :raises ProtocolError: the bytes are not of the dialect, now or in an earlier call
        """
        self._rest += data
        return self._requests()

    def leftover(self) -> bytes:
        """What the client sent after its last request, handed over for good: the first bytes of NX."""
        rest, self._rest = self._rest, bytearray()
        return bytes(rest)

    def progress(self, info: str) -> bytes:
        """An interim reply that tells a person, in one line, what goes on."""
        return _head(102, {"X-QVD-VM-Info": " ".join(info.split())[:MAX_INFO]})

    def switch(self, slave_key: Secret) -> bytes:
        """The reply after which the bytes are no longer ours."""
        return _head(101, {"X-QVD-Slave-Key": slave_key.reveal()})

    def reply(self, status: int, body: bytes, content_type: str = TEXT) -> tuple[bytes, ...]:
        """A final reply as the portions to be written one by one.

        An error is two portions: the native client, once it has seen an error status, insists on
        another read before it looks at the body.
        """
        headers = {"Content-Type": content_type, "Content-Length": str(len(body))}
        if status == 401:
            headers = {"WWW-Authenticate": 'Basic realm="QVD"'} | headers
        head = _head(status, headers)
        return (head + body,) if status < 400 else (head, body)

    def refusal(self, status: int, text: str) -> tuple[bytes, ...]:
        """An error reply that says `text` to a person."""
        return self.reply(status, text.encode("ascii", "replace") + b"\r\n")

    def _requests(self) -> Iterator[Request]:
        if self._failure is not None:
            raise self._failure
        try:
            while (line := self._next_line()) is not None:
                request = self._take(line)
                if request is not None:
                    yield request
        except ProtocolError as exc:
            self._failure, self._rest = exc, bytearray()
            raise

    def _next_line(self) -> str | None:
        if self._first is None and (blanks := BLANKS.match(self._rest)):
            del self._rest[: blanks.end()]
        end = self._rest.find(b"\n")
        length = len(self._rest) if end < 0 else end
        if length > MAX_LINE:
            raise ProtocolError(400, "a line of the request is too long")
        if self._head_size + length > MAX_HEAD:
            raise ProtocolError(400, "the head of the request is too long")
        if end < 0:
            return None
        line = self._rest[:end].decode("latin-1").rstrip("\r")
        del self._rest[: end + 1]
        self._head_size += length + 1
        return line

    def _take(self, line: str) -> Request | None:
        if self._first is None:
            self._first = _request_line(line)
            return None
        if line:
            self._take_header(line)
            return None
        (method, path, query), headers = self._first, _first_of_each(self._headers)
        self._first, self._headers, self._head_size = None, [], 0
        if headers.get("content-length", "0").strip("0") or "transfer-encoding" in headers:
            raise ProtocolError(400, "a request has no body here")
        return Request(method, path, query, headers)

    def _take_header(self, line: str) -> None:
        if line[0] in " \t":
            if not self._headers:
                raise ProtocolError(400, "the first header line is a continuation")
            name, value = self._headers[-1]
            self._headers[-1] = (name, f"{value} {line.strip()}")
            return
        name, colon, value = line.partition(":")
        if not colon or not name.strip():
            raise ProtocolError(400, "a header line has no name")
        if len(self._headers) == MAX_HEADERS:
            raise ProtocolError(400, "the request has too many headers")
        self._headers.append((name.strip().lower(), value.strip()))


def _request_line(line: str) -> tuple[str, str, str]:
    method, _, rest = line.strip(" \t").partition(" ")
    url, _, version = rest.rpartition(" ")  # between the first and the last word, raw blanks included
    if not url.strip() or not version.startswith("HTTP/"):
        raise ProtocolError(400, "the request line is malformed")
    if version != VERSION:
        raise ProtocolError(505, f"only {VERSION} is spoken here")
    path, _, query = url.strip().partition("?")
    return method, path, query


def _first_of_each(headers: list[tuple[str, str]]) -> dict[str, str]:
    return dict(reversed(headers))


def _head(status: int, headers: Mapping[str, str]) -> bytes:
    lines = [
        f"{VERSION} {status} {REASONS[status]}",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii", "replace")
