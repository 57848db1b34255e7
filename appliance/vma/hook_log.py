"""What hooks print, kept in `qvd-hooks.log` however much it is; and the last lines of our logs, for the host.

Hooks write into a FIFO, of which the VMA passes a bounded log's worth on. A hook opens it for reading and
writing: it gets no EPIPE, neither when the VMA is killed nor when the hook has left something running that
goes on printing; its very last words are lost if no VMA is there to hear them. One that prints without end
waits its turn instead of filling the disk or the processor.
"""

from __future__ import annotations

import contextlib
import os
from typing import Dict, List

from appliance.vma import files
from appliance.vma.conf import Conf
from appliance.vma.files import BoundedLog
from appliance.vma.loop import Loop

AT_ONCE = 64 * 1024  # what a FIFO holds
PAUSE_S = 0.05
TAIL_BYTES = 10 * 1024  # of each log: in the worst encoding the reply still fits a socket's buffer


def log_path(conf: Conf) -> str:
    return conf["path.log"] + "/qvd-hooks.log"


def fifo_path(conf: Conf) -> str:
    return conf["path.run"] + "/hooks.out"


class HookLog:
    """Passes what hooks print to their log. Belongs to the VMA's loop."""

    def __init__(self, conf: Conf, loop: Loop) -> None:
        self._loop = loop
        self._log = BoundedLog(log_path(conf), conf.number("vma.log.limit"))
        path = fifo_path(conf)
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            os.mkfifo(path, 0o600)
        self._fifo = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
        self._listen()

    def _listen(self) -> None:
        self._loop.on_read(self._fifo, self._read)

    def _read(self) -> None:
        try:
            data = os.read(self._fifo, AT_ONCE)
        except BlockingIOError:
            return
        self._log.write(data)
        if len(data) == AT_ONCE:
            self._loop.forget(self._fifo)
            self._loop.after(PAUSE_S, self._listen)


def tails(conf: Conf, lines: int) -> Dict[str, List[str]]:
    """The last lines of the hooks' log and of the VMA's own, which is there if `log.filename` names it."""
    own = conf["log.filename"] if conf.get("log.filename") else ""
    return {"hooks": tail(log_path(conf), lines), "vma": tail(own, lines) if own else []}


def tail(path: str, lines: int) -> List[str]:
    """The last lines of a log and the one before it, `.1`: printable characters and not too many."""
    data = b""
    for name in (path, path + ".1"):
        if len(data) < TAIL_BYTES:
            data = files.read_end(name, TAIL_BYTES - len(data)) + data
    text = data.decode("utf-8", "replace").replace("\ufffd", "?")
    found = ["".join(letter if letter.isprintable() else "?" for letter in line) for line in text.split("\n")]
    return [line for line in found if line][-lines:]
