"""The grammar of the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.errors import UsageError
from appliance.qa.grammar import Invocation, parse


def test_options_stand_anywhere_before_the_two_hyphens() -> None:
    parsed = parse(["--config", "x", "vm", "-f", "id=1", "list", "a=b", "-q", "--", "-f", "c"])
    assert parsed == Invocation(
        words=("vm", "list", "a=b"), more=("-f", "c"), filter="id=1", quiet=True, config=Path("x")
    )


@pytest.mark.parametrize("word", ["-f", "-F", "--filter", "-filter", "--FILT", "--fi"])
def test_names_of_options_take_any_case_and_abbreviation(word: str) -> None:
    assert parse(["vm", word, "id=1"]).filter == "id=1"


@pytest.mark.parametrize("word", ["--force", "--yes", "-y", "--fo"])
def test_force_and_yes_are_one(word: str) -> None:
    assert parse([word]).force


def test_a_value_may_be_attached() -> None:
    assert parse(["--filter=id=1"]).filter == "id=1"


def test_a_lone_hyphen_is_a_word() -> None:
    assert parse(["a", "-"]).words == ("a", "-")


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--nonsense"], "no such option"),
        (["-f"], "needs a value"),
        (["--quiet=1"], "takes no value"),
        (["-o", "xml"], "no such form"),
    ],
)
def test_wrong_options_are_refused(words: list[str], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        parse(words)


@pytest.mark.parametrize(
    ("words", "about"),
    [
        (["help"], ()),
        (["help", "vm"], ("vm",)),
        (["help", "vm", "start"], ("vm", "start")),
        (["vm", "help"], ("vm",)),
        (["vm", "help", "start"], ("vm", "start")),
        (["--help", "vm", "start"], ("vm", "start")),
        (["vm", "start", "a=b", "-h"], ("vm", "start", "a=b")),
    ],
)
def test_help_is_asked_for_in_many_ways(words: list[str], about: tuple[str, ...]) -> None:
    parsed = parse(words)
    assert (parsed.help, parsed.words) == (True, about)


def test_help_is_a_word_where_words_are_free() -> None:
    assert parse(["config", "get", "help"]) == Invocation(words=("config", "get", "help"))
