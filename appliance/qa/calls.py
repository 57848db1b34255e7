"""From words to a call of a verb, checked and ready to run; whoever calls decides where it reads and writes.

`qa` calls on the terminal, and the TUI within itself: what both can do, and how it is refused, is the same.
Nothing here prints. A noun's module is loaded when the noun is used.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

from appliance.errors import ApplianceError, DaemonDownError, UsageError
from appliance.qa.context import Context
from appliance.qa.grammar import Invocation, parse
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

DONE, FAILED, USAGE, DAEMON_DOWN = 0, 1, 2, 3


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a verb, with arguments that have been read."""

    noun: str
    verb: Verb
    given: Given
    invocation: Invocation

    def is_meant(self, context: Context) -> bool:
        """Whether what concerns everything is meant so: asks, unless the call says it.

        :raises FilterError: the filter cannot be read
        :raises AdminError: there is nobody to ask
        """
        _ = context.filter
        return not self.verb.confirm or context.confirmed(self.verb.confirm, remedy=CHOOSE)

    async def run(self, context: Context) -> int:
        """Do it; returns the exit status.

        :raises ApplianceError: it cannot be done
        """
        return await self.verb.run(context, self.given) or 0


def prepare(argv: Sequence[str]) -> Call:
    """The call that the words of a command line mean.

    :raises UsageError: they name no verb, or options that it does not take
    :raises SyntaxErrors: everything that is wrong with its arguments, at once
    """
    invocation = expanded(parse(argv))
    if invocation.help or not invocation.words or invocation.words[0] in COMMANDS:
        raise UsageError(f"{' '.join(argv) or 'nothing'}: this is no call of a verb")
    return prepared(invocation)


def prepared(invocation: Invocation) -> Call:
    """The call that an expanded command line means.

    :raises UsageError: it names no verb, or options that it does not take
    :raises SyntaxErrors: everything that is wrong with its arguments, at once
    """
    noun, name = named(invocation)
    verb = verb_of(noun, name)
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
    return Call(noun, verb, given, invocation)


def expanded(invocation: Invocation) -> Invocation:
    """The same in full words: `events` is `event list`."""
    if invocation.words and (meant := SHORT.get(invocation.words[0])):
        return replace(invocation, words=(*meant, *invocation.words[1:]))
    return invocation


def named(invocation: Invocation) -> tuple[str, str]:
    """Noun and verb of an expanded command line; empty if there is none."""
    noun, name, *_ = (*invocation.words, "", "")
    return noun, f"{name} --undo" if invocation.undo else name


def verbs_of(noun: str) -> tuple[Verb, ...]:
    """The verbs of a noun.

    :raises UsageError: there is no such noun
    """
    if noun not in NOUNS:
        known = [*NOUNS, *COMMANDS]
        near = difflib.get_close_matches(noun, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"one of {', '.join(known)}"
        raise UsageError(f"there is no noun {noun!r}", hint=hint)
    found: tuple[Verb, ...] = importlib.import_module(f"appliance.qa.{noun}").VERBS
    return found


def verb_of(noun: str, name: str) -> Verb:
    """One verb of a noun.

    :raises UsageError: there is no such noun, or no such verb
    """
    verbs = verbs_of(noun)
    found = {verb.name: verb for verb in verbs}
    if name in found:
        return found[name]
    near = difflib.get_close_matches(name, found, n=1)
    problem = UsageError(
        f"{noun} has no verb {name!r}" if name else f"{noun} needs a verb",
        hint=f"did you mean {near[0]}?" if near else None,
    )
    problem.add_note(listing(noun))
    raise problem


def listing(noun: str) -> str:
    """The verbs of a noun, for people.

    :raises UsageError: there is no such noun
    """
    verbs = verbs_of(noun)
    lines = [
        f"Verbs of {noun} ({NOUNS[noun]}):",
        *(f"  {verb.usage(noun)}\n      {verb.doc}" for verb in verbs),
    ]
    return "\n".join(lines) + "\n"


def status_of(exc: ApplianceError) -> int:
    """The exit status that tells a failure."""
    if isinstance(exc, UsageError):
        return USAGE
    if isinstance(exc, DaemonDownError):
        return DAEMON_DOWN
    return FAILED
