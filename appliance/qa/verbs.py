"""Verbs as data: what each takes, what for, and an example; help and checks come from these tables."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from appliance.errors import ConfigError, UsageError
from appliance.filters import Filter

if TYPE_CHECKING:
    from appliance.qa.context import Context

R = TypeVar("R")

WHOLE = re.compile(r"[+-]?\d{1,18}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Argument:
    """One `key=value` of a verb."""

    name: str
    doc: str
    parse: Callable[[str], Any] = str
    required: bool = False
    shape: str = "TEXT"


@dataclass(frozen=True, slots=True)
class Given:
    """The arguments of one call, read and checked."""

    values: Mapping[str, Any]
    rest: tuple[str, ...] = ()
    """Words that are no `key=value`, for verbs that take such."""

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    def __contains__(self, name: str) -> bool:
        return name in self.values

    def get(self, name: str, default: Any = None) -> Any:
        """The value of an argument, or the default if it is not given."""
        return self.values.get(name, default)


Run = Callable[["Context", Given], Awaitable[int | None]]


@dataclass(frozen=True, slots=True)
class Verb:
    """One verb of a noun."""

    name: str
    doc: str
    run: Run
    arguments: tuple[Argument, ...] = ()
    one_of: tuple[tuple[str, ...], ...] = ()
    """Groups of arguments of which exactly one must be given."""
    apart: tuple[tuple[str, ...], ...] = ()
    """Groups of arguments of which at most one may be given."""
    any_of: tuple[str, ...] = ()
    """Arguments of which at least one must be given."""
    pairs: str | None = None
    """What the verb's freely named `key=value`s are, if it takes such."""
    words: str | None = None
    """What the verb's plain words are, if it takes such."""
    more: str | None = None
    """What may stand after `--`, if anything."""
    filters: bool = False
    rehearsable: bool = False
    """Whether all that it does is one transaction, so that --dry-run can undo it and tell what it was."""
    confirm: str | None = None
    """What it does to everything, for the question asked when there is neither a filter nor --force."""
    examples: tuple[str, ...] = field(default=())

    def given(self, words: Sequence[str]) -> Given:
        """The arguments among the words of a command line.

        :raises SyntaxErrors: everything that is wrong with them, at once
        """
        known = {_alike(argument.name): argument for argument in self.arguments}
        values: dict[str, Any] = {}
        rest: list[str] = []
        errors: list[str] = []
        seen: set[str] = set()
        for word in words:
            name, equals, text = word.partition("=")
            if not equals and self.words:
                rest.append(word)
            elif not equals:
                errors.append(f"{word!r} is no key=value")
            elif argument := known.get(_alike(name)):
                name = argument.name
                if name in seen:
                    errors.append(f"argument {name} is given twice")
                else:
                    _read(argument, text, values, errors)
            elif not self.pairs:
                errors.append(_unknown(name, [argument.name for argument in self.arguments]))
            elif name in seen:
                errors.append(f"argument {name} is given twice")
            else:
                values[name] = text
            seen.add(name)
        errors += self._missing(seen)
        if errors:
            raise SyntaxErrors(errors)
        return Given(values, tuple(rest))

    def usage(self, noun: str) -> str:
        """The first line of its help."""
        parts = [f"qa {noun} {self.name}"]
        grouped = {name for group in self.one_of for name in group}
        parts += ["|".join(f"{name}=" for name in group) for group in self.one_of]
        for argument in self.arguments:
            if argument.name not in grouped:
                shown = f"{argument.name}={argument.shape}"
                parts.append(shown if argument.required else f"[{shown}]")
        if self.pairs:
            parts.append("KEY=VALUE…")
        if self.words:
            parts.append(f"[{self.words}]")
        if self.filters:
            parts.append("[-f FILTER]")
        if self.more:
            parts.append(f"[-- {self.more}]")
        return " ".join(parts)

    def help(self, noun: str) -> str:
        """What it does, takes, and an example."""
        lines = [self.usage(noun), "", f"  {self.doc}"]
        if self.confirm:
            lines.append("  Asks first when there is neither a filter nor --force.")
        if self.rehearsable:
            lines.append("  With --dry-run it changes nothing, and lists what it would change.")
        if self.arguments:
            width = max(len(argument.name) + len(argument.shape) for argument in self.arguments) + 1
            lines += ["", "Arguments:"]
            lines += [f"  {f'{a.name}={a.shape}':<{width}}  {a.doc}" for a in self.arguments]
        if self.examples:
            lines += ["", "Examples:", *(f"  {example}" for example in self.examples)]
        return "\n".join(lines) + "\n"

    def _missing(self, seen: set[str]) -> list[str]:
        errors = [
            f"argument {a.name} is missing" for a in self.arguments if a.required and a.name not in seen
        ]
        for group in self.one_of:
            found = [name for name in group if name in seen]
            if not found:
                errors.append(f"one of the arguments {' or '.join(group)} is missing")
            errors += _excluding(found)
        for group in self.apart:
            errors += _excluding([name for name in group if name in seen])
        if self.any_of and not seen & set(self.any_of):
            errors.append(f"nothing to change: give {' or '.join(self.any_of)}")
        if self.pairs and not seen:
            errors.append(f"{self.pairs} are missing")
        return errors


