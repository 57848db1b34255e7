"""The link between a console on the screen and its hub in the daemon: attaches, and again when it is lost.

What comes is passed to a listener at once and never waits for the screen; what is typed waits here, in
bounds, until the daemon takes it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from appliance.clock import Timers
from appliance.control import Stream, open_stream
from appliance.control_frames import MAX_PAYLOAD, FrameKind
from appliance.errors import ApplianceError, ConflictError, DaemonDownError

RETRY_FIRST_S = 0.25
RETRY_LONGEST_S = 3.0
MOST_UNSENT_BYTES = 1_048_576
"""What may wait to be typed: a large paste, while the guest reads it at its own pace."""


LARGEST_SIDE = 1000
"""Lines or columns that the hub takes; of a larger view, the guest uses as many."""


class Standing(StrEnum):
    """How the link is."""

    CONNECTING = "connecting"
    OPEN = "open"
    DAEMON_DOWN = "the daemon is down"
    NOT_RUNNING = "the VM does not run"
    REFUSED = "refused"
    DELETED = "the VM is deleted"


@dataclass(frozen=True, slots=True)
class Company:
    """Who else is at the console, and how its line is."""

    writer: str | None = None
    you_write: bool = False
    others: tuple[str, ...] = ()
    waiting_for: str | None = None
    size: tuple[int, int] | None = None
    """Lines and columns of the guest's terminal, if anybody has set them."""


class Listener(Protocol):
    """Who is told what comes over a link."""

    def attached(self) -> None:
        """A new attachment: what comes next is its history."""

    def shown(self, output: bytes, *, history: bool) -> None:
        """The guest has shown something."""

    def joined(self, company: Company) -> None:
        """Somebody has come, gone, taken or left the writer's role; or the line has changed."""

    def noticed(self, notice: str) -> None:
        """Something that was typed has not arrived."""

    def stands(self, standing: Standing, reason: str) -> None:
        """The link is up or down."""


