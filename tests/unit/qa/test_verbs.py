"""Verbs: arguments are checked all at once, and every verb can explain itself."""

from __future__ import annotations

import importlib
import shlex
from itertools import takewhile

import pytest

from appliance.filters import Filter
from appliance.qa.context import Context
from appliance.qa.grammar import parse
from appliance.qa.main import NOUNS
from appliance.qa.verbs import Argument, Given, SyntaxErrors, Verb, whole


async def nothing(context: Context, given: Given) -> None:
    """Do nothing."""


ADD = Verb(
    "add",
    "Adds.",
    nothing,
    arguments=(
        Argument("name", "", required=True),
        Argument("a", ""),
        Argument("b", ""),
        Argument("n", "", whole),
    ),
    one_of=(("a", "b"),),
)


def test_reads_arguments() -> None:
    assert ADD.given(["name=x=y", "a=1", "n=7"]).values == {"name": "x=y", "a": "1", "n": 7}


def test_hyphens_and_underscores_are_alike() -> None:
    verb = Verb("x", "", nothing, arguments=(Argument("use_overlay", ""), Argument("password-file", "")))
    given = verb.given(["use-overlay=1", "password_file=2"])
    assert given.values == {"use_overlay": "1", "password-file": "2"}
    with pytest.raises(SyntaxErrors, match="argument use_overlay is given twice"):
        verb.given(["use_overlay=1", "use-overlay=2"])


def test_free_names_stay_as_they_are() -> None:
    verb = Verb("x", "", nothing, pairs="keys")
    assert verb.given(["a_b=1", "a-b=2"]).values == {"a_b": "1", "a-b": "2"}
    with pytest.raises(SyntaxErrors, match="argument a_b is given twice"):
        verb.given(["a_b=1", "a_b=2"])


def test_tells_all_that_is_wrong_at_once() -> None:
    with pytest.raises(SyntaxErrors) as caught:
        ADD.given(["nmae=x", "a=1", "b=2", "n=many", "word", "a=3"])
    assert caught.value.errors == (
        "there is no argument nmae (did you mean name?)",
        "argument n='many': write a whole number",
        "'word' is no key=value",
        "argument a is given twice",
        "argument name is missing",
        "the arguments a and b exclude one another",
    )


def verbs() -> list[tuple[str, Verb]]:
    return [(noun, verb) for noun in NOUNS for verb in importlib.import_module(f"appliance.qa.{noun}").VERBS]


@pytest.mark.parametrize(("noun", "verb"), verbs(), ids=lambda part: getattr(part, "name", part))
def test_every_verb_explains_itself(noun: str, verb: Verb) -> None:
    text = verb.help(noun)
    assert text.startswith(f"qa {noun} {verb.name}")
    assert verb.doc.endswith(".")
    assert verb.examples
    assert all(argument.doc and argument.name in text for argument in verb.arguments)


@pytest.mark.parametrize(
    ("noun", "verb", "example"),
    [(noun, verb, example) for noun, verb in verbs() for example in verb.examples],
    ids=lambda part: getattr(part, "name", part),
)
def test_every_example_is_a_call_of_its_verb(noun: str, verb: Verb, example: str) -> None:
    words = shlex.split(example)
    words = words[words.index("qa") + 1 :]
    invocation = parse(list(takewhile(lambda word: word not in ("|", "<", ">"), words)))
    assert (noun, *verb.name.split()) == (*invocation.words[:2], *(["--undo"] if invocation.undo else []))
    verb.given(invocation.words[2:])
    Filter.parse(invocation.filter or "")
    assert verb.filters or invocation.filter is None
    assert verb.more or not invocation.more
