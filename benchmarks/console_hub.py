"""The part of an HKD that serves consoles, in a process of its own, with guests that are told what to do.

Run as `python -m benchmarks.console_hub PLAN`. The hub and the control socket are the daemon's, on the
daemon's kind of event loop. A guest's line is a pseudo terminal. A guest that floods is a process at its
other end; others say a few words at the start and are silent. Beside all that a probe sleeps a little, again
and again, and notes by how much the loop wakes it too late.

It says `ready`, obeys lines on its standard input (`flood`, `calm`, `probe`), and ends with it. At the end it
writes what was noted beside the plan: lags in seconds, by phase.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import time
import tty
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import uvloop

from appliance.clock import SystemClock
from appliance.control import ControlServer, Stream
from appliance.errors import BackendError
from appliance.model import VmId
from appliance.runtime.consoles import Consoles

PROBE_S = 0.005
GUEST = Path(__file__).with_name("flooding_guest.py")


class Line:
    """A guest's console line, with one holder at a time."""

    def __init__(self) -> None:
        self._master, self.guest = os.openpty()
        tty.setraw(self.guest)
        self._is_held = False

    async def open(self) -> int:
        if self._is_held:
            raise BackendError("somebody else holds the line")
        self._is_held = True
        return os.dup(self._master)

    def close(self) -> None:
        self._is_held = False


class Desk:
    """The guests."""

    def __init__(self, plan: Mapping[str, Any]) -> None:
        self.lines = {VmId(vm_id): Line() for vm_id in plan["guests"]}
        self._flooding = VmId(plan["guests"][0])
        self._keys = plan["keys"]
        self._process: subprocess.Popen[bytes] | None = None

    def greet(self) -> None:
        """Let every guest say who it is."""
        for vm_id, line in self.lines.items():
            os.write(line.guest, b"\x1b[1mconsole of guest %05d\x1b[m\r\nlogin: " % vm_id)

    def flood(self) -> None:
        """Let the first guest write as fast as it can, and note the keys that it reads."""
        guest = self.lines[self._flooding].guest
        self._process = subprocess.Popen([sys.executable, GUEST, self._keys], stdin=guest, stdout=guest)

    def calm(self) -> None:
        """End that."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
            self._process = None


async def serve(plan: Mapping[str, Any], log: Path) -> None:
    """Do as told until the standard input ends."""
    desk, lags, phase = Desk(plan), dict[str, list[float]](), "start"

    async def probe() -> None:
        while True:
            due = time.monotonic() + PROBE_S
            await asyncio.sleep(PROBE_S)
            lags.setdefault(phase, []).append(max(0.0, time.monotonic() - due))

    async with asyncio.TaskGroup() as tasks:
        consoles = Consoles(
            lambda vm_id: desk.lines[vm_id], lambda vm_id: log.with_name(f"{vm_id}.tty"), tasks, SystemClock()
        )
        handlers = {"console": consoles.view, "samples": silent}
        async with ControlServer(Path(plan["control"]), handlers, tasks):
            for vm_id in desk.lines:
                consoles.guest_runs(vm_id)
            desk.greet()
            probing = tasks.create_task(probe())
            print("ready", flush=True)
            orders = await _standard_input()
            while order := (await orders.readline()).decode().strip():
                phase = order
                if order in {"flood", "calm"}:
                    getattr(desk, order)()
            desk.calm()
            probing.cancel()
        for vm_id in desk.lines:
            consoles.guest_gone(vm_id)
    log.write_text(json.dumps(lags))


async def silent(stream: Stream, request: Mapping[str, object]) -> None:
    """Serve samples to whoever asks, of which there are none."""
    await stream.receive()


async def _standard_input() -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(reader)
    await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin)
    return reader


if __name__ == "__main__":
    file = Path(sys.argv[1])
    with contextlib.suppress(KeyboardInterrupt):
        uvloop.run(serve(json.loads(file.read_text()), file.with_suffix(".done")))
