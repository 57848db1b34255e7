"""`qa`: administration from the command line, on the database itself, with the daemon up or down.

Words and help cost no import of a noun; a noun's module is loaded when the noun is used.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import io
import logging
import os
import sys
from collections.abc import Sequence

from appliance.errors import ApplianceError, HostError, TimeExpressionError, UsageError
from appliance.harmless import printable
from appliance.qa.calls import (
    COMMANDS,
    DONE,
    FAILED,
    NOUNS,
    USAGE,
    expanded,
    listing,
    named,
    prepared,
    status_of,
    verb_of,
)
from appliance.qa.context import Context
from appliance.qa.grammar import OPTIONS_HELP, Invocation, parse
from appliance.qa.verbs import SyntaxErrors

__all__ = ["NOUNS", "main"]

INTERRUPTED = 130


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
        return status_of(exc)
    except OSError as exc:
        _stop_writing()
        where = f"{exc.filename}: " if exc.filename else ""
        _tell(HostError(f"{where}{exc.strerror or exc}"))
        return FAILED


def _dispatch(invocation: Invocation) -> int:
    invocation = expanded(invocation)
    noun, name = named(invocation)
    if not noun:
        print(_overview(), end="", file=sys.stdout if invocation.help else sys.stderr)
        return DONE if invocation.help else USAGE
    if noun in COMMANDS:
        return _command(noun, invocation)
    if invocation.help:
        print(verb_of(noun, name).help(noun) if name else listing(noun), end="")
        return DONE
    call = prepared(invocation)
    context = Context(invocation)
    if not call.is_meant(context):
        context.note("Nothing was done.")
        return DONE
    return asyncio.run(call.run(context))


def _command(name: str, invocation: Invocation) -> int:
    module = importlib.import_module(f"appliance.qa.{name}")
    if invocation.help:
        print(module.HELP, end="")
        return DONE
    if invocation.filter is not None:
        raise UsageError(f"qa {name} takes no filter")
    module.run(Context(invocation))
    return DONE


def _overview() -> str:
    width = max(map(len, NOUNS))
    lines = ["qa NOUN VERB [options] [key=value …] [-- more]", "qa help [NOUN [VERB]]", "", "Nouns:"]
    lines += [f"  {noun:<{width}}  {doc}" for noun, doc in NOUNS.items()]
    lines += ["", "Commands:", *(f"  {name:<{width}}  {doc}" for name, doc in COMMANDS.items())]
    return "\n".join([*lines, "", OPTIONS_HELP])


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
