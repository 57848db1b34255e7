"""The consoles of all guests here: a hub for each that runs, and who may look at it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from appliance.clock import Timers
from appliance.control import Stream
from appliance.errors import ConflictError, UsageError
from appliance.log import facts
from appliance.model import VmId
from appliance.runtime.backend import ConsoleLine
from appliance.runtime.console import Hub
from appliance.runtime.console_capture import Capture
from appliance.runtime.console_viewer import Viewer, label, number_in, size_in

logger = logging.getLogger(__name__)

HISTORY_BYTES = 65_536
"""Sent to a viewer that does not say how much it wants; at most, it gets what the capture keeps."""
RECORD_BYTES = 67_108_864
FAILED_PAUSE_S = 5.0
"""Before a hub that has failed runs again."""
WRITE = ("free", "take", "later", "never")
"""How a viewer comes: it writes if nobody else does, in any case, once it wants to, or not at all."""


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
        self._begun: set[VmId] = set()
        """Guests that are launched anew, and did not say anything yet."""

    def guest_begins(self, vm_id: VmId) -> None:
        """The VM is launched: what the guest before it has done to its screen is past, whoever saw it end."""
        self.guest_gone(vm_id)
        self._begun.add(vm_id)

    def guest_runs(self, vm_id: VmId) -> None:
        """Hold the guest's line from now on; again for a guest that is known changes nothing."""
        if vm_id in self._hubs:
            return
        record = None if self._record_file is None else Capture(self._record_file(vm_id), RECORD_BYTES)
        hub = Hub(vm_id, self._line, Capture(self._capture_file(vm_id)), self._timers, record)
        task = self._tasks.create_task(self._run(vm_id, hub), name=f"console of VM {vm_id}")
        task.add_done_callback(lambda _: hub.close())
        self._hubs[vm_id] = (hub, task)
        if vm_id in self._begun:
            self._begun.remove(vm_id)
            hub.tidy()

    def guest_gone(self, vm_id: VmId) -> None:
        """Let go of the guest's line and end its views; what it showed stays captured."""
        self._begun.discard(vm_id)
        hub, task = self._hubs.pop(vm_id, (None, None))
        if hub is not None and task is not None:
            task.cancel()
            hub.let_go()
            hub.tidy()
            hub.end_views("the VM has stopped")

    async def view(self, stream: Stream, request: Mapping[str, object]) -> None:
        """Serve one viewer: `{"vm", "rows", "columns", "history_bytes", "who", "write": one of WRITE}`.

        :raises ConflictError: the VM does not run here
        :raises UsageError: the request is malformed
        """
        vm_id = VmId(number_in(request, "vm", default=None, most=2**63))
        history_bytes = number_in(request, "history_bytes", default=HISTORY_BYTES, most=2**31)
        write = request.get("write", "free")
        if not isinstance(write, str) or write not in WRITE:
            raise UsageError(f"write is {write!r}", hint=f"one of: {', '.join(WRITE)}")
        size = size_in(request) if {"rows", "columns"} <= request.keys() else None
        hub, _ = self._hubs.get(vm_id, (None, None))
        if hub is None:
            raise ConflictError(f"VM {vm_id} does not run here: it has no console", hint="start it first")
        viewer = Viewer(stream, label(request, stream), size, read_only=write == "never")
        logger.info("console viewed", extra=facts(vm=vm_id, who=viewer.who))
        try:
            await hub.view(viewer, history_bytes=history_bytes, write=write)
        finally:
            logger.info("console left", extra=facts(vm=vm_id, who=viewer.who))

    async def _run(self, vm_id: VmId, hub: Hub) -> None:
        """Run a hub, and again whenever it fails, by whatever defect: no guest is left without."""
        while True:
            try:
                await hub.run()
            except Exception:
                logger.exception("a console's hub failed", extra=facts(vm=vm_id))
                hub.fail_views()
            await self._timers.sleep(FAILED_PAUSE_S)
