"""Messages to the desktop's user: a hook shows each, detached, and is not waited for to be read."""

from __future__ import annotations

import os
from typing import Mapping

from appliance.vma import wire
from appliance.vma.conf import Conf
from appliance.vma.files import say
from appliance.vma.hooks import ACTION, Hooks
from appliance.vma.loop import Loop
from appliance.vma.rpc import Answer, Once
from appliance.vma.wire import XState

MESSAGE = ACTION + "message"
READERS = (XState.CONNECTED, XState.SUSPENDING, XState.SUSPENDED)  # who left will read it on return
STANDS_S = 1.0  # a hook that has not failed by then shows the message
MAX_SHOWN = 20  # hooks at once: each is a process


class Messages:
    """Shows messages with the guest's hook `vma.on_action.message`. Belongs to the VMA's loop."""

    def __init__(self, conf: Conf, loop: Loop, hooks: Hooks) -> None:
        self._loop, self._hooks = loop, hooks
        self._limit_s = conf.seconds("vma.message.timeout")
        self._pid_file = conf["path.run"] + "/nxagent.pid"
        self._shown = 0

    def show(self, params: Mapping[str, str], x_state: XState, answer: Answer) -> None:
        """Answer TOLD, NOBODY_THERE without a session, null without a hook; a failure if the hook fails."""
        text = wire.plain(params.get(wire.MESSAGE_TEXT, ""), wire.MAX_TEXT)
        title = wire.plain(params.get(wire.MESSAGE_TITLE, ""), wire.MAX_TITLE)
        if not text:
            answer(wire.failure("the message has no text"))
        elif not self._hooks.has(MESSAGE):
            answer(wire.success(None))
        elif x_state not in READERS:
            answer(wire.success(wire.NOBODY_THERE))
        elif self._shown >= MAX_SHOWN:
            answer(wire.failure(f"{self._shown} messages wait to be read"))
        else:
            self._show({"vm.message.text": text, "vm.message.title": title}, x_state, answer)

    def _show(self, told: Mapping[str, str], x_state: XState, answer: Answer) -> None:
        def work() -> None:
            more = {wire.DESKTOP_PIDFILE: self._pid_file}
            try:
                self._hooks.run_action("message", told, x_state.value, more, self._limit_s)
            except Exception as exc:
                say(str(exc))
                raise SystemExit(1) from exc

        once = Once(answer)
        told_by_now = self._loop.after(STANDS_S, lambda: once(wire.success(wire.TOLD)))

        def ended(status: int) -> None:
            self._shown -= 1
            told_by_now.cancel()
            read = os.waitstatus_to_exitcode(status) == 0
            failed = wire.failure("the hook of action message failed")
            once(wire.success(wire.TOLD) if read else failed)

        self._shown += 1
        self._loop.fork(work, ended)
