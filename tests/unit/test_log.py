"""A record is one line, whoever wrote the words in it."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.config import LOG_FILENAME, LOG_LEVEL, Settings
from appliance.errors import ConfigError
from appliance.log import LEVELS, FactFormatter, JournalFormatter, facts, leads_to_journal, set_up
from appliance.model import Secret
from appliance.scalars import LOG_LEVELS


@pytest.fixture
def loggers() -> Iterator[None]:
    """Puts the root logger back as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    for handler in root.handlers:
        handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)


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


def broken(formatter: logging.Formatter, message: str) -> list[str]:
    """The lines of a record about an exception."""
    try:
        raise ValueError(message)
    except ValueError:
        trace = sys.exc_info()
    record = logging.LogRecord("appliance.daemon", logging.ERROR, "", 0, "broken", (), trace)
    return formatter.format(record).splitlines()


def test_an_exception_forges_no_record_either() -> None:
    first, *rest = broken(FactFormatter(), "a\n2030-01-31T18:00:00.000Z INFO forged\x1b[2J")

    assert first.endswith("ERROR daemon broken")
    assert all(shown.startswith("    ") and shown.isprintable() for shown in rest)


def test_a_long_word_makes_no_second_record_in_the_journal() -> None:
    shown = line("log-in refused", login="\0" * 12_000)
    assert len(shown) < 10_000
    assert shown.endswith("…")


def test_the_journal_gets_a_priority_and_no_time() -> None:
    record = logging.LogRecord("appliance.l7r.server", logging.WARNING, "", 0, "late", (), None)
    record.__dict__.update(facts(vm=12))

    assert JournalFormatter().format(record) == "<4>l7r.server late vm=12"


def test_the_journal_gets_a_priority_on_every_line() -> None:
    assert all(shown.startswith("<3>") for shown in broken(JournalFormatter(), "why"))


@pytest.mark.parametrize(
    ("level", "priority"), [(10, "<7>"), (20, "<6>"), (30, "<4>"), (40, "<3>"), (50, "<2>")]
)
def test_priorities_are_those_of_syslog(level: int, priority: str) -> None:
    record = logging.LogRecord("appliance", level, "", 0, "x", (), None)

    assert JournalFormatter().format(record).startswith(priority)


def test_it_is_the_journal_if_systemd_says_so(tmp_path: Path) -> None:
    with (tmp_path / "stream").open("w") as stream:
        there = os.fstat(stream.fileno())
        assert leads_to_journal(stream, {"JOURNAL_STREAM": f"{there.st_dev}:{there.st_ino}"})
        assert not leads_to_journal(stream, {"JOURNAL_STREAM": f"{there.st_dev}:{there.st_ino + 1}"})
        assert not leads_to_journal(stream, {})
    assert not leads_to_journal(stream, {"JOURNAL_STREAM": "1:1"})


def test_levels_are_those_that_the_settings_accept() -> None:
    assert set(LEVELS) == set(LOG_LEVELS)
    assert Settings({"log.level": " warn "})[LOG_LEVEL] == "WARN"
    with pytest.raises(ConfigError, match="ALL, TRACE, DEBUG"):
        _ = Settings({"log.level": "loud"})[LOG_LEVEL]


@pytest.mark.usefixtures("loggers")
@pytest.mark.parametrize(
    ("level", "seen"),
    [
        ("ALL", "DEBUG INFO WARNING ERROR CRITICAL"),
        ("INFO", "INFO WARNING ERROR CRITICAL"),
        ("WARN", "WARNING ERROR CRITICAL"),
        ("FATAL", "CRITICAL"),
        ("OFF", ""),
    ],
)
def test_a_level_lets_through_what_is_as_grave(level: str, seen: str, tmp_path: Path) -> None:
    file = tmp_path / "appliance.log"
    set_up(level, file)

    for grave in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL):
        logging.getLogger("appliance.test").log(grave, "x")

    assert [line.split()[1] for line in file.read_text().splitlines()] == seen.split()


@pytest.mark.usefixtures("loggers")
def test_the_file_is_for_its_owner_and_may_be_rotated(tmp_path: Path) -> None:
    file = tmp_path / "appliance.log"
    set_up("INFO", file)
    assert file.stat().st_mode & 0o777 == 0o600

    logging.getLogger("appliance.test").info("before")
    file.rename(tmp_path / "appliance.log.1")
    logging.getLogger("appliance.test").info("after")

    assert "before" in (tmp_path / "appliance.log.1").read_text()
    assert file.read_text().endswith("test after\n")


@pytest.mark.usefixtures("loggers")
def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"log.filename = .*nowhere/x.log: the file cannot be written"):
        set_up("INFO", tmp_path / "nowhere" / "x.log")
    with pytest.raises(ConfigError, match="absolute path"):
        _ = Settings({"log.filename": "x.log"})[LOG_FILENAME]
