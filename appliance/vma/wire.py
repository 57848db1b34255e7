"""The RPC between host and guest as bytes: its names, states, requests and replies.

Nothing here performs I/O, and nothing is imported beyond the standard library: this is the one file of the
VMA that the host may import. The dialect is QVD's (protocol.md 1.2 and 3.2): HTTP/1.1 without `Host`, line
ends CRLF or bare LF, GET only, replies with an exact `Content-Length` and never chunked.
"""

from __future__ import annotations

import enum
import json
from typing import Any, Iterator, Mapping, NamedTuple, Optional

PORT = 3030
JSON_TYPE = "application/json-simplerpc"

PING = "ping"
X_STATE = "x_state"
X_START = "x_start"
X_SUSPEND = "x_suspend"
X_STOP = "x_stop"
POWEROFF = "poweroff"
EXPIRE = "expire"
EXPIRE_ANSWER = "expire_answer"  # ours: a QVD VMA does not know it
MESSAGE = "message"  # ours
HOOK_LOG = "hook_log"  # ours
VNC_CONNECT = "vnc_connect"
METHODS = frozenset(
    (
        *(PING, X_STATE, X_START, X_SUSPEND, X_STOP, POWEROFF, EXPIRE, VNC_CONNECT),
        *(EXPIRE_ANSWER, MESSAGE, HOOK_LOG),
    )
)

EXPIRATION_SOFT = "vm.expiration.soft"
EXPIRATION_HARD = "vm.expiration.hard"
EXPIRATION_DATES = (EXPIRATION_SOFT, EXPIRATION_HARD)
# Ours, beside QVD's two:
EXPIRATION_ASK = "vm.expiration.ask"  # the number of this ask
EXPIRATION_FINAL = "vm.expiration.final"  # 1: the warning before the hard limit
EXPIRATION_LATER = "vm.expiration.later"  # seconds until the next ask, if the user chooses Later
EXPIRATION_POSTPONEMENTS = "vm.expiration.postponements"  # how many are left
EXPIRATION_NOW = "vm.expiration.now"  # the host's time as it asks: the guest's clock may be off
EXPIRATION_WITHDRAWN = "vm.expiration.withdrawn"  # 1: there is nothing to be asked any more
EXPIRATION_FILE = "vm.expiration.file"  # told to the hook: the file that holds all this as it changes
DESKTOP_PIDFILE = "vm.desktop.pidfile"  # told to hooks that show something: holds the pid of nxagent

MESSAGE_TEXT = "text"  # of message
MESSAGE_TITLE = "title"
MAX_TEXT = 1000
MAX_TITLE = 80
TOLD = "told"
NOBODY_THERE = "nobody"

LOG_LINES = "lines"  # of hook_log
MAX_LOG_LINES = 500

WAIT = "wait"  # of expire_answer, in seconds
MAX_WAIT_S = 30.0

MAX_HEAD = 64 * 1024  # the query of x_start carries every property of the VM
MAX_LINE = 60 * 1024
MAX_HEADERS = 100
MAX_BODY = 64 * 1024
MAX_WORDS = 500
MAX_REPLY = 2 * MAX_HEAD + MAX_BODY  # with what comes before it and, unasked, after it


class XState(str, enum.Enum):
    """What `x_state` answers (protocol.md 4.5)."""

    STOPPED = "stopped"
    STARTING = "starting"
    PROVISIONING = "provisioning"
    LISTENING = "listening"
    CONNECTED = "connected"
    SUSPENDING = "suspending"
    SUSPENDED = "suspended"
    STOPPING = "stopping"

    def __str__(self) -> str:
        return self.value


class Answer(str, enum.Enum):
    """What `expire_answer` answers: whether the desktop may be restarted."""

    NONE = "none"
    ASKING = "asking"
    RESTART = "restart"
    LATER = "later"

    def __str__(self) -> str:
        return self.value


