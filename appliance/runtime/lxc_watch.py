"""Follows one guest to its end by pidfds: init, monitor and keeper.

The guest is gone when none of them runs: the monitor ends some 40 ms after init, once it has removed
link, mounts and control groups. An init that ends while the monitor stays is a reboot, so the next
init is followed; when none comes within `GRACE_S`, or one of the three dies alone, the rest is killed.
So is a guest that does nothing but reboot: its monitor works for it as root, outside its limits.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from appliance.log import facts
from appliance.runtime import lxc_process
from appliance.runtime.lxc_config import Init
from appliance.runtime.lxc_process import Found

logger = logging.getLogger(__name__)

GRACE_S = 10.0
LOOK_S = 0.1
MOST_REBOOTS, REBOOTS_S = 5, 60.0
"""How many reboots within how many seconds pass for what somebody wants."""
HALT_S = 0.5
HALT_ASKS = 10


class Watch:
    """Calls `ended` once, when nothing of the guest runs any more; `done` is then set.

    Calls `rebooted` whenever an init has taken the place of one that ended.
    """

    def __init__(
        self, found: Found, ended: Callable[[], None], rebooted: Callable[[], None] = lambda: None
    ) -> None:
        self.container = found.container
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._ended = ended
        self._rebooted = rebooted
        self._loop = asyncio.get_running_loop()
        self._pidfds: dict[int, int] = {}
        self._init = found.init
        self._monitor = found.monitor
        self._keeper = found.keeper
        self._reboots: deque[float] = deque(maxlen=MOST_REBOOTS)
        self._timer: asyncio.TimerHandle | None = None
        self._halting: asyncio.TimerHandle | None = None
        for pid in found.pids:
            self._follow(pid)
        self._loop.call_soon(self._look)

    @property
    def init(self) -> int | None:
        """The guest's init process, if it lives."""
        return self._alive(self._init)

    @property
    def monitor(self) -> int | None:
        """The guest's monitor, if it lives."""
        return self._alive(self._monitor)

    def halt(self) -> None:
        """Ask init to power off, again and again for a while: one that has just begun does not listen yet."""
        self._ask_to_halt(HALT_ASKS)

    def kill(self) -> None:
        """Kill init, so that the monitor cleans up and ends; without an init, or after a while, the rest."""
        if self.init is None:
            self._kill_rest()
        else:
            self._signal(self._init, signal.SIGKILL)
            self._arm(GRACE_S, self._kill_rest)

    def close(self) -> None:
        """Stop following; the guest goes on."""
        for pid in list(self._pidfds):
            self._forget(pid)
        self._disarm()
        self.done.cancel()

    def _follow(self, pid: int) -> bool:
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            return False
        self._pidfds[pid] = pidfd
        self._loop.add_reader(pidfd, self._gone, pid)
        return True

    def _forget(self, pid: int) -> None:
        pidfd = self._pidfds.pop(pid)
        self._loop.remove_reader(pidfd)
        os.close(pidfd)

    def _gone(self, pid: int) -> None:
        self._forget(pid)
        self._look()

    def _look(self) -> None:
        if self.done.done():
            return
        if not self._pidfds:
            self._disarm()
            self.done.set_result(None)
            self._ended()
        elif self.monitor is None:
            self._kill_rest()
        elif self.init is None:
            self._look_for_reboot(GRACE_S)

    def _look_for_reboot(self, left_s: float) -> None:
        if self.done.done() or self.monitor is None:
            return
        self._init = lxc_process.init_of(self.monitor)
        if self._init is not None and self._follow(self._init):
            logger.info("guest rebooted container=%s init=%s", self.container, self._init)
            if self._reboots_without_end():
                logger.error("guest reboots without end: killed", extra=facts(container=self.container))
                self.kill()
            else:
                self._rebooted()
        elif left_s > 0:
            self._arm(LOOK_S, lambda: self._look_for_reboot(left_s - LOOK_S))
        else:
            self._kill_rest()

    def _reboots_without_end(self) -> bool:
        now = self._loop.time()
        too_soon = len(self._reboots) == MOST_REBOOTS and now - self._reboots[0] < REBOOTS_S
        self._reboots.append(now)
        return too_soon

    def _ask_to_halt(self, left: int) -> None:
        if left > 0 and self.init is not None:
            self._signal(self._init, Init.of(lxc_process.program(self.init)).halt)
            self._halting = self._loop.call_later(HALT_S, self._ask_to_halt, left - 1)

    def _kill_rest(self) -> None:
        for pid in (self._init, self._monitor, self._keeper):
            self._signal(pid, signal.SIGKILL)

    def _signal(self, pid: int | None, number: int) -> None:
        if pid in self._pidfds:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfds[pid], number)

    def _alive(self, pid: int | None) -> int | None:
        return pid if pid in self._pidfds else None

    def _arm(self, delay_s: float, call: Callable[[], None]) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(delay_s, call)

    def _disarm(self) -> None:
        for timer in (self._timer, self._halting):
            if timer is not None:
                timer.cancel()
