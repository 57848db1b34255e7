"""The scripts an image may bring (protocol.md 4.7): which one, with which arguments, and for how long.

A hook is an executable named by a key of `vma.conf`. Its arguments are a flat list `key value key value …`,
passwords of authentication plugins included: that is the contract with images that mount homes with them.
Standard input is empty, output goes to `qvd-hooks.log`. QVD gives hooks no time limit and waits for some of
them inside an RPC; here each has `vma.hook.timeout` seconds, and those that talk to people have limits of
their own. What a hook leaves running when it ends by itself is nobody's business.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from typing import Dict, Mapping, Optional

from appliance.vma.conf import Conf
from appliance.vma.files import BoundedLog, say
from appliance.vma.hook_log import fifo_path, log_path

ACTION = "vma.on_action."
PROVISIONING = "vma.on_provisioning."
STATE = "vma.on_state."
_NONE: Dict[str, str] = {}
_NOT_RUN, _TIMED_OUT = 127, 256
_LOOK = os.WEXITED | os.WNOHANG | os.WNOWAIT
_POLL_MAX_S = 86400.0  # poll takes milliseconds in an int


class HookFailed(Exception):
    """A hook refused: what it guards must not happen. `refused` is false if it could not decide at all."""

    def __init__(self, message: str, refused: bool) -> None:
        super().__init__(message)
        self.refused = refused


class Hooks:
    """Runs the hooks of one configuration. Blocking: call it in a child of the VMA, never in its loop."""

    def __init__(self, conf: Conf) -> None:
        self._conf = conf
        self._limit_s = conf.seconds("vma.hook.timeout")
        self._log = BoundedLog(log_path(conf), conf.number("vma.log.limit"))
        self._fifo = fifo_path(conf)

    def has(self, key: str) -> bool:
        return bool(self._conf.get(key).strip())

    def run_action(
        self,
        action: str,
        params: Mapping[str, str],
        x_state: str,
        more: Mapping[str, str] = _NONE,
        limit_s: Optional[float] = None,
    ) -> bool:
        """The hook of an action; True if there is one. Raises HookFailed, which aborts the action.

        `more` are our arguments, after QVD's. `limit_s` is for a hook that has a time limit of its own.
        """
        name = action.replace("pre-connect", "pre_connect")
        told = {**params, "qvd.vm.session.state": x_state, "qvd.hook.on_action": name, **more}
        return self.run(ACTION + action, told, limit_s)

    def run_provisioning(self, name: str, params: Mapping[str, str]) -> bool:
        """True if a hook did the step, so that the default is not wanted."""
        return self.run(PROVISIONING + name, {**params, "qvd.hook.on_provisioning": name})

    def run_state(self, key: str, x_state: str) -> bool:
        return self.run(key, {"qvd.hook.on_state": x_state})

    def run(self, key: str, params: Mapping[str, str], limit_s: Optional[float] = None) -> bool:
        if not self.has(key):
            return False
        program = self._conf[key].strip()
        arguments = [part for pair in params.items() for part in pair]
        status = self._spawn([program, *arguments], limit_s or self._limit_s)
        if status != 0:
            raise HookFailed(f"{key}: {program} {_outcome(status)}", refused=0 < status < _NOT_RUN)
        return True

    def _output(self) -> int:
        """Where a hook prints: the FIFO of the VMA's `HookLog`, and the log itself without one."""
        try:
            return os.open(self._fifo, os.O_RDWR | os.O_NOFOLLOW)
        except OSError:
            return self._log.open()

    def _spawn(self, argv: list[str], limit_s: float) -> int:
        log = self._output()
        pid = os.fork()
        if pid == 0:
            try:
                null = os.open("/dev/null", os.O_RDONLY)
                for fd, target in ((null, 0), (log, 1), (log, 2)):
                    os.dup2(fd, target)
                os.setpgid(0, 0)
                os.execv(argv[0], argv)
            except OSError as exc:
                say(f"{argv[0]}: {exc.strerror}")
            finally:
                os._exit(_NOT_RUN)
        os.close(log)
        return _wait(pid, time.monotonic() + limit_s)


def _wait(pid: int, deadline: float) -> int:
    """The exit status; negative for a signal, `_TIMED_OUT` when the hook had to be killed."""
    _await_end(pid, deadline)
    done, status = os.waitpid(pid, os.WNOHANG)
    if done:
        return os.waitstatus_to_exitcode(status)
    for target in (-pid, pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(target, signal.SIGKILL)
    os.waitpid(pid, 0)
    return _TIMED_OUT


def _await_end(pid: int, deadline: float) -> None:
    """Return when the child has ended, or at the deadline."""
    try:
        handle = os.pidfd_open(pid)
    except OSError:  # a kernel without pidfds
        while time.monotonic() < deadline and not os.waitid(os.P_PID, pid, _LOOK):
            time.sleep(0.05)
        return
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    left = deadline - time.monotonic()
    while left > 0 and not poll.poll(min(left, _POLL_MAX_S) * 1000):
        left = deadline - time.monotonic()
    os.close(handle)


def _outcome(status: int) -> str:
    if status == _TIMED_OUT:
        return "took longer than its time limit and was ended"
    if status == _NOT_RUN:
        return "could not be run"
    return f"was ended by signal {-status}" if status < 0 else f"refused with status {status}"