class HeadError(Exception):
    """The bytes are not a request of this dialect; `status` is what the peer deserves before the close."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class ReplyError(Exception):
    """The bytes are not a reply of this dialect."""


class CallFailed(Exception):
    """The other side carried out the protocol and says that the method failed."""


# -- heads -------------------------------------------------------------------------------------------------


class _Head:
    """Collects the lines of one head at a time, with every dimension bounded."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._size = 0
        self._lines: list[str] = []

    def feed(self, data: bytes) -> None:
        self._rest += data

    def take(self, size: int) -> bytes:
        """`size` bytes of what follows the head, or nothing while there are fewer."""
        if len(self._rest) < size:
            return b""
        taken = bytes(self._rest[:size])
        del self._rest[:size]
        return taken

    def next(self) -> Optional[list[str]]:
        """The unfolded lines of the next complete head; blank lines before it are skipped."""
        while True:
            end = self._rest.find(b"\n")
            length = len(self._rest) if end < 0 else end
            if length > MAX_LINE or self._size + length > MAX_HEAD or len(self._lines) > MAX_HEADERS:
                raise HeadError(400, "the head of the message is too large")
            if end < 0:
                return None
            text = self._rest[:end].decode("utf-8", "replace").rstrip("\r")
            del self._rest[: end + 1]
            self._size += length + 1
            if text and text[0] in " \t" and len(self._lines) > 1:
                self._lines[-1] += " " + text.strip()
            elif text.strip():
                self._lines.append(text)
            elif self._lines:
                lines, self._lines, self._size = self._lines, [], 0
                return lines
            else:
                self._size = 0


def _headers(lines: list[str]) -> Mapping[str, str]:
    """Headers by lower-case name; the first of a repeated one counts."""
    found: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip():
            raise HeadError(400, "a header line has no name")
        found.setdefault(name.lower(), value.strip())
    return found


# -- requests ----------------------------------------------------------------------------------------------


class Request(NamedTuple):
    """One request line with its headers (lower-case names) and decoded query."""

    method: str
    path: str
    params: Mapping[str, str]
    headers: Mapping[str, str]

    @property
    def call(self) -> Optional[str]:
        """The RPC method: the last word of a path below `/vma/`."""
        name = self.path.rpartition("/")[2]
        return name if self.path.startswith("/vma/") and name in METHODS else None

    @property
    def announces_body(self) -> bool:
        """Bodies do not exist in this dialect: the connection cannot be read on after one."""
        return self.headers.get("content-length", "0") != "0" or "transfer-encoding" in self.headers


class RequestParser:
    """The server's ear: bytes in any portions, requests out. Of no use any more once it raised HeadError."""

    def __init__(self) -> None:
        self._head = _Head()

    def feed(self, data: bytes) -> Iterator[Request]:
        self._head.feed(data)
        while True:
            lines = self._head.next()
            if lines is None:
                return
            yield _request(lines)


def _request(lines: list[str]) -> Request:
    method, _, rest = lines[0].strip().partition(" ")
    url, _, version = rest.rpartition(" ")  # between the first and the last word, raw blanks included
    if not version.startswith("HTTP/") or not url.strip():
        raise HeadError(400, "malformed request line")
    if version != "HTTP/1.1":
        raise HeadError(505, "only HTTP/1.1 is spoken here")
    path, _, query = url.strip().partition("?")
    return Request(method, unquote(path), parse_query(query), _headers(lines[1:]))


def parse_query(query: str) -> Mapping[str, str]:
    """`a=1&b=&c` as a mapping; the last of a repeated name counts."""
    pairs = (part.partition("=") for part in query.split("&") if part)
    return {unquote_plus(name): unquote_plus(value) for name, _, value in pairs}


def unquote_plus(text: str) -> str:
    return unquote(text.replace("+", " "))


_HEX = frozenset(b"0123456789abcdefABCDEF")


def unquote(text: str) -> str:
    """Decode `%XX` as UTF-8; a stray percent sign stands for itself (urllib.parse takes long to import)."""
    first, *parts = text.encode("utf-8", "surrogateescape").split(b"%")
    out = bytearray(first)
    for part in parts:
        if len(part) > 1 and _HEX.issuperset(part[:2]):
            out.append(int(part[:2], 16))
            out += part[2:]
        else:
            out += b"%" + part
    return out.decode("utf-8", "replace")


_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")


def quote(text: str) -> str:
    """Percent-encode all but the unreserved characters of protocol.md 3.2."""
    return "".join(chr(byte) if byte in _UNRESERVED else f"%{byte:02X}" for byte in text.encode())


def plain(text: str, limit: int) -> str:
    """Text from elsewhere as data: printable characters and line ends, and not too many of them."""
    kept = "".join(letter for letter in text if letter.isprintable() or letter == "\n").strip()
    return kept if len(kept) <= limit else kept[: limit - 1] + "…"


def encode_call(method: str, params: Mapping[str, str]) -> bytes:
    """The request as the host sends it: no `Host`, no body."""
    query = "&".join(f"{quote(name)}={quote(value)}" for name, value in params.items())
    url = f"/vma/{method}" + (f"?{query}" if query else "")
    return f"GET {url} HTTP/1.1\r\nUser-Agent: QVD-Appliance\r\n\r\n".encode("ascii")


