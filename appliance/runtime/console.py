"""The consoles of guests: one hub per line, which one reads all the time, many watch, and one writes to.

The hub is the line's only holder. It reads whether anybody watches or not, so that nothing in the guest
ever blocks on its console; what it reads is made harmless (`console_output`) once, kept in a bounded
capture, and offered to every viewer. A viewer sees what was shown before it came first, then live bytes.
Whoever finds the writer's role free gets it by typing; `take` takes it from its holder.

A guest that floods its console is read at FLOOD_BYTES_PER_S: it waits, the daemon does not. A viewer
that cannot keep up is cut off by its stream. The line is opened again whenever it ends while the guest
is there: it reboots, or its login starts anew, or somebody else holds the line.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import struct
import termios
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from appliance.clock import Timers
from appliance.control import Stream
from appliance.control_frames import FrameKind
from appliance.errors import ApplianceError, ConflictError, UsageError
from appliance.log import facts
from appliance.model import VmId
from appliance.runtime.backend import ConsoleLine
from appliance.runtime.console_capture import Capture
from appliance.runtime.console_history import send_history
from appliance.runtime.console_output import HarmlessOutput

logger = logging.getLogger(__name__)

HISTORY_BYTES = 65_536
"""Sent to a viewer that does not say how much it wants; at most, it gets what the capture keeps."""
READ_BYTES = 4096
RECORD_BYTES = 67_108_864
FLOOD_BYTES_PER_S = 1_048_576
PAUSE_S = 0.005
"""Between two looks at a line: one that says a little at a time costs the daemon as much for each."""
PENDING_BYTES = 4096
"""Input beyond this waits at its viewer until the guest has read some."""
INPUT_PATIENCE_S = 5.0
"""How long input waits for the line, and then for the guest to read it, before it is thrown away."""
RETRY_FIRST_S = 0.1
RETRY_LONGEST_S = 5.0
LARGEST_SIDE = 1000
WRITE = ("free", "take", "later", "never")
"""How a viewer comes: it writes if nobody else does, in any case, once it wants to, or not at all."""


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


@dataclass(slots=True)
class OpenLine:
    """The line while the hub holds it, and what has been typed but not yet taken by the guest."""

    descriptor: int
    ended: asyncio.Future[str]
    room: asyncio.Event = field(default_factory=asyncio.Event)
    pending: bytearray = field(default_factory=bytearray)


class Hub:
    """One guest's console."""

    def __init__(
        self,
        vm_id: VmId,
        line: Callable[[VmId], ConsoleLine],
        capture: Capture,
        timers: Timers,
        record: Capture | None = None,
    ) -> None:
        """`capture` is the ring that viewers are shown; `record` keeps the same for longer."""
        self._vm_id = vm_id
        self._line = line
        self._capture = capture
        self._record = record
        self._timers = timers
        self._arriving: list[Viewer] = []
        self._viewers: list[Viewer] = []
        self._writer: Viewer | None = None
        self._size: Size | None = None
        self._open: OpenLine | None = None
        self._waiting_for: str | None = "the line is being opened"
        self._logged_reason: str | None = None
        self._heard = False
        self._opened = asyncio.Event()

    async def run(self) -> None:
        """Hold the line and read it, for ever."""
        pause = RETRY_FIRST_S
        try:
            while True:
                self._heard = False
                self._waits(await self._hold())
                pause = RETRY_FIRST_S if self._heard else min(2 * pause, RETRY_LONGEST_S)
                await self._timers.sleep(pause)
        finally:
            self._capture.close()
            if self._record is not None:
                self._record.close()

    def end_views(self, reason: str) -> None:
        """End every view, with a word why."""
        for viewer in self._arriving + self._viewers:
            viewer.stream.end(reason)

    async def view(self, viewer: Viewer, *, history_bytes: int, write: str) -> None:
        """Serve a viewer, which comes as WRITE says, until it leaves or the guest does."""
        self._arriving.append(viewer)
        try:
            await send_history(viewer.stream, self._capture, history_bytes, self._timers)
        finally:
            self._arriving.remove(viewer)
        self._viewers.append(viewer)
        if write == "take" or (write == "free" and self._writer is None):
            self._writer = viewer
        self._role_changed()
        try:
            while frame := await viewer.stream.receive():
                match frame.kind:
                    case FrameKind.DATA:
                        await self._type(viewer, frame.payload)
                    case FrameKind.ORDER:
                        self._obey(viewer, frame.content())
                    case other:
                        raise UsageError(f"a viewer of a console sends no {other.name}")
        finally:
            self._viewers.remove(viewer)
            if self._writer is viewer:
                self._writer = None
            self._role_changed()

    def _waits(self, reason: str) -> None:
        self._waiting_for = reason
        self._tell()
        if reason != self._logged_reason:
            logger.info("console line waits", extra=facts(vm=self._vm_id, reason=reason))
            self._logged_reason = reason

    async def _hold(self) -> str:
        """Open the line and read it to its end; why it could not be opened, or ended."""
        try:
            line = self._line(self._vm_id)
            descriptor = await line.open()
        except ApplianceError as exc:
            return exc.message
        loop = asyncio.get_running_loop()
        self._open = opened = OpenLine(descriptor, loop.create_future())
        opened.room.set()
        output = HarmlessOutput()
        try:
            os.set_blocking(descriptor, False)
            self._waiting_for = None
            self._opened.set()
            self._role_changed()
            loop.add_reader(descriptor, self._read, opened, output)
            return await opened.ended
        finally:
            self._open = None
            self._opened.clear()
            opened.room.set()
            loop.remove_reader(descriptor)
            loop.remove_writer(descriptor)
            os.close(descriptor)
            line.close()

    def _read(self, opened: OpenLine, output: HarmlessOutput) -> None:
        try:
            data = os.read(opened.descriptor, READ_BYTES)
        except BlockingIOError:
            return
        except OSError as exc:
            self._ended(opened, f"the line ended: {exc.strerror}")
            return
        if not data:
            self._ended(opened, "the line ended")
            return
        self._heard = True
        shown = output.feed(data)
        if shown:
            self._show(shown)
        self._breathe(opened, output, len(data))

    def _breathe(self, opened: OpenLine, output: HarmlessOutput, count: int) -> None:
        """Leave the line alone for as long as `count` bytes may take."""
        loop = asyncio.get_running_loop()
        loop.remove_reader(opened.descriptor)

        def go_on() -> None:
            if self._open is opened:
                loop.add_reader(opened.descriptor, self._read, opened, output)

        loop.call_later(max(PAUSE_S, count / FLOOD_BYTES_PER_S), go_on)

    def _show(self, shown: bytes) -> None:
        self._capture.append(shown)
        if self._record is not None:
            self._record.append(shown)
        for viewer in self._viewers:
            viewer.stream.offer(FrameKind.DATA, shown)

    def _ended(self, opened: OpenLine, reason: str) -> None:
        asyncio.get_running_loop().remove_reader(opened.descriptor)
        if not opened.ended.done():
            opened.ended.set_result(reason)

    async def _type(self, viewer: Viewer, data: bytes) -> None:
        """Pass on what a viewer types, if it writes; returns when the guest can take more."""
        if self._writer is None and not viewer.read_only:
            self._writer = viewer
            self._role_changed()
        if self._writer is not viewer:
            writer = self._writer.who if self._writer else "nobody"
            viewer.stream.offer(FrameKind.EVENT, {"notice": f"not sent: {writer} writes here, you watch"})
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(INPUT_PATIENCE_S):
                await self._opened.wait()
        opened = self._open
        if opened is None:
            viewer.stream.offer(FrameKind.EVENT, {"notice": f"not sent: {self._waiting_for}"})
            return
        opened.pending += data
        self._write(opened)
        try:
            async with asyncio.timeout(INPUT_PATIENCE_S):
                await opened.room.wait()
        except TimeoutError:
            opened.pending.clear()
            self._write(opened)
            viewer.stream.offer(
                FrameKind.EVENT, {"notice": "input thrown away: the guest does not read its console"}
            )

    def _write(self, opened: OpenLine) -> None:
        loop = asyncio.get_running_loop()
        if self._open is not opened:
            return
        try:
            while opened.pending:
                del opened.pending[: os.write(opened.descriptor, opened.pending)]
        except BlockingIOError:
            loop.add_writer(opened.descriptor, self._write, opened)
        except OSError as exc:
            opened.pending.clear()
            self._ended(opened, f"the line ended: {exc.strerror}")
        if not opened.pending:
            loop.remove_writer(opened.descriptor)
        if len(opened.pending) <= PENDING_BYTES:
            opened.room.set()
        else:
            opened.room.clear()

    def _obey(self, viewer: Viewer, order: Mapping[str, object]) -> None:
        match order.get("do"):
            case "resize":
                viewer.size = _size(order)
                if self._writer is viewer:
                    self._role_changed()
            case "take":
                if viewer.read_only:
                    raise UsageError("a viewer that only watches cannot write")
                self._writer = viewer
                self._role_changed()
            case "claim":
                if self._writer is None and not viewer.read_only:
                    self._writer = viewer
                    self._role_changed()
            case "release":
                if self._writer is viewer:
                    self._writer = None
                    self._role_changed()
            case other:
                raise UsageError(f"a console knows no order {other!r}", hint="resize, take, claim or release")

    def _role_changed(self) -> None:
        self._resize()
        self._tell()

    def _resize(self) -> None:
        """Give the guest's terminal the size of the writer's, or the last that it had."""
        if self._writer is not None and self._writer.size is not None:
            self._size = self._writer.size
        if self._open is None or self._size is None:
            return
        with contextlib.suppress(OSError):
            packed = struct.pack("4H", self._size.rows, self._size.columns, 0, 0)
            fcntl.ioctl(self._open.descriptor, termios.TIOCSWINSZ, packed)

    def _tell(self) -> None:
        """Tell every viewer who is there and how the line is."""
        for viewer in self._viewers:
            viewer.stream.offer(
                FrameKind.EVENT,
                {
                    "writer": self._writer.who if self._writer else None,
                    "you_write": self._writer is viewer,
                    "others": [other.who for other in self._viewers if other is not viewer],
                    "waiting_for": self._waiting_for,
                    "size": [self._size.rows, self._size.columns] if self._size else None,
                },
            )


