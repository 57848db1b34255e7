"""The console of a guest: one hub per line, which one reads all the time, many watch, and one writes to.

The hub is the line's only holder. It reads whether anybody watches or not, so that nothing in the guest
ever blocks on its console; what it reads is made harmless (`console_output`) once, kept in a bounded
capture, and offered to every viewer. A viewer sees what was shown before it came first, then live bytes.
Whoever finds the writer's role free gets it by typing; `take` takes it from its holder.

A guest that floods its console is read at FLOOD_BYTES_PER_S, and more slowly if what it says is costly: it
waits, the daemon does not. A viewer that cannot keep up is cut off by its stream. The line is opened again
whenever it ends while the guest is there: it reboots, or its login starts anew, or somebody else holds the
line.

What is typed waits here until the guest takes it, and is either passed on or refused as a whole: the end
of a command whose beginning was refused would be another command.
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

from appliance.clock import Timers
from appliance.console_output import HarmlessOutput, tidying
from appliance.control_frames import FrameKind
from appliance.errors import AdminError, ApplianceError, UsageError
from appliance.log import facts
from appliance.model import VmId
from appliance.runtime.backend import ConsoleLine
from appliance.runtime.console_capture import CAPTURE_BYTES, Capture
from appliance.runtime.console_history import send_history
from appliance.runtime.console_viewer import Size, Viewer, size_in

logger = logging.getLogger(__name__)

READ_BYTES = 4096
FLOOD_BYTES_PER_S = 1_048_576
PAUSE_S = 0.005
"""Between two looks at a line: one that says a little at a time costs the daemon as much for each."""
IDLE_FOR_EACH_BUSY = 10
"""A line is left alone for as many times as long as what it said last has kept the daemon busy."""
LONGEST_PAUSE_S = 0.25
PENDING_BYTES = 4096
"""Input beyond this waits at its viewer until the guest has read some."""
INPUT_PATIENCE_S = 5.0
"""How long input waits for the line, and for the guest to read any of it, before it is thrown away."""
REFUSED_S = 1.0
"""Who has been refused is refused on, until nothing has come for so long, or an order about the role."""
RETRY_FIRST_S = 0.1
RETRY_LONGEST_S = 5.0
FAILED = "the console failed: see the daemon's log"
MOST_NAMED = 32
"""Viewers named to another: an event must fit into a frame."""


@dataclass(slots=True)
class OpenLine:
    """The line while the hub holds it."""

    descriptor: int
    ended: asyncio.Future[str]


@dataclass(slots=True)
class Typed:
    """What has been typed and not yet taken by the guest, whether the line is open or not."""

    pending: bytearray = field(default_factory=bytearray)
    by: Viewer | None = None
    """Who has typed the last of it."""
    patience: asyncio.TimerHandle | None = None
    """Throws it away when its time is over."""
    room: asyncio.Event = field(default_factory=asyncio.Event)
    """Whether more may be typed."""


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
        self._typed = Typed()
        self._typed.room.set()
        self._runs = True

    async def run(self) -> None:
        """Hold the line and read it, for ever."""
        pause = RETRY_FIRST_S
        self._runs = True
        try:
            while True:
                self._heard = False
                self._waits(await self._hold())
                pause = RETRY_FIRST_S if self._heard else min(2 * pause, RETRY_LONGEST_S)
                await self._timers.sleep(pause)
        finally:
            self._runs = False
            self._throw_away("")

    def close(self) -> None:
        """Close the files of what was shown."""
        self._capture.close()
        if self._record is not None:
            self._record.close()

    def tidy(self) -> None:
        """Undo what programs that ended with the guest or the line may have left of screens and modes."""
        if undoing := tidying(self._capture.tail(CAPTURE_BYTES)):
            self._show(undoing)

    def let_go(self) -> None:
        """Read nothing more."""
        if self._open is not None:
            asyncio.get_running_loop().remove_reader(self._open.descriptor)

    def end_views(self, reason: str) -> None:
        """End every view, with a word why."""
        for viewer in self._arriving + self._viewers:
            viewer.stream.end(reason)

    def fail_views(self) -> None:
        """End every view with an error: the hub itself has failed."""
        self._waiting_for = FAILED
        for viewer in self._arriving + self._viewers:
            viewer.stream.fail(AdminError(FAILED))

    async def view(self, viewer: Viewer, *, history_bytes: int, write: str) -> None:
        """Serve a viewer, which comes as WRITE says, until it leaves or the guest does."""
        self._arriving.append(viewer)
        try:
            await send_history(viewer.stream, self._capture, history_bytes, self._timers)
        finally:
            self._arriving.remove(viewer)
        self._viewers.append(viewer)
        if write == "take" or (write == "free" and self._writer is None):
            self._give_role(viewer)
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
        output = HarmlessOutput()
        try:
            self._waiting_for = None
            self._role_changed()
            self._be_patient()
            self._write()
            loop.add_reader(descriptor, self._read, opened, output)
            reason = await opened.ended
            self.tidy()
            return reason
        finally:
            self._throw_away("not sent: the line has ended")
            self._open = None
            loop.remove_reader(descriptor)
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
        began = self._timers.monotonic()
        shown = output.feed(data)
        if shown:
            self._show(shown)
        self._breathe(opened, output, len(data), self._timers.monotonic() - began)

    def _breathe(self, opened: OpenLine, output: HarmlessOutput, count: int, busy_s: float) -> None:
        """Leave the line alone for as long as `count` bytes may take that have kept us busy for `busy_s`."""
        loop = asyncio.get_running_loop()
        loop.remove_reader(opened.descriptor)

        def go_on() -> None:
            if self._open is opened:
                loop.add_reader(opened.descriptor, self._read, opened, output)

        idle_s = min(busy_s * IDLE_FOR_EACH_BUSY, LONGEST_PAUSE_S)
        loop.call_later(max(PAUSE_S, count / FLOOD_BYTES_PER_S, idle_s), go_on)

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
        if viewer.refused_at is not None and self._timers.monotonic() < viewer.refused_at + REFUSED_S:
            self._refuse(viewer, viewer.refusal)
            return
        if self._writer is None and not viewer.read_only:
            self._give_role(viewer)
            self._role_changed()
        if self._writer is not viewer:
            self._refuse(viewer, self._not_the_writer())
            return
        if not self._runs:
            self._refuse(viewer, f"not sent: {self._waiting_for}")
            return
        self._typed.pending += data
        self._typed.by = viewer
        self._write()
        await self._typed.room.wait()

    def _refuse(self, viewer: Viewer, notice: str) -> None:
        """Tell a viewer that what it typed was not sent."""
        viewer.refusal, viewer.refused_at = notice, self._timers.monotonic()
        viewer.stream.offer(FrameKind.EVENT, {"notice": notice})

    def _not_the_writer(self) -> str:
        return f"not sent: {self._writer.who if self._writer else 'nobody'} writes here, you watch"

    def _write(self) -> None:
        """Let the guest take of what was typed what it can, if the line is open."""
        pending = self._typed.pending
        before = len(pending)
        if self._open is not None:
            self._write_to(self._open)
        if len(pending) < before or self._typed.patience is None:
            self._be_patient()
        if len(pending) <= PENDING_BYTES:
            self._typed.room.set()
        else:
            self._typed.room.clear()

    def _write_to(self, opened: OpenLine) -> None:
        loop = asyncio.get_running_loop()
        pending = self._typed.pending
        try:
            while pending:
                del pending[: os.write(opened.descriptor, pending)]
        except BlockingIOError:
            loop.add_writer(opened.descriptor, self._write)
            return
        except OSError as exc:
            self._throw_away("not sent: the line has ended")
            self._ended(opened, f"the line ended: {exc.strerror}")
        loop.remove_writer(opened.descriptor)

    def _be_patient(self) -> None:
        """Give what was typed its whole time, from now on."""
        if self._typed.patience is not None:
            self._typed.patience.cancel()
            self._typed.patience = None
        if self._typed.pending:
            loop = asyncio.get_running_loop()
            self._typed.patience = loop.call_later(INPUT_PATIENCE_S, self._lose_patience)

    def _lose_patience(self) -> None:
        """Throw away what was typed, unless the guest does take some: a terminal tells of room rarely."""
        before = len(self._typed.pending)
        self._write()
        if len(self._typed.pending) < before:
            return
        if self._open is None:
            self._throw_away(f"not sent: {self._waiting_for}")
        else:
            self._throw_away("input thrown away: the guest does not read its console")

    def _throw_away(self, notice: str) -> None:
        """Forget what was typed and not taken, and tell who has typed it."""
        if not self._typed.pending:
            return
        self._typed.pending.clear()
        self._be_patient()
        if self._open is not None:
            asyncio.get_running_loop().remove_writer(self._open.descriptor)
        if self._typed.by is not None and notice:
            self._refuse(self._typed.by, notice)
        self._typed.room.set()

    def _give_role(self, viewer: Viewer) -> None:
        """Let a viewer be the writer.

        What another has typed and the guest has not taken is not sent any more, unless that one has given
        the role back and the guest is already reading.
        """
        before, self._writer = self._writer, viewer
        if self._typed.by is not viewer and (before is not None or self._open is None):
            self._throw_away(self._not_the_writer())

    def _obey(self, viewer: Viewer, order: Mapping[str, object]) -> None:
        match order.get("do"):
            case "resize":
                viewer.size = size_in(order)
                if self._writer is viewer:
                    self._role_changed()
            case "take":
                if viewer.read_only:
                    raise UsageError("a viewer that only watches cannot write")
                viewer.refused_at = None
                self._give_role(viewer)
                self._role_changed()
            case "claim":
                viewer.refused_at = None
                if self._writer is None and not viewer.read_only:
                    self._give_role(viewer)
                    self._role_changed()
            case "release":
                viewer.refused_at = None
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
                    "others": [other.who for other in self._viewers if other is not viewer][:MOST_NAMED],
                    "waiting_for": self._waiting_for,
                    "size": [self._size.rows, self._size.columns] if self._size else None,
                },
            )
