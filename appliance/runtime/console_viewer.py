"""Whoever looks at a console, and what they ask for. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from appliance.control import Stream
from appliance.errors import UsageError

LARGEST_SIDE = 1000


@dataclass(frozen=True, slots=True)
class Size:
    """Of a viewer's terminal, in characters."""

    rows: int
    columns: int


@dataclass(slots=True, eq=False)
class Viewer:
    """Somebody who watches."""

    stream: Stream
    who: str
    size: Size | None
    read_only: bool
    refusal: str = ""
    """Why what it typed last was refused."""
    refused_at: float | None = None


def label(request: Mapping[str, object], stream: Stream) -> str:
    """How other viewers see this one: its own word, as far as it can be printed, and its process."""
    word = "".join(letter for letter in str(request.get("who", "")) if letter.isprintable())[:40]
    return f"{word or f'uid {stream.peer.uid}'} (pid {stream.peer.pid})"


def size_in(content: Mapping[str, object]) -> Size:
    """The size of a terminal that a request or an order holds.

    :raises UsageError: it holds none, or an absurd one
    """
    return Size(
        rows=number_in(content, "rows", default=None, most=LARGEST_SIDE),
        columns=number_in(content, "columns", default=None, most=LARGEST_SIDE),
    )


def number_in(content: Mapping[str, object], name: str, *, default: int | None, most: int) -> int:
    """A whole number that a request or an order holds.

    :raises UsageError: it is none, or too large
    """
    value = content.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
        raise UsageError(f"{name} is {value!r}", hint=f"a whole number up to {most}")
    return value