class Link:
    """One console's link; `run` keeps it up until it is cancelled."""

    def __init__(
        self,
        control: Path,
        vm_id: int,
        who: str,
        listener: Listener,
        timers: Timers,
        *,
        read_only: bool,
        ring_bytes: int,
    ) -> None:
        self._control = control
        self._vm_id = vm_id
        self._who = who
        self._listener = listener
        self._timers = timers
        self._read_only = read_only
        self._ring_bytes = ring_bytes
        self._unsent: deque[tuple[FrameKind, bytes | Mapping[str, object]]] = deque()
        self._unsent_bytes = 0
        self._something_to_send = asyncio.Event()
        self._is_open = False
        self._size: dict[str, int] = {}
        self.wants_to_write = False
        """Whether a new attachment takes the writer's role if it is free."""

    async def run(self) -> None:
        """Attach, and again whenever the attachment ends."""
        pause = RETRY_FIRST_S
        while True:
            opened, standing, reason = await self._attach()
            self._listener.stands(standing, reason)
            pause = RETRY_FIRST_S if opened else min(2 * pause, RETRY_LONGEST_S)
            await self._timers.sleep(pause)

    def type(self, keys: bytes) -> None:
        """Send keys to the guest, or say why not."""
        if not self._is_open:
            self._listener.noticed("not sent: there is no connection")
        elif self._unsent_bytes + len(keys) > MOST_UNSENT_BYTES:
            self._listener.noticed("not sent: the guest does not read what was typed before")
        else:
            self._unsent_bytes += len(keys)
            for start in range(0, len(keys), MAX_PAYLOAD):
                self._send(FrameKind.DATA, keys[start : start + MAX_PAYLOAD])

    def order(self, do: str) -> None:
        """Send an order to the hub: take, claim or release."""
        if self._is_open:
            self._send(FrameKind.ORDER, {"do": do})

    def resize(self, lines: int, columns: int) -> None:
        """Tell the hub our size, now and with every new attachment."""
        size = {"rows": min(lines, LARGEST_SIDE), "columns": min(columns, LARGEST_SIDE)}
        if size != self._size:
            self._size = size
            if self._is_open:
                self._send(FrameKind.ORDER, {"do": "resize", **size})

    async def _attach(self) -> tuple[bool, Standing, str]:
        """One attachment, to its end: whether there was one, and how things stand after it."""
        try:
            size, wants = self._size, self.wants_to_write
            async with await open_stream(self._control, self._request()) as stream:
                try:
                    return await self._converse(stream, size, wants)
                finally:
                    self._is_open = False
                    self._unsent.clear()
                    self._unsent_bytes = 0
                    stream.end("detached")
        except DaemonDownError as exc:
            return False, Standing.DAEMON_DOWN, exc.message
        except ConflictError as exc:
            return False, Standing.NOT_RUNNING, exc.message
        except ApplianceError as exc:
            return False, Standing.REFUSED, exc.message

    def _request(self) -> dict[str, object]:
        write = "never" if self._read_only else "free" if self.wants_to_write else "later"
        return {
            "want": "console",
            "vm": self._vm_id,
            "who": self._who,
            "write": write,
            "history_bytes": self._ring_bytes,
            **self._size,
        }

    async def _converse(
        self, stream: Stream, size: Mapping[str, int], wanted: bool
    ) -> tuple[bool, Standing, str]:
        """Serve an attachment that was asked for with this size, and with or without the wish to write."""
        first = await stream.receive()
        if first is None:
            return False, Standing.DAEMON_DOWN, "the connection was closed"
        self._is_open = True
        if self._size != size:
            self._send(FrameKind.ORDER, {"do": "resize", **self._size})
        if self.wants_to_write != wanted:
            self.order("claim" if self.wants_to_write else "release")
        self._listener.attached()
        self._listener.stands(Standing.OPEN, "")
        self._listener.shown(first.payload, history=True)
        async with asyncio.TaskGroup() as tasks:
            sending = tasks.create_task(self._send_all(stream), name=f"keys to VM {self._vm_id}")
            standing, reason = await self._follow(stream)
            sending.cancel()
        return True, standing, reason

    async def _follow(self, stream: Stream) -> tuple[Standing, str]:
        history = True
        try:
            while frame := await stream.receive():
                if frame.kind is FrameKind.DATA:
                    self._listener.shown(frame.payload, history=history)
                elif frame.kind is FrameKind.EVENT:
                    event = frame.content()
                    if notice := event.get("notice"):
                        self._listener.noticed(str(notice))
                    else:
                        history = False
                        self._listener.joined(company_of(event))
        except DaemonDownError as exc:
            return Standing.DAEMON_DOWN, exc.message
        except ApplianceError as exc:
            return Standing.REFUSED, exc.message
        if stream.farewell is None:
            return Standing.DAEMON_DOWN, "the connection is lost"
        return Standing.NOT_RUNNING, stream.farewell

    def _send(self, kind: FrameKind, payload: bytes | Mapping[str, object]) -> None:
        self._unsent.append((kind, payload))
        self._something_to_send.set()

    async def _send_all(self, stream: Stream) -> None:
        while True:
            await self._something_to_send.wait()
            self._something_to_send.clear()
            while self._unsent:
                kind, payload = self._unsent.popleft()
                await stream.send(kind, payload)
                if kind is FrameKind.DATA:
                    self._unsent_bytes = max(0, self._unsent_bytes - len(payload))


def company_of(event: Mapping[str, object]) -> Company:
    """What an event of the hub says about who is there."""
    writer, others, waiting_for, size = (
        event.get(key) for key in ("writer", "others", "waiting_for", "size")
    )
    return Company(
        writer=None if writer is None else str(writer),
        you_write=event.get("you_write") is True,
        others=tuple(map(str, others)) if isinstance(others, list) else (),
        waiting_for=None if waiting_for is None else str(waiting_for),
        size=_size(size),
    )


def _size(value: object) -> tuple[int, int] | None:
    match value:
        case [int(lines), int(columns)] if lines > 0 and columns > 0:
            return lines, columns
    return None
