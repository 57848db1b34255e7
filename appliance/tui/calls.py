"""How the TUI acts: it calls the verbs of `qa`, in this process and in its own event loop.

So every action can be told as the command that does the same (its twin), is refused for the same reasons,
and is one more line in the same audit log. Calls may run side by side: the store lets one write at a time.
Nothing here prints; what a verb says is in the `Outcome`. The verbs, and the database with them, are
imported by the first call, in a thread, so that the first screen need not wait for them.
"""

from __future__ import annotations

import asyncio
import io
import json
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from appliance.config import is_secret
from appliance.errors import AdminError, ApplianceError, HostError, TimeExpressionError
from appliance.harmless import printable
from appliance.threads import in_thread

if TYPE_CHECKING:
    from appliance.qa.calls import Call
    from appliance.qa.verbs import Verb

FRONT = "tui"
"""How the audit log names us."""

LEAST = 0.002
"""A share of work that moves no bar is not told."""

NO_SECRETS = ("password-file", "passwords-out")
"""Arguments that sound secret, and only say where secrets are."""

Told = Callable[[str, float], None]
"""Told a step and its share, from 0 to 1, in the event loop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of one call."""

    words: tuple[str, ...]
    """The call, without options of ours."""
    status: int
    """0 if it was done; else as `qa` would exit."""
    out: str = ""
    """What the verb found."""
    err: str = ""
    """What it told people beside that; of a failure, what is wrong."""
    hint: str | None = None
    """The remedy of a failure, if there is one."""
    pointer: str | None = None
    """Of a time that cannot be read: the expression, and a caret below the place."""

    @property
    def ok(self) -> bool:
        """Whether it was done."""
        return self.status == 0

    @property
    def json(self) -> Any:
        """What a call with `-o json` found."""
        return json.loads(self.out)

    @property
    def line(self) -> str:
        """One line that says how it ended: the last of its results, or the first of what went wrong."""
        return next(iter(self._said), "Done." if self.ok else "It failed.")

    @property
    def notes(self) -> tuple[str, ...]:
        """The lines that go with `line`: warnings, and what else is to be known."""
        return self._said[1:]

    @property
    def _said(self) -> tuple[str, ...]:
        out, err = _lines(self.out), _lines(self.err)
        return (*out[-1:], *err) if self.ok else (*err, *out)


def _lines(text: str) -> list[str]:
    return [printable(line).strip() for line in text.splitlines() if line.strip()]


class Calls(Protocol):
    """Whoever does calls: a `Caller`, or somebody who keeps a log of what it does."""

    async def __call__(
        self, words: Sequence[str], *, stdin: str = "", progress: Told | None = None
    ) -> Outcome: ...


class Caller:
    """Calls verbs on one installation; `config_file` as `qa --config` takes it, or what qa would find."""

    def __init__(self, config_file: Path | None) -> None:
        self._options = ["--config", str(config_file)] if config_file is not None else []

    async def __call__(
        self, words: Sequence[str], *, stdin: str = "", progress: Told | None = None
    ) -> Outcome:
        """Do what `qa WORDS…` does, without its questions: whoever calls has asked.

        `stdin` is what the verb reads as its standard input, which is how passwords go. An error of the
        request, the host, the database or the program is an outcome. A cancellation
        passes, and undoes what is half done.
        """
        out, err, told = io.StringIO(), io.StringIO(), tuple(words)
        try:
            call = await in_thread(_prepared, [*self._options, "--yes", *words])
            status = await _run(call, out, err, io.StringIO(stdin), progress)
        except ApplianceError as exc:
            return _failure(told, out.getvalue(), exc)
        except OSError as exc:
            where = f"{exc.filename}: " if exc.filename else ""
            return _failure(told, out.getvalue(), HostError(f"{where}{exc.strerror or exc}"))
        except Exception as exc:
            first = next(iter(str(exc).splitlines()), "")
            fault = f"this is a fault of the program: {type(exc).__name__}: {first}"
            return _failure(told, out.getvalue(), AdminError(fault, hint="please report it"))
        return Outcome(words=told, status=status, out=out.getvalue(), err=err.getvalue())

    async def verb(self, noun: str, name: str) -> Verb:
        """A verb, for a form that asks for its arguments.

        :raises UsageError: there is none of this name
        """
        return await in_thread(_verb, noun, name)


def twin(words: Sequence[str]) -> str:
    """The command that does the same at a shell; no value of a key that sounds secret is in it."""
    return shlex.join(["qa", *map(_shown, words)])


def _shown(word: str) -> str:
    name, equals, _ = word.partition("=")
    return f"{name}=…" if equals and is_secret(name) and name not in NO_SECRETS else word


def _prepared(argv: Sequence[str]) -> Call:
    from appliance.qa.calls import prepare

    return prepare(argv)


def _verb(noun: str, name: str) -> Verb:
    from appliance.qa.calls import verb_of

    return verb_of(noun, name)


async def _run(call: Call, out: io.StringIO, err: io.StringIO, stdin: io.StringIO, told: Told | None) -> int:
    from appliance.qa.context import Context, Streams

    steps = None if told is None else _in_loop(told)
    context = Context(call.invocation, streams=Streams(out, err, stdin), front=FRONT, told=steps)
    call.is_meant(context)  # reads the filter; --yes has answered
    return await call.run(context)


def _in_loop(told: Told) -> Told:
    """Tells in this event loop what is told in any thread, and no more often than a bar moves."""
    loop = asyncio.get_running_loop()
    last: tuple[str, float] = ("", -1.0)

    def pass_on(step: str, share: float) -> None:
        nonlocal last
        if step == last[0] and share < 1 and abs(share - last[1]) < LEAST:
            return
        last = (step, share)
        loop.call_soon_threadsafe(told, step, share)

    return pass_on


def _failure(words: tuple[str, ...], out: str, exc: ApplianceError) -> Outcome:
    from appliance.qa.calls import status_of

    unread = exc if isinstance(exc, TimeExpressionError) else exc.__cause__
    return Outcome(
        words=words,
        status=status_of(exc),
        out=out,
        err=exc.message,
        hint=exc.hint,
        pointer=unread.pointer() if isinstance(unread, TimeExpressionError) else None,
    )
