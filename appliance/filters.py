r"""The `-f` grammar of `qa` and of the filter bar, as values; nothing here knows columns or SQL.

`key=value[,key=value…]`, all of which must hold. In a value, `*` stands for any text and `?` for one
character. Beyond QVD's grammar: `!=`, `<`, `<=`, `>`, `>=`, an empty value for "absent",
`key in (value,value…)` and `key not in (…)`, and a backslash before a character that would mean
something else (`\,` `\*` `\?` `\\`).

The law: `Filter.parse(str(f)) == f`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from appliance.errors import UsageError

GRAMMAR = "write key=value[,key=value…]"
LIST_GRAMMAR = "write key in (value,value…)"

IN = re.compile(r"\s+in\s*$", re.IGNORECASE)
NOT_IN = re.compile(r"\s+not\s+in\s*$", re.IGNORECASE)


class Op(StrEnum):
    """How a condition compares."""

    EQUAL = "="
    DIFFERENT = "!="
    LESS = "<"
    AT_MOST = "<="
    MORE = ">"
    AT_LEAST = ">="


class Wild(StrEnum):
    """What a wildcard stands for."""

    ANY = "*"
    ONE = "?"


@dataclass(frozen=True, slots=True)
class Pattern:
    """The right side of a condition: literal texts and wildcards, in order; neighbouring texts are one."""

    parts: tuple[str | Wild, ...]

    def __post_init__(self) -> None:
        joined: list[str | Wild] = []
        for part in self.parts:
            if isinstance(part, Wild) or not joined or isinstance(joined[-1], Wild):
                joined.append(part)
            else:
                joined[-1] += part
        object.__setattr__(self, "parts", tuple(part for part in joined if part))

    @property
    def literal(self) -> str | None:
        """The text, if it holds no wildcard."""
        if any(isinstance(part, Wild) for part in self.parts):
            return None
        return "".join(self.parts)

    def __str__(self) -> str:
        return "".join(
            part.value if isinstance(part, Wild) else re.sub(r"([\\,*?])", r"\\\1", part)
            for part in self.parts
        )


@dataclass(frozen=True, slots=True)
class Condition:
    """One `key=value`."""

    key: str
    op: Op
    value: Pattern

    def __str__(self) -> str:
        key = _escaped_key(self.key)
        text = str(self.value)
        if self.op in (Op.LESS, Op.MORE) and text.startswith("="):
            text = "\\" + text
        return f"{key}{self.op}{text}"


@dataclass(frozen=True, slots=True)
class Choice:
    """One `key in (value,value…)`, or with `among` false `key not in (…)`; no value is empty."""

    key: str
    values: tuple[Pattern, ...]
    among: bool = True

    def __str__(self) -> str:
        values = ",".join(re.sub(r"([()\s])", r"\\\1", str(value)) for value in self.values)
        return f"{_escaped_key(self.key)} {'in' if self.among else 'not in'} ({values})"


@dataclass(frozen=True, slots=True)
class Filter:
    """Conditions that must all hold; none at all lets everything pass."""

    conditions: tuple[Condition | Choice, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read an expression.

        :raises UsageError: it does not follow the grammar
        """
        if not text.strip():
            return cls()
        return cls(tuple(_condition(words, text) for words in _split(text)))

    @classmethod
    def where(cls, **values: object) -> Self:
        """The filter of what has exactly these values."""
        return cls(tuple(Condition(key, Op.EQUAL, Pattern((str(value),))) for key, value in values.items()))

    @classmethod
    def among(cls, key: str, values: Iterable[object]) -> Self:
        """The filter of what has one of these values, which are not none."""
        return cls((Choice(key, tuple(Pattern((str(value),)) for value in values)),))

    def __str__(self) -> str:
        return ",".join(map(str, self.conditions))

    def __bool__(self) -> bool:
        return bool(self.conditions)


