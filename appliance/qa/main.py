"""`qa`: administration from the command line, on the database itself, with the daemon up or down.

Words and help cost no import of a noun; a noun's module is loaded when the noun is used.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import sys
from collections.abc import Sequence

from appliance.errors import ApplianceError, DaemonDownError, UsageError
from appliance.qa.context import Context
from appliance.qa.grammar import OPTIONS_HELP, Invocation, parse
from appliance.qa.verbs import Given, SyntaxErrors, Verb

NOUNS = {
    "admin": "the installation itself",
    "config": "settings",
    "host": "nodes",
    "user": "owners of desktops",
    "osf": "operating system flavours",
    "di": "disk images and their tags",
    "vm": "desktops",
}

CHOOSE = "choose some with -f FILTER, or all with --yes"

DONE, FAILED, USAGE, DAEMON_DOWN, INTERRUPTED = 0, 1, 2, 3, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; returns the exit status."""
    words = sys.argv[1:] if argv is None else list(argv)
    quiet = False
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
        # The reader has left; nothing more can be told, not even by the interpreter at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except SyntaxErrors as exc:
        if not quiet:
            _print_errors(exc)
        return USAGE
    except ApplianceError as exc:
        if not quiet:
            print(f"Error: {exc}", file=sys.stderr)
        return _status(exc)


def _dispatch(invocation: Invocation) -> int:
    noun, name, *_ = (*invocation.words, "", "")
    if not noun:
        print(_overview(), end="", file=sys.stdout if invocation.help else sys.stderr)
        return DONE if invocation.help else USAGE
    verbs = _verbs(noun)
    verb = next((verb for verb in verbs if verb.name == name), None)
    if verb is None:
        if not name and invocation.help:
            print(_list(noun, verbs), end="")
            return DONE
        problem = f"{noun} has no verb {name!r}" if name else f"{noun} needs a verb"
        print(f"{problem}\n{_list(noun, verbs)}", end="", file=sys.stderr)
        return USAGE
    if invocation.help:
        print(verb.help(noun), end="")
        return DONE
    if invocation.filter is not None and not verb.filters:
        raise UsageError(f"qa {noun} {name} takes no filter")
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


async def _run(verb: Verb, context: Context, given: Given) -> int | None:
    return await verb.run(context, given)


def _verbs(noun: str) -> tuple[Verb, ...]:
    if noun not in NOUNS:
        raise UsageError(f"there is no noun {noun!r}", hint=f"one of {', '.join(NOUNS)}")
    found: tuple[Verb, ...] = importlib.import_module(f"appliance.qa.{noun}").VERBS
    return found


def _overview() -> str:
    lines = ["qa NOUN VERB [options] [key=value …] [-- more]", "", "Nouns:"]
    lines += [f"  {noun:<7} {doc}" for noun, doc in NOUNS.items()]
    return "\n".join([*lines, "", OPTIONS_HELP])


def _list(noun: str, verbs: Sequence[Verb]) -> str:
    lines = [
        f"Verbs of {noun} ({NOUNS[noun]}):",
        *(f"  {verb.usage(noun)}\n      {verb.doc}" for verb in verbs),
    ]
    return "\n".join(lines) + "\n"


def _print_errors(exc: SyntaxErrors) -> None:
    for error in exc.errors:
        print(f"Syntax error: {error}", file=sys.stderr)
    print(f"{len(exc.errors)} error(s) encountered", file=sys.stderr)
    for note in getattr(exc, "__notes__", ()):
        print(note, end="", file=sys.stderr)


def _status(exc: ApplianceError) -> int:
    if isinstance(exc, UsageError):
        return USAGE
    if isinstance(exc, DaemonDownError):
        return DAEMON_DOWN
    return FAILED
