"""`qa`, killed by SIGKILL at its Nth step: `python -m tests.support.faulty_qa N RECORD WORDS…`.

A step is whatever changes something outside the process: a commit, or a rename, removal, lock, mode,
mark, new file or new program, as the interpreter's audit hooks tell of them. So no step has a name in the
product, and none can be added without being found here. What each step was goes to the record.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine

from appliance.qa.main import main

AUDITED = {
    "os.rename",
    "os.remove",
    "os.mkdir",
    "os.rmdir",
    "os.chmod",
    "os.setxattr",
    "fcntl.flock",
    "subprocess.Popen",
}


def steps(fatal: int, record: int) -> Callable[[str, object], None]:
    """Counts the steps, writes down what each is, and ends the process at the fatal one."""
    count = 0

    def step(what: str, detail: object) -> None:
        nonlocal count
        count += 1
        os.write(record, f"{count} {what} {detail!r:.100}\n".encode())
        if count == fatal:
            os.kill(os.getpid(), signal.SIGKILL)

    return step


def watch(step: Callable[[str, object], None]) -> None:
    """Have every step of this process counted from now on."""

    def audited(name: str, arguments: tuple[Any, ...]) -> None:
        if name in AUDITED or (name == "open" and arguments[2] & os.O_CREAT):
            step(name, arguments[0])

    def committed(connection: Connection) -> None:
        step("commit", "")

    sys.addaudithook(audited)
    event.listen(Engine, "commit", committed)


if __name__ == "__main__":
    fatal, record, *words = sys.argv[1:]
    watch(steps(int(fatal), os.open(record, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)))
    sys.exit(main(words))