# -- replies -----------------------------------------------------------------------------------------------

REASONS = {
    101: "Switching Protocols",
    102: "Processing",
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    426: "Upgrade Required",
    500: "Internal Server Error",
    503: "Service Unavailable",
    505: "HTTP Version Not Supported",
}
_EXPLANATIONS = {
    400: "This is not a request of the protocol spoken here.",
    404: "There is no such method; only GET requests below /vma/ are served.",
    426: 'This method needs the header lines "Connection: Upgrade" and "Upgrade: VNC".',
    505: "The only version of HTTP spoken here is 1.1.",
}


def success(value: Any) -> bytes:
    """The reply of a method that worked; `None` is a value too."""
    return _reply(200, JSON_TYPE, _body(value))


def failure(message: str) -> bytes:
    """The reply of a method that failed. The status is 200 all the same (protocol.md 3.2)."""
    return _reply(200, JSON_TYPE, _body("", message.rstrip("\n") + "\n"))


def refusal(status: int, text: str = "") -> bytes:
    """A reply outside the RPC, with a text for people."""
    body = f"{text}\n" if text else f"{status} {REASONS[status]}\n    {_EXPLANATIONS[status]}\n"
    return _reply(status, "text/plain", body.encode("ascii", "replace"))


def head(status: int, headers: Mapping[str, str]) -> bytes:
    """Status line and headers; for a 1xx that is all there is."""
    lines = [f"HTTP/1.1 {status} {REASONS[status]}", *(f"{name}: {value}" for name, value in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")


def _body(*elements: Any) -> bytes:
    return ",".join(json.dumps(element) for element in elements).encode("ascii") + b"\n\r\n"


def _reply(status: int, content_type: str, body: bytes) -> bytes:
    return head(status, {"Content-Type": content_type, "Content-Length": str(len(body))}) + body


class Reply(NamedTuple):
    """One complete reply as it came."""

    status: int
    reason: str
    body: bytes

    def value(self) -> Any:
        """What the method returned. Raises CallFailed with the guest's words, ReplyError on anything odd."""
        if self.status != 200:
            raise CallFailed(f"{self.status} {_words(self.reason)}")
        try:
            elements = json.loads(b"[" + self.body + b"]")
        except (ValueError, RecursionError) as exc:
            raise ReplyError("the body is not a list of JSON values") from exc
        if len(elements) == 1:
            return elements[0]
        if len(elements) == 2 and isinstance(elements[1], str) and elements[1].strip():
            raise CallFailed(_words(elements[1]))
        raise ReplyError(f"the body holds {len(elements)} values")


def _words(text: str) -> str:
    """A guest's reason as one short line that can be stored and shown anywhere."""
    line = " ".join(text.split())[:MAX_WORDS]
    return "".join(letter if letter.isprintable() else "?" for letter in line)


class ReplyParser:
    """The caller's ear: yields the first final reply, skips 1xx before it, never looks at what follows it."""

    def __init__(self) -> None:
        self._head = _Head()
        self._waiting: Optional[tuple[int, str, int]] = None
        self._size = 0

    def feed(self, data: bytes) -> Optional[Reply]:
        """The reply, once its last byte is there. Raises ReplyError on bytes that cannot be one."""
        self._size += len(data)
        if self._size > MAX_REPLY:
            raise ReplyError("the reply has no end")
        self._head.feed(data)
        while self._waiting is None:
            try:
                lines = self._head.next()
            except HeadError as exc:
                raise ReplyError(str(exc)) from exc
            if lines is None:
                return None
            self._waiting = _final(lines)
        status, reason, length = self._waiting
        body = self._head.take(length)
        return Reply(status, reason, body) if len(body) == length else None


def _final(lines: list[str]) -> Optional[tuple[int, str, int]]:
    version, _, rest = lines[0].partition(" ")
    code, _, reason = rest.partition(" ")
    if version not in ("HTTP/1.1", "HTTP/1.0") or len(code) != 3 or not code.isdecimal():
        raise ReplyError("this is not an HTTP reply")
    if code == "101":
        raise ReplyError("the guest switches to another protocol unasked")
    if code[0] == "1":
        return None
    try:
        length = _headers(lines[1:]).get("content-length", "")
    except HeadError as exc:
        raise ReplyError(str(exc)) from exc
    if not length.isdecimal() or not length.isascii() or len(length) > 9:
        raise ReplyError("the reply has no Content-Length")
    if int(length) > MAX_BODY:
        raise ReplyError(f"the reply's body of {length} bytes is too large")
    return int(code), reason, int(length)