class Consoles:
    """The hubs of all guests here; `view` serves the stream `console` of the control socket."""

    def __init__(
        self,
        line: Callable[[VmId], ConsoleLine],
        capture_file: Callable[[VmId], Path],
        tasks: asyncio.TaskGroup,
        timers: Timers,
        record_file: Callable[[VmId], Path] | None = None,
    ) -> None:
        """`line` gives a guest's line, anew for each opening; hubs run as tasks of `tasks`.

        With `record_file`, what consoles show is also kept there, RECORD_BYTES of each.
        """
        self._line = line
        self._capture_file = capture_file
        self._record_file = record_file
        self._tasks = tasks
        self._timers = timers
        self._hubs: dict[VmId, tuple[Hub, asyncio.Task[None]]] = {}

    def guest_runs(self, vm_id: VmId) -> None:
        """Hold the guest's line from now on; again for a guest that is known changes nothing."""
        if vm_id in self._hubs:
            return
        record = None if self._record_file is None else Capture(self._record_file(vm_id), RECORD_BYTES)
        hub = Hub(vm_id, self._line, Capture(self._capture_file(vm_id)), self._timers, record)
        task = self._tasks.create_task(self._run(vm_id, hub), name=f"console of VM {vm_id}")
        self._hubs[vm_id] = (hub, task)

    def guest_gone(self, vm_id: VmId) -> None:
        """Let go of the guest's line and end its views; what it showed stays captured."""
        hub, task = self._hubs.pop(vm_id, (None, None))
        if hub is not None and task is not None:
            task.cancel()
            hub.end_views("the VM has stopped")

    async def view(self, stream: Stream, request: Mapping[str, object]) -> None:
        """Serve one viewer: `{"vm", "rows", "columns", "history_bytes", "who", "write": one of WRITE}`.

        :raises ConflictError: the VM does not run here
        :raises UsageError: the request is malformed
        """
        vm_id = VmId(_number(request, "vm", default=None, most=2**63))
        history_bytes = _number(request, "history_bytes", default=HISTORY_BYTES, most=2**31)
        write = request.get("write", "free")
        if not isinstance(write, str) or write not in WRITE:
            raise UsageError(f"write is {write!r}", hint=f"one of: {', '.join(WRITE)}")
        size = _size(request) if {"rows", "columns"} <= request.keys() else None
        hub, _ = self._hubs.get(vm_id, (None, None))
        if hub is None:
            raise ConflictError(f"VM {vm_id} does not run here: it has no console", hint="start it first")
        viewer = Viewer(stream, _label(request, stream), size, read_only=write == "never")
        logger.info("console viewed", extra=facts(vm=vm_id, who=viewer.who))
        try:
            await hub.view(viewer, history_bytes=history_bytes, write=write)
        finally:
            logger.info("console left", extra=facts(vm=vm_id, who=viewer.who))

    async def _run(self, vm_id: VmId, hub: Hub) -> None:
        try:
            await hub.run()
        except Exception:
            logger.exception("a console's hub failed", extra=facts(vm=vm_id))
            if self._hubs.get(vm_id, (None, None))[0] is hub:
                del self._hubs[vm_id]
            hub.end_views("the console failed: see the daemon's log")


def _label(request: Mapping[str, object], stream: Stream) -> str:
    """How other viewers see this one: its own word, as far as it can be printed, and its process."""
    word = "".join(letter for letter in str(request.get("who", "")) if letter.isprintable())[:40]
    return f"{word or f'uid {stream.peer.uid}'} (pid {stream.peer.pid})"


def _size(content: Mapping[str, object]) -> Size:
    return Size(
        rows=_number(content, "rows", default=None, most=LARGEST_SIDE),
        columns=_number(content, "columns", default=None, most=LARGEST_SIDE),
    )


def _number(content: Mapping[str, object], name: str, *, default: int | None, most: int) -> int:
    value = content.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
        raise UsageError(f"{name} is {value!r}", hint=f"a whole number up to {most}")
    return value
