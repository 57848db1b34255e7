"""A record is one line, whoever wrote the words in it."""

from __future__ import annotations

import logging

import pytest

from appliance.log import FactFormatter, facts
from appliance.model import Secret


def line(message: str, *args: object, **context: object) -> str:
    record = logging.LogRecord("appliance.l7r.server", logging.INFO, "", 0, message, args, None)
    record.__dict__.update(facts(**context))
    return FactFormatter().format(record).partition(" ")[2]


def test_facts_follow_the_message() -> None:
    shown = line("phase changed", vm=12, user="alice", reason="no answer", cause=None)
    assert shown == "INFO l7r.server phase changed vm=12 user=alice reason='no answer'"


def test_a_secret_is_not_shown() -> None:
    assert "canary" not in line("%s", Secret("canary"), password=Secret("canary"))


@pytest.mark.parametrize("words", ["a\nERROR forged", "a\nERROR", "\x1b[2J", "\x9b2J", "a\r", "\u202eb"])
def test_words_of_strangers_neither_forge_lines_nor_reach_the_terminal(words: str) -> None:
    assert line("a request: %s", words, login=words).isprintable()
