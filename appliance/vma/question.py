"""The question whether the desktop may be restarted now: a hook asks it, its exit status is the answer.

Theory of operation. `expire` starts the hook `vma.on_action.expire` and answers at once; people take their
time, up to `vma.expire.timeout` seconds. There is never more than one such hook: an `expire` that comes while
it still asks only changes what it is to show, which stands in `expire.state`. Exit status 0 means "restart me
now"; anything else, a signal and the end of the time included, means "later". `expire_answer` waits for that
and goes on telling it until the next hook is started.

The hook is looked after by a child that writes the answer down itself, so a VMA that was killed meanwhile
finds it when it comes back. What an earlier life of the guest has left counts for nothing.
"""

from __future__ import annotations

import json
import os
import time
from typing import Callable, Dict, List, Mapping, NamedTuple, Optional

from appliance.vma import files, wire
from appliance.vma.conf import Conf
from appliance.vma.files import say
from appliance.vma.hooks import ACTION, HookFailed, Hooks
from appliance.vma.loop import Loop
from appliance.vma.processes import start_time
from appliance.vma.wire import Answer

EXPIRE = ACTION + "expire"
BOOT_ID = "/proc/sys/kernel/random/boot_id"
LOOK_S = 1.0  # at a hook that is not our child, where the kernel has no handles for processes


class Asked(NamedTuple):
    """The latest ask, and who asks: a child by its pid and start, in one life of the guest."""

    ask: Optional[int]
    answer: Answer
    leader: int
    started: str
    boot: str


NOBODY = Asked(None, Answer.NONE, 0, "", "")


class Question:
    """Asks with the guest's hook, one at a time, and tells whoever waits. Belongs to the VMA's loop."""

    def __init__(self, conf: Conf, loop: Loop, hooks: Hooks) -> None:
        self._loop, self._hooks = loop, hooks
        self._limit_s = conf.seconds("vma.expire.timeout")
        run = conf["path.run"]
        os.makedirs(run, mode=0o755, exist_ok=True)
        self._state_file, self._answer_file = f"{run}/expire.state", f"{run}/expire.answer"
        self._pid_file = f"{run}/nxagent.pid"
        self._waiting: List[Callable[[], None]] = []
        self._asked = self._adopt()

    @property
    def asking(self) -> bool:
        return self._asked.answer is Answer.ASKING

    def ask(self, params: Mapping[str, str], x_state: str) -> Optional[Answer]:
        """Ask, or change what is being asked: ASKING. None where no hook asks, or nothing is to be asked."""
        if self.asking:
            self._note(self._asked._replace(ask=_number(params)), params)
            return Answer.ASKING
        if wire.EXPIRATION_WITHDRAWN in params or not self._hooks.has(EXPIRE):
            return None
        files.remove(self._answer_file)
        self._note(Asked(_number(params), Answer.ASKING, 0, "", _boot()), params)
        leader = self._loop.fork(lambda: self._run(params, x_state), lambda _: self._settle())
        self._note(self._asked._replace(leader=leader, started=start_time(leader)), params)
        say("the user is asked whether the desktop may be restarted")
        return Answer.ASKING

    def tell(self, wait_s: float, told: Callable[[Dict[str, object]], None]) -> None:
        """Tell the answer: once it is there, or as it stands when the wait is over."""
        if not self.asking:
            told(self._words())
            return

        def tell_now() -> None:
            timer.cancel()
            self._waiting.remove(tell_now)
            told(self._words())

        timer = self._loop.after(wait_s, tell_now)
        self._waiting.append(tell_now)

    def _words(self) -> Dict[str, object]:
        return {"ask": self._asked.ask, "answer": self._asked.answer.value}

    def _run(self, params: Mapping[str, str], x_state: str) -> None:
        """In the child: the hook, and its answer written down."""
        dates = {name: params[name] for name in wire.EXPIRATION_DATES if name in params}
        more = {name: value for name, value in params.items() if name not in dates}
        more.update({wire.EXPIRATION_FILE: self._state_file, wire.DESKTOP_PIDFILE: self._pid_file})
        answer = Answer.LATER
        try:
            self._hooks.run_action("expire", dates, x_state, more, self._limit_s)
            answer = Answer.RESTART
        except HookFailed as exc:
            if not exc.refused:
                say(str(exc))
        finally:
            files.replace(self._answer_file, answer.value)

    def _settle(self) -> None:
        """The hook and its child are gone: what they have left is the answer."""
        restart = files.read(self._answer_file) == Answer.RESTART.value
        answer = Answer.RESTART if restart else Answer.LATER
        say(f"the desktop is to be restarted: {'now' if restart else 'later'}")
        self._note(self._asked._replace(answer=answer), {})
        for tell_now in list(self._waiting):
            tell_now()

    def _note(self, asked: Asked, params: Mapping[str, str]) -> None:
        """Keep the state, and write it down for the hook and for the next VMA."""
        self._asked = asked
        try:
            told = {**asked._asdict(), "at": time.time(), "params": params}
            files.replace(self._state_file, json.dumps(told) + "\n")
        except OSError as exc:
            say(f"{self._state_file}: {exc.strerror}")

    # -- a VMA before us

    def _adopt(self) -> Asked:
        try:
            found = json.loads(files.read(self._state_file))
            ask, leader = found["ask"], int(found["leader"])
            asked = Asked(ask, Answer(found["answer"]), leader, str(found["started"]), str(found["boot"]))
        except (ValueError, KeyError, TypeError):
            return NOBODY
        if asked.boot != _boot():
            return NOBODY
        if asked.answer is Answer.ASKING:
            self._loop.after(0, lambda: self._watch(asked))
        return asked

    def _watch(self, asked: Asked) -> None:
        """Learn of the end of a hook that an earlier VMA has started."""
        if not asked.started or start_time(asked.leader) != asked.started:
            self._settle()
            return
        try:
            pidfd = os.pidfd_open(asked.leader)
        except OSError:  # gone by now, or a kernel without pidfds
            self._loop.after(LOOK_S, lambda: self._watch(asked))
            return

        def ended() -> None:
            self._loop.forget(pidfd)
            os.close(pidfd)
            self._settle()

        self._loop.on_read(pidfd, ended)


def _boot() -> str:
    """This life of the guest: of its kernel and, in a container, of its init."""
    return f"{files.read(BOOT_ID).strip()} {start_time(1)}"


def _number(params: Mapping[str, str]) -> Optional[int]:
    text = params.get(wire.EXPIRATION_ASK, "")
    return int(text) if text.isdecimal() and len(text) < 16 else None