@dataclass(frozen=True, slots=True)
class _Char:
    """One character, and whether a backslash made it literal."""

    char: str
    quoted: bool

    def means(self, wanted: str) -> bool:
        return not self.quoted and self.char in wanted


def _characters(text: str) -> Iterator[_Char]:
    characters = iter(text)
    for char in characters:
        if char != "\\":
            yield _Char(char, False)
            continue
        following = next(characters, None)
        if following is None:
            raise UsageError(f"the filter {text!r} ends in a lone backslash", hint="write two for one")
        yield _Char(following, True)


def _split(text: str) -> Iterator[list[_Char]]:
    words: list[_Char] = []
    in_list = False
    for char in _characters(text):
        if char.means(",") and not in_list:
            yield words
            words = []
            continue
        if char.means("(") and _list_opens_after(words) is not None:
            in_list = True
        elif char.means(")"):
            in_list = False
        words.append(char)
    yield words


def _list_opens_after(words: Sequence[_Char]) -> tuple[list[_Char], bool] | None:
    """The key, and whether its value must be in the list, if a `(` after these words opens one."""
    if any(char.means("=!<>(") for char in words):
        return None
    plain = "".join("\\" if char.quoted else char.char for char in words)
    for sign, among in ((NOT_IN, False), (IN, True)):
        if match := sign.search(plain):
            return list(words[: match.start()]), among
    return None


def _condition(words: list[_Char], whole: str) -> Condition | Choice:
    opening = next((place for place, char in enumerate(words) if char.means("(")), len(words))
    if opened := _list_opens_after(words[:opening]) if opening < len(words) else None:
        return _choice(*opened, words[opening + 1 :], whole)
    return _comparison(words, whole)


def _choice(key: list[_Char], among: bool, words: list[_Char], whole: str) -> Choice:
    close = next((place for place, char in enumerate(words) if char.means(")")), None)
    name = "".join(char.char for char in _stripped(key))
    if close is None or _stripped(words[close + 1 :]):
        raise UsageError(
            f"the filter {whole!r} does not end its list of {name!r} with ')'", hint=LIST_GRAMMAR
        )
    if not name:
        raise UsageError(f"the filter {whole!r} names no key before its list", hint=LIST_GRAMMAR)
    values: list[list[_Char]] = [[]]
    for char in words[:close]:
        if char.means(","):
            values.append([])
        else:
            values[-1].append(char)
    patterns = tuple(_pattern(_stripped(value)) for value in values)
    if not all(pattern.parts for pattern in patterns):
        raise UsageError(f"the filter {whole!r} has an empty value in its list", hint=LIST_GRAMMAR)
    return Choice(name, patterns, among)


def _comparison(words: list[_Char], whole: str) -> Condition:
    at = next((place for place, char in enumerate(words) if char.means("=!<>")), None)
    shown = "".join(char.char for char in words)
    if at is None:
        raise UsageError(f"the filter {whole!r} has no '=' in {shown!r}", hint=GRAMMAR)
    length = 2 if len(words) > at + 1 and words[at].means("!<>") and words[at + 1].means("=") else 1
    sign = "".join(char.char for char in words[at : at + length])
    if sign not in list(Op):
        raise UsageError(f"the filter {whole!r} has no '=' after '!' in {shown!r}", hint=GRAMMAR)
    key = "".join(char.char for char in _stripped(words[:at]))
    if not key:
        raise UsageError(f"the filter {whole!r} names no key before {sign!r}", hint=GRAMMAR)
    return Condition(key, Op(sign), _pattern(words[at + length :]))


def _escaped_key(key: str) -> str:
    return re.sub(r"([\\,=!<>()\s])", r"\\\1", key)


def _stripped(words: list[_Char]) -> list[_Char]:
    inked = [place for place, char in enumerate(words) if char.quoted or not char.char.isspace()]
    return words[inked[0] : inked[-1] + 1] if inked else []


def _pattern(words: list[_Char]) -> Pattern:
    return Pattern(tuple(Wild(char.char) if char.means("*?") else char.char for char in words))
