"""The frames of the control socket: bytes in, frames out, bytes out. Nothing here performs I/O.

A frame is its payload's length (four bytes, most significant first), its kind (one byte) and the
payload. The first frame of a stream is the client's REQUEST; the last one of the daemon is END or
ERROR. What lies between depends on what was wanted, in the same four kinds for every stream.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum

from appliance.errors import (
    AdminError,
    ApplianceError,
    ConflictError,
    DaemonDownError,
    NotFoundError,
    UsageError,
)

HEADER = struct.Struct(">IB")
MAX_PAYLOAD = 65_536

TOLD_APART = {
    error.__name__: error for error in (UsageError, NotFoundError, ConflictError, DaemonDownError, AdminError)
}
"""Errors that stay themselves on their way to the client; any other arrives as AdminError."""


class FrameKind(IntEnum):
    """What a frame is for."""

    REQUEST = 1
    """JSON: what the client wants; the first frame."""
    ORDER = 2
    """JSON: what the client wants done within the stream."""
    EVENT = 3
    """JSON: what the daemon has to tell."""
    DATA = 4
    """Bytes, in either direction."""
    END = 5
    """JSON: the stream ends in good order, and why."""
    ERROR = 6
    """JSON: the stream ends because of an error."""


class FrameError(AdminError):
    """The other end does not speak this protocol."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame, as received."""

    kind: FrameKind
    payload: bytes

    def content(self) -> Mapping[str, object]:
        """The JSON object in the payload.

        :raises FrameError: there is none
        """
        try:
            content = json.loads(self.payload)
        except (ValueError, RecursionError) as exc:
            raise FrameError(f"a frame of kind {self.kind.name} does not hold JSON") from exc
        if not isinstance(content, dict):
            raise FrameError(f"a frame of kind {self.kind.name} does not hold a JSON object")
        return content

    def error(self) -> ApplianceError:
        """The error that an ERROR frame tells of."""
        content = self.content()
        hint = content.get("hint")
        error = TOLD_APART.get(str(content.get("kind")), AdminError)
        return error(
            str(content.get("message", "refused without a reason")), hint=None if hint is None else str(hint)
        )


def encode(kind: FrameKind, payload: bytes | Mapping[str, object]) -> bytes:
    """One frame on the wire; a mapping goes out as JSON."""
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    if len(body) > MAX_PAYLOAD:
        raise ValueError(f"a payload of {len(body)} bytes does not fit into a frame")
    return HEADER.pack(len(body), kind) + body


def encode_error(error: ApplianceError) -> bytes:
    """The ERROR frame that tells of `error`."""
    kind = next((cls.__name__ for cls in type(error).__mro__ if cls.__name__ in TOLD_APART), "AdminError")
    content = {"kind": kind, "message": error.message[:4096], "hint": error.hint and error.hint[:4096]}
    return encode(FrameKind.ERROR, content)


class FrameDecoder:
    """Cuts what arrives into frames; holds one unfinished frame at most."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that `data` completes.

        :raises FrameError: the other end speaks something else
        """
        self._buffer += data
        while len(self._buffer) >= HEADER.size:
            length, number = HEADER.unpack_from(self._buffer)
            if length > MAX_PAYLOAD:
                raise FrameError("the frame is too long")
            try:
                kind = FrameKind(number)
            except ValueError:
                raise FrameError(f"there is no frame of kind {number}") from None
            end = HEADER.size + length
            if len(self._buffer) < end:
                return
            payload = bytes(self._buffer[HEADER.size : end])
            del self._buffer[:end]
            yield Frame(kind, payload)
