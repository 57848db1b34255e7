"""What the notifier says, without a window: times for people, and text as data."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import ModuleType

import pytest

from images import debian


@pytest.fixture(scope="module")
def notifier() -> ModuleType:
    """The program as a module; an import would leave its byte code in the overlay."""
    path = debian.OVERLAY / "usr/lib/qvd/notifier"
    module = ModuleType("notifier")
    exec(compile(path.read_text(), str(path), "exec"), module.__dict__)
    return module


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-5, "0 seconds"),
        (1, "1 second"),
        (59.9, "59 seconds"),
        (60, "1 minute"),
        (61, "1 minute 1 second"),
        (3600, "1 hour"),
        (7999, "2 hours 13 minutes"),
        (86400, "1 day"),
        (90000, "1 day 1 hour"),
        (14 * 86400 + 7300, "14 days 2 hours"),
    ],
)
def test_a_time_span_is_told_in_two_units(notifier: ModuleType, seconds: float, words: str) -> None:
    assert notifier.duration(seconds) == words


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("<b>bold</b> & co", "<b>bold</b> & co"),
        ("two\nlines", "two\nlines"),
        ("a\x1b[31mb\x00c\u202ed\r", "a[31mbcd"),
        ("x" * 20, "x" * 9 + "…"),
    ],
)
def test_text_is_data(notifier: ModuleType, text: str, shown: str) -> None:
    assert notifier.plain(text, 10 if len(text) == 20 else 100) == shown


def write(path: Path, **params: str) -> None:
    names = {"at": time.time(), "params": {f"vm.expiration.{key}": value for key, value in params.items()}}
    path.with_suffix(".new").write_text(json.dumps(names))
    path.with_suffix(".new").replace(path)


def test_what_is_left_is_counted_on_the_hosts_clock(notifier: ModuleType, tmp_path: Path) -> None:
    state = tmp_path / "state"
    write(state, hard="2040-01-01 12:30:00", now="2040-01-01 10:00:00", later="7200", postponements="1")
    question = notifier.Question(str(state))
    assert question.changed()
    assert not question.changed()
    heading, text = question.text()
    assert heading == "This desktop needs a restart"
    assert "It restarts by itself in 2 hours " in text
    assert "If you wait, you will be asked again in 2 hours, at most 1 time." in text
    write(state, hard="2040-01-01 12:30:00", now="2040-01-01 12:30:01", final="1")
    assert question.changed()
    assert question.text() == ("This desktop will restart soon", "Save your work now.\nIt restarts now.")
    assert not question.withdrawn
    write(state, withdrawn="1")
    assert question.changed()
    assert question.withdrawn


def test_damaged_words_leave_what_was_said(notifier: ModuleType, tmp_path: Path) -> None:
    state = tmp_path / "state"
    write(state, hard="tomorrow", later="soon", final="1")
    question = notifier.Question(str(state))
    assert question.changed()
    assert question.text() == ("This desktop will restart soon", "Save your work now.")
    state.with_suffix(".new").write_text("{")
    state.with_suffix(".new").replace(state)
    assert not question.changed()
    assert question.text()[0] == "This desktop will restart soon"
