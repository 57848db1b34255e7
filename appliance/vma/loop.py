"""One thread that waits for everything: descriptors, timers, children and signals.

The VMA forks (launches, hooks) and must answer within milliseconds of the guest's first breath; threads
forbid the one and asyncio's import the other, hence this small loop.
"""

from __future__ import annotations

import contextlib
import heapq
import os
import selectors
import signal
import time
import traceback
from typing import Any, Callable, Dict, List, Optional, Tuple

now = time.monotonic
_FAILED = 1 << 8  # the wait status of exit(1)


class Timer:
    """A call that can still be cancelled."""

    def __init__(self, callback: Callable[[], object]) -> None:
        self.callback: Optional[Callable[[], object]] = callback

    def cancel(self) -> None:
        self.callback = None


class Loop:
    """Runs callbacks one at a time until `stop()`; one that raises is reported, and the loop goes on."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._timers: List[Tuple[float, int, Timer]] = []
        self._count = 0
        self._children: Dict[int, Callable[[int], None]] = {}
        self._signals: Dict[int, Callable[[], None]] = {}
        self._running = True
        self._wake, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        self.on_read(self._wake, self._woken)
        self.on_signal(signal.SIGCHLD, self._reap)

    def on_read(self, fd: Any, callback: Callable[[], object]) -> None:
        self._selector.register(fd, selectors.EVENT_READ, callback)

    def forget(self, fd: Any) -> None:
        self._selector.unregister(fd)

    def on_signal(self, number: int, callback: Callable[[], None]) -> None:
        self._signals[number] = callback
        signal.signal(number, lambda *_: None)

    def after(self, seconds: float, callback: Callable[[], object]) -> Timer:
        timer = Timer(callback)
        self._count += 1
        heapq.heappush(self._timers, (now() + seconds, self._count, timer))
        return timer

    def fork(self, work: Callable[[], None], ended: Callable[[int], None], keep: int = -1) -> int:
        """Run `work` in a child process of its own session; `ended` gets its wait status.

        The child has no descriptor of ours but the standard three and `keep`: a launch that outlives the
        VMA must not hold its port. In a guest that has no room for a process the child has failed at once
        and its pid is 0.
        """
        try:
            pid = os.fork()
        except OSError:
            traceback.print_exc(limit=0)
            self.after(0, lambda: ended(_FAILED))
            return 0
        if pid == 0:
            _become(work, keep)
        self._children[pid] = ended
        return pid

    def run(self) -> None:
        while self._running:
            for key, _ in self._selector.select(self._pause()):
                _call(key.data)
            while self._timers and self._timers[0][0] <= now():
                timer = heapq.heappop(self._timers)[2]
                if timer.callback is not None:
                    _call(timer.callback)

    def stop(self) -> None:
        self._running = False

    def _pause(self) -> Optional[float]:
        while self._timers and self._timers[0][2].callback is None:
            heapq.heappop(self._timers)
        return max(0.0, self._timers[0][0] - now()) if self._timers else None

    def _woken(self) -> None:
        for number in set(os.read(self._wake, 4096)):
            if number in self._signals:
                _call(self._signals[number])

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            ended = self._children.pop(pid, None)
            if ended is not None:
                ended(status)


def _call(callback: Callable[[], object]) -> None:
    try:
        callback()
    except Exception:
        traceback.print_exc()


def _become(work: Callable[[], None], keep: int) -> None:
    """Body of the child: never returns into the parent's code."""
    status = 1
    try:
        signal.set_wakeup_fd(-1)
        for fd in [int(name) for name in os.listdir("/proc/self/fd")]:
            if fd > 2 and fd != keep:
                with contextlib.suppress(OSError):
                    os.close(fd)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        os.setsid()
        work()
        status = 0
    except SystemExit:
        pass  # said already
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)
