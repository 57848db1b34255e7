"""nxagent as a process: launch it as the user, follow what it prints, signal it and nobody else.

Each launch is a process session of its own (setsid), led by a child of the VMA that prepares everything as
root, becomes the user and turns into xinit. Whatever belongs to the launch is recognised by that session
id, which cannot be reused while any member lives; a pid that was merely read from a log is signalled only
if it is a member.

Output goes through a FIFO that launch and VMA both hold open for reading and writing: if the VMA crashes,
nobody gets EPIPE, and the next VMA reads on where the last one stopped (`adopt`).
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import time
from functools import partial
from typing import Callable, Mapping, NamedTuple, Optional

from appliance.vma import files, login, provision
from appliance.vma.ballast import Ballast
from appliance.vma.conf import Conf, parse
from appliance.vma.files import say
from appliance.vma.hooks import STATE, Hooks
from appliance.vma.launch import LaunchChild, LaunchError, write_files
from appliance.vma.loop import Loop, now
from appliance.vma.processes import group_of, members, send, session_of, start_time
from appliance.vma.wire import XState
from appliance.vma.xsession import (
    Ended,
    Entered,
    Event,
    HangUp,
    Kill,
    Launch,
    Phase,
    Prepare,
    Prepared,
    Session,
    Terminate,
    Word,
)

MAX_LINE = 4096
_WORD = re.compile(r"Session: (?:(\w+) session|Session (\w+)) at ")
_PID = re.compile(r"Info: Agent running with pid '(\d{1,10})'")


def word_in(line: str) -> Optional[str]:
    """The session word that nxagent prints in this line, lower-cased (protocol.md 4.5)."""
    found = _WORD.search(line)
    return (found.group(1) or found.group(2)).lower() if found else None


def pid_in(line: str) -> Optional[int]:
    found = _PID.search(line)
    return int(found.group(1)) if found else None


class Launched(NamedTuple):
    """A launch by its leader; `started` tells it from a later process with the same pid."""

    number: int
    leader: int
    started: str
    agent: int


class Desktop:
    """Performs the machine's actions and posts what comes of them. Belongs to the VMA's loop."""

    def __init__(self, conf: Conf, loop: Loop, hooks: Hooks, post: Callable[[Event], object]) -> None:
        self._conf, self._loop, self._hooks, self._post = conf, loop, hooks, post
        run = conf["path.run"]
        os.makedirs(run, mode=0o755, exist_ok=True)
        self._state_file = f"{run}/nxagent.state"
        self._pid_file = f"{run}/nxagent.pid"
        self._record_file = f"{run}/nxagent.launch"
        self._fifo = f"{run}/nxagent.out"
        self._log = files.BoundedLog(conf["path.log"] + "/qvd-nxagent.log", conf.number("vma.log.limit"))
        self._ballast = Ballast(loop, f"/tmp/.X11-unix/X{conf.number('internal.nxagent.display')}")
        self._launched: Optional[Launched] = None
        self._partial = b""
        self._reported: Optional[XState] = None
        self._output = self._open_output()
        loop.on_read(self._output, self._read_output)

    # -- what the machine orders

    def launch(self, action: Launch) -> None:
        reports, report = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        child = LaunchChild(self._conf, self._hooks, self._fifo, report)

        def read_report() -> None:
            data = os.read(reports, MAX_LINE)
            if not data:
                self._loop.forget(reports)
                os.close(reports)
            for word in data.decode("ascii", "replace").split():
                self._post(Word(now(), action.launch, word))

        self._loop.on_read(reports, read_report)
        pid = self._loop.fork(
            lambda: child.run(action.params), lambda _: self._leader_ended(action.launch), keep=report
        )
        os.close(report)
        self._launched = Launched(action.launch, pid, start_time(pid), 0)
        self._record()

    def prepare(self, action: Prepare) -> None:
        """Hooks and files for a resume, in a child because hooks take time."""
        params = provision.filled(self._conf, action.params)

        def work() -> None:
            try:
                self._hooks.run_action("pre-connect", params, XState.SUSPENDED.value)
                account = provision.ensure(self._conf, self._hooks, params, lambda: None)
                self._check_owner(account)
                write_files(self._conf, params, account.gid)
            except Exception as exc:
                say(f"the session is not resumed: {exc}")
                raise SystemExit(1) from exc

        def done(status: int) -> None:
            self._post(Prepared(now(), action.launch, action.attempt, status == 0))
            if status == 0:
                self._loop.fork(lambda: self._connect_hook(params), lambda _: None)

        self._loop.fork(work, done)

    def _check_owner(self, account: login.Account) -> None:
        """A session is resumed for the user who began it."""
        owner = os.stat(f"/proc/{self._launched.agent}").st_uid if self._launched else account.uid
        if owner != account.uid:
            raise LaunchError(f"it belongs to uid {owner}, not to '{account.name}'")

    def hang_up(self, action: HangUp) -> None:
        self._signal_agent(action.launch, signal.SIGHUP)

    def terminate(self, action: Terminate) -> None:
        if not self._signal_agent(action.launch, signal.SIGTERM):
            self._signal_all(action.launch, signal.SIGTERM)

    def kill(self, action: Kill) -> None:
        if self._launched is None or not members(self._launched.leader, self._launched.started):
            self._post(Ended(now(), action.launch))
            return
        say("the X session does not end by itself and is killed")
        self._signal_all(action.launch, signal.SIGKILL)

    def entered(self, action: Entered) -> None:
        state = action.phase.x_state
        if state is XState.STOPPED:
            self._forget()
        else:
            _write(self._state_file, f"{action.phase.word}:{int(time.time())}\n")
        if state is XState.CONNECTED:
            self._ballast.shift()
        if state is not self._reported:
            say(f"X session {state}")
            self._reported = state
        self._state_hooks(state)

    # -- a VMA before us

    def adopt(self) -> Session:
        """The session that an earlier VMA left behind, followed on; or none, with all its traces removed."""
        record = _load(self._record_file)
        word = files.read(self._state_file).partition(":")[0]
        if record is None or not self._alive(record):
            self._forget()
            self._state_hooks(XState.STOPPED)
            return Session()
        self._launched = record
        self._watch(record)
        phase = next((phase for phase in _ADOPTABLE if phase.word == word), Phase.STOPPING)
        say(f"an X session is still there from before: {phase.x_state}")
        if phase is Phase.STOPPING:  # its launch cannot be followed any more
            self._signal_all(record.number, signal.SIGTERM)
        return Session(phase, now(), record.number)

    def _alive(self, record: Launched) -> bool:
        """Whether the leader still runs; what remains of a launch without its leader is ended here."""
        if record.started and start_time(record.leader) == record.started:
            return True
        if not start_time(record.leader):
            self._end_rest(record)
        return False

    def _watch(self, record: Launched) -> None:
        """Learn of the end of a leader that is not our child."""
        try:
            pidfd = os.pidfd_open(record.leader)
        except OSError:  # gone by now, or a kernel without pidfds
            if self._alive(record):
                self._loop.after(1.0, lambda: self._watch(record))
            else:
                self._leader_ended(record.number)
            return

        def ended() -> None:
            self._loop.forget(pidfd)
            os.close(pidfd)
            self._leader_ended(record.number)

        self._loop.on_read(pidfd, ended)

    # -- output

    def _open_output(self) -> int:
        with contextlib.suppress(FileExistsError):
            os.mkfifo(self._fifo, 0o600)
        return os.open(self._fifo, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)

    def _read_output(self) -> None:
        try:
            data = os.read(self._output, 64 * 1024)
        except BlockingIOError:
            return
        self._log.write(data)
        *lines, self._partial = (self._partial + data).split(b"\n")
        if len(self._partial) > MAX_LINE:
            self._partial = self._partial[-MAX_LINE:]
        for line in lines:
            self._heard(line.decode("utf-8", "replace"))

    def _heard(self, line: str) -> None:
        launched = self._launched
        if launched is None:
            return
        pid = pid_in(line)
        if pid is not None and session_of(pid) == launched.leader:
            self._launched = launched._replace(agent=pid)
            self._record()
            _write(self._pid_file, f"{pid}\n")
        word = word_in(line)
        if word is not None:
            self._post(Word(now(), launched.number, word))

    def _leader_ended(self, number: int) -> None:
        for _ in range(
            4
        ):  # all that the FIFO can hold, and no more: a program left behind may go on printing
            self._read_output()
        launched = self._launched
        if launched is not None and launched.number == number:
            self._end_rest(launched)
            self._post(Ended(now(), number))

    def _end_rest(self, launched: Launched) -> None:
        """End what an ended leader left: programs are asked, but an nxagent would keep the display."""
        for pid in members(launched.leader, ""):
            ours = group_of(pid) == launched.agent
            send(pid, launched.leader, signal.SIGKILL if ours else signal.SIGTERM)

    # -- traces

    def _record(self) -> None:
        if self._launched is not None:
            _write(self._record_file, json.dumps(self._launched._asdict()) + "\n")

    def _forget(self) -> None:
        self._launched = None
        self._partial = b""
        self._ballast.drop()
        for path in (self._state_file, self._pid_file, self._record_file):
            files.remove(path)

    # -- hooks

    def _state_hooks(self, state: XState) -> None:
        keys = {
            XState.CONNECTED: (STATE + "connected", "internal.vma.on_printing.connected"),
            XState.SUSPENDED: (STATE + "suspended", "internal.vma.on_printing.suspended"),
            XState.STOPPED: (STATE + "disconnected", "internal.vma.on_printing.stopped"),
        }.get(state, ())
        for key in filter(self._hooks.has, keys):
            if STATE in key or self._conf.flag("vma.printing.enable"):
                self._loop.fork(partial(self._state_hook, key, state), lambda _: None)

    def _state_hook(self, key: str, state: XState) -> None:
        try:
            if key.startswith(STATE):
                self._hooks.run_state(key, state.value)
            else:
                params = parse(files.read(self._conf["path.run"] + "/printing.conf"))
                self._hooks.run(key, {**params, "qvd.hook.on_printing": key.rpartition(".")[2]})
        except Exception as exc:
            say(str(exc))

    def _connect_hook(self, params: Mapping[str, str]) -> None:
        try:
            self._hooks.run_action("connect", params, XState.STARTING.value)
        except Exception as exc:
            say(str(exc))

    # -- signals

    def _signal_agent(self, number: int, signum: int) -> bool:
        launched = self._launched
        if launched is None or launched.number != number or not launched.agent:
            return False
        return send(launched.agent, launched.leader, signum)

    def _signal_all(self, number: int, signum: int) -> None:
        launched = self._launched
        if launched is not None and launched.number == number:
            for pid in members(launched.leader, launched.started):
                send(pid, launched.leader, signum)


_ADOPTABLE = (Phase.LISTENING, Phase.RESUMING, Phase.CONNECTED, Phase.SUSPENDING, Phase.SUSPENDED)


def _write(path: str, text: str) -> None:
    """Note down for others and for the next VMA. A full disk costs the note, never the session."""
    try:
        files.replace(path, text)
    except OSError as exc:
        say(f"{path}: {exc.strerror}")


def _load(path: str) -> Optional[Launched]:
    try:
        fields = json.loads(files.read(path))
        number, leader, agent = (int(fields[name]) for name in ("number", "leader", "agent"))
        return Launched(number, leader, str(fields["started"]), agent)
    except (ValueError, KeyError, TypeError):
        return None
