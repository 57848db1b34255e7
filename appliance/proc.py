"""The only place where a process is spawned.

A command runs without a shell, in a session of its own, with a time limit and with both outputs
captured; what fails is logged as a line that can be pasted into a terminal. Secrets go through
`stdin`, never through `argv`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shlex
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from appliance.errors import MissingToolError, ToolError

logger = logging.getLogger(__name__)

DEFAULT_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Completed:
    """How a command ended."""

    status: int
    stdout: bytes
    stderr: bytes


async def run(
    argv: Sequence[str | Path],
    *,
    stdin: bytes | int | None = None,
    timeout_s: float = DEFAULT_TIMEOUT_S,
    check: bool = True,
    env: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
    hint: str | None = None,
) -> Completed:
    """Run `argv` to its end; `stdin` is what it reads, or a descriptor that it inherits as such.

    Cancelling, or passing `timeout_s`, kills the command and everything in its session.

    :raises ToolError: it failed (with `check`) or ran out of time
    :raises MissingToolError: there is no such program
    """
    words = [str(word) for word in argv]
    text = stdin if isinstance(stdin, bytes) else None
    source = asyncio.subprocess.DEVNULL if stdin is None else stdin
    logger.debug("run %s", shlex.join(words))
    try:
        process = await asyncio.create_subprocess_exec(
            *words,
            stdin=asyncio.subprocess.PIPE if isinstance(source, bytes) else source,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=None if env is None else dict(env),
            pass_fds=pass_fds,
            start_new_session=True,
        )
    except FileNotFoundError as exc:
        raise MissingToolError(f"the program {words[0]} is missing", hint="run scripts/setup") from exc
    try:
        async with asyncio.timeout(timeout_s):
            stdout, stderr = await process.communicate(text)
    except TimeoutError as exc:
        raise ToolError(words, -signal.SIGKILL, f"no end after {timeout_s:g} s") from exc
    finally:
        if process.returncode is None:
            kill_session(process.pid)
            await process.wait()
    status = process.returncode
    assert status is not None
    if check and status != 0:
        logger.error("failed with %d: %s: %s", status, shlex.join(words), _tail(stderr))
        raise ToolError(words, status, stderr.decode(errors="replace"), hint=hint)
    return Completed(status, stdout, stderr)


async def spawn(
    argv: Sequence[str | Path],
    *,
    output: Path,
    env: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
) -> asyncio.subprocess.Process:
    """Start a long-lived child detached in a session of its own, both outputs appended to the file `output`.

    It survives us unless its keeper ends it.

    :raises MissingToolError: there is no such program
    """
    words = [str(word) for word in argv]
    logger.debug("spawn %s", shlex.join(words))
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        return await asyncio.create_subprocess_exec(
            *words,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=descriptor,
            stderr=descriptor,
            env=None if env is None else dict(env),
            pass_fds=pass_fds,
            start_new_session=True,
        )
    except FileNotFoundError as exc:
        raise MissingToolError(f"the program {words[0]} is missing", hint="run scripts/setup") from exc
    finally:
        os.close(descriptor)


def kill_session(pid: int) -> None:
    """Kill a child that leads its own session, with all that it started there."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _tail(stderr: bytes, lines: int = 3) -> str:
    return " / ".join(stderr.decode(errors="replace").strip().splitlines()[-lines:])
