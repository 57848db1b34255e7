"""`qa`: administration from the command line, on the database itself, with the daemon up or down.

Words and help cost no import of a noun; a noun's module is loaded when the noun is used.
"""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import importlib
import io
import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import replace

from appliance.errors import ApplianceError, DaemonDownError, HostError, TimeExpressionError, UsageError
from appliance.qa.context import Context
from appliance.qa.grammar import OPTIONS_HELP, Invocation, parse
from appliance.qa.output import printable
from appliance.qa.verbs import Given, SyntaxErrors, Verb

NOUNS = {
    "admin": "the installation itself",
    "config": "settings",
    "host": "nodes",
    "user": "owners of desktops",
    "osf": "operating system flavours",
    "di": "disk images and their tags",
    "vm": "desktops",
    "home": "homes and their snapshots",
    "kept": "homes and roots that wait for their end, and snapshots of homes",
    "alarm": "what somebody must look after",
    "operation": "long work under way",
    "event": "what was changed, and by whom",
    "hook": "what the hooks of the host are told",
    "completion": "what a shell completes",
}

COMMANDS = {"when": "tells which time an expression means"}
"""Words that need no verb: what follows them is theirs."""
SHORT = {"events": ("event", "list")}
"""Nouns and verbs in one word."""

CHOOSE = "choose some with -f FILTER, or all with --yes"

DONE, FAILED, USAGE, DAEMON_DOWN, INTERRUPTED = 0, 1, 2, 3, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; returns the exit status."""
    words = sys.argv[1:] if argv is None else list(argv)
    quiet = False
    _make_writable()
    logging.getLogger().addHandler(logging.NullHandler())  # what went wrong is told once, below
    try:
        invocation = parse(words)
        quiet = invocation.quiet
        status = _dispatch(invocation)
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        _stop_writing()
        return FAILED
    except ApplianceError as exc:
        if not quiet:
            _tell(exc)
        return _status(exc)
    except OSError as exc:
        _stop_writing()
        where = f"{exc.filename}: " if exc.filename else ""
        _tell(HostError(f"{where}{exc.strerror or exc}"))
        return FAILED


def _dispatch(invocation: Invocation) -> int:
    if invocation.words and (meant := SHORT.get(invocation.words[0])):
        invocation = replace(invocation, words=(*meant, *invocation.words[1:]))
    noun, name, *_ = (*invocation.words, "", "")
    if invocation.undo:
        name = f"{name} --undo"
    if not noun:
        print(_overview(), end="", file=sys.stdout if invocation.help else sys.stderr)
        return DONE if invocation.help else USAGE
    if noun in COMMANDS:
        return _command(noun, invocation)
    verbs = _verbs(noun)
    if invocation.help and not name:
        print(_list(noun, verbs), end="")
        return DONE
    verb = _verb(noun, verbs, name)
    if invocation.help:
        print(verb.help(noun), end="")
        return DONE
    if invocation.filter is not None and not verb.filters:
        raise UsageError(f"qa {noun} {name} takes no filter")
    if invocation.dry_run and not verb.rehearsable:
        raise UsageError(
            f"qa {noun} {name} takes no --dry-run",
            hint=f"qa {noun} list -f FILTER shows whom a filter chooses" if verb.filters else None,
        )
    if invocation.more and not verb.more:
        raise UsageError(f"qa {noun} {name} takes nothing after --")
    try:
        given = verb.given(invocation.words[2:])
    except SyntaxErrors as exc:
        exc.add_note(f"\nUsage: {verb.help(noun)}")
        raise
    context = Context(invocation)
    _ = context.filter
    if verb.confirm and not context.confirmed(verb.confirm, remedy=CHOOSE):
        context.note("Nothing was done.")
        return DONE
    return asyncio.run(_run(verb, context, given)) or DONE


def _command(name: str, invocation: Invocation) -> int:
    module = importlib.import_module(f"appliance.qa.{name}")
    if invocation.help:
        print(module.HELP, end="")
        return DONE
    if invocation.filter is not None:
        raise UsageError(f"qa {name} takes no filter")
    module.run(Context(invocation))
    return DONE


async def _run(verb: Verb, context: Context, given: Given) -> int | None:
    return await verb.run(context, given)


def _verbs(noun: str) -> tuple[Verb, ...]:
    if noun not in NOUNS:
        known = [*NOUNS, *COMMANDS]
        near = difflib.get_close_matches(noun, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"one of {', '.join(known)}"
        raise UsageError(f"there is no noun {noun!r}", hint=hint)
    found: tuple[Verb, ...] = importlib.import_module(f"appliance.qa.{noun}").VERBS
    return found


def _verb(noun: str, verbs: Sequence[Verb], name: str) -> Verb:
    found = {verb.name: verb for verb in verbs}
    if name in found:
        return found[name]
    near = difflib.get_close_matches(name, found, n=1)
    problem = UsageError(
        f"{noun} has no verb {name!r}" if name else f"{noun} needs a verb",
        hint=f"did you mean {near[0]}?" if near else None,
    )
    problem.add_note(_list(noun, verbs))
    raise problem


def _overview() -> str:
    width = max(map(len, NOUNS))
    lines = ["qa NOUN VERB [options] [key=value …] [-- more]", "qa help [NOUN [VERB]]", "", "Nouns:"]
    lines += [f"  {noun:<{width}}  {doc}" for noun, doc in NOUNS.items()]
    lines += ["", "Commands:", *(f"  {name:<{width}}  {doc}" for name, doc in COMMANDS.items())]
    return "\n".join([*lines, "", OPTIONS_HELP])


def _list(noun: str, verbs: Sequence[Verb]) -> str:
    lines = [
        f"Verbs of {noun} ({NOUNS[noun]}):",
        *(f"  {verb.usage(noun)}\n      {verb.doc}" for verb in verbs),
    ]
    return "\n".join(lines) + "\n"


def _tell(exc: ApplianceError) -> None:
    """What is wrong, on a line each, and the help that belongs to it."""
    if isinstance(exc, SyntaxErrors):
        for error in exc.errors:
            print(f"Syntax error: {printable(error)}", file=sys.stderr)
        print(f"{len(exc.errors)} error(s) encountered", file=sys.stderr)
    else:
        print(f"Error: {printable(str(exc))}", file=sys.stderr)
    unread = exc if isinstance(exc, TimeExpressionError) else exc.__cause__
    if isinstance(unread, TimeExpressionError):
        print(unread.pointer(), file=sys.stderr)
    if isinstance(exc, UsageError):
        for note in getattr(exc, "__notes__", ()):
            print(note, end="", file=sys.stderr)


def _make_writable() -> None:
    """Let no word fail for an encoding that lacks its letters."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _stop_writing() -> None:
    """What is written on stdout from now on is lost: its reader has left, or its disk is full.

    Without this, the interpreter would complain once more at its end.
    """
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _status(exc: ApplianceError) -> int:
    if isinstance(exc, UsageError):
        return USAGE
    if isinstance(exc, DaemonDownError):
        return DAEMON_DOWN
    return FAILED
