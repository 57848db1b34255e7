"""The scripts an image may bring (protocol.md 4.7): which one, with which arguments, and for how long.

A hook is an executable named by a key of `vma.conf`. Its arguments are a flat list `key value key value …`,
passwords of authentication plugins included: that is the contract with images that mount homes with them.
Standard input is empty, output goes to `qvd-hooks.log`. QVD gives hooks no time limit and waits for some of
them inside an RPC; here each has `vma.hook.timeout` seconds.
"""

from __future__ import annotations

import os
import signal
import time
from typing import Mapping

from appliance.vma.conf import Conf
from appliance.vma.files import BoundedLog, say

ACTION = "vma.on_action."
PROVISIONING = "vma.on_provisioning."
STATE = "vma.on_state."


class HookFailed(Exception):
    """A hook refused: what it guards must not happen."""


class Hooks:
    """Runs the hooks of one configuration. Blocking: call it in a child of the VMA, never in its loop."""

    def __init__(self, conf: Conf) -> None:
        self._conf = conf
        self._limit_s = conf.seconds("vma.hook.timeout")
        self._log = BoundedLog(conf["path.log"] + "/qvd-hooks.log", conf.number("vma.log.limit"))

    def has(self, key: str) -> bool:
        return bool(self._conf.get(key).strip())

    def run_action(self, action: str, params: Mapping[str, str], x_state: str) -> bool:
        """The hook of an action; True if there is one. Raises HookFailed, which aborts the action."""
        name = action.replace("pre-connect", "pre_connect")
        return self.run(
            ACTION + action, {**params, "qvd.vm.session.state": x_state, "qvd.hook.on_action": name}
        )

    def run_provisioning(self, name: str, params: Mapping[str, str]) -> bool:
        """True if a hook did the step, so that the default is not wanted."""
        return self.run(PROVISIONING + name, {**params, "qvd.hook.on_provisioning": name})

    def run_state(self, key: str, x_state: str) -> bool:
        return self.run(key, {"qvd.hook.on_state": x_state})

    def run(self, key: str, params: Mapping[str, str]) -> bool:
        if not self.has(key):
            return False
        program = self._conf[key].strip()
        arguments = [part for pair in params.items() for part in pair]
        status = self._spawn([program, *arguments])
        if status != 0:
            raise HookFailed(f"{key}: {program} {_outcome(status)}")
        return True

    def _spawn(self, argv: list[str]) -> int:
        log = self._log.open()
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
                os._exit(127)
        os.close(log)
        return _wait(pid, time.monotonic() + self._limit_s)


_TIMED_OUT = 256


def _wait(pid: int, deadline: float) -> int:
    """The exit status; negative for a signal, `_TIMED_OUT` when the hook had to be killed."""
    pause = 0.002
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            for target in (-pid, pid):
                try:
                    os.kill(target, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            os.waitpid(pid, 0)
            return _TIMED_OUT
        time.sleep(pause)
        pause = min(pause * 2, 0.1)


def _outcome(status: int) -> str:
    if status == _TIMED_OUT:
        return "took longer than vma.hook.timeout and was ended"
    if status == 127:
        return "could not be run"
    return f"was ended by signal {-status}" if status < 0 else f"refused with status {status}"