class SyntaxErrors(UsageError):
    """Everything that is wrong with the arguments of a verb."""

    def __init__(self, errors: Sequence[str]) -> None:
        super().__init__("; ".join(errors))
        self.errors = tuple(errors)


def whole(text: str) -> int:
    """A whole number that the database can hold.

    :raises ValueError: it is none
    """
    if not WHOLE.fullmatch(text):
        raise ValueError("write a whole number")
    return int(text)


def amount(text: str) -> int:
    """A whole number, 1 or more.

    :raises ValueError: it is none
    """
    number = whole(text)
    if number < 1:
        raise ValueError("write a whole number, 1 or more")
    return number


def limit(text: str) -> int | None:
    """How many of a long list; None for all.

    :raises ValueError: it is neither a number nor `all`
    """
    return None if text == "all" else amount(text)


USUAL_LIMIT = 100
LIMIT = Argument("limit", f"so many of the newest, or all; default {USUAL_LIMIT}", limit, shape="NUMBER|all")


class Newest(Protocol[R]):
    """Finds what passes a filter, the newest last; of more than `most`, the newest."""

    def __call__(self, filter_: Filter | None = None, *, most: int | None = None) -> Awaitable[list[R]]: ...


async def newest(context: Context, given: Given, find: Newest[R]) -> list[R]:
    """As many of the newest as the call wants, with a note if there are older ones that it has not named."""
    most = given.get("limit", USUAL_LIMIT)
    found = await find(context.filter, most=None if most is None else most + 1)
    if most is None or len(found) <= most:
        return found
    if "limit" not in given:
        context.note(f"There are older ones than these {most}: limit=all shows them.")
    return found[-most:]


def _read(argument: Argument, text: str, values: dict[str, Any], errors: list[str]) -> None:
    try:
        values[argument.name] = argument.parse(text)
    except (ValueError, UsageError, ConfigError) as exc:
        errors.append(f"argument {argument.name}={text!r}: {exc}")


def _alike(name: str) -> str:
    """The name for comparison: nobody remembers where a hyphen stands, and where an underscore."""
    return name.replace("_", "-")


def _excluding(found: Sequence[str]) -> list[str]:
    return [f"the arguments {' and '.join(found)} exclude one another"] if len(found) > 1 else []


def _unknown(name: str, known: list[str]) -> str:
    import difflib

    near = difflib.get_close_matches(name, known, n=1)
    remedy = (
        f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}" if known else "it takes none"
    )
    return f"there is no argument {name} ({remedy})"
