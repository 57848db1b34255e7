"""`qa when`: what an expression means, for people and for programs."""

from __future__ import annotations

import pytest

from appliance.qa.main import main
from tests.support.qa import Said


class When:
    """`qa when` in Madrid on Friday, 27 November 2026, 16:40:13; without any configuration."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys

    def __call__(self, *words: str) -> Said:
        status = main(["--config", "/nowhere", "when", "--now", "2026-11-27T16:40:13", *words])
        said = self.capsys.readouterr()
        return Said(status, said.out, said.err)


@pytest.fixture
def when(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> When:
    monkeypatch.setenv("TZ", "Europe/Madrid")
    return When(capsys)


def test_words_are_joined(when: When) -> None:
    said = when("NEXT", "SAT", "+", "2", "hours")
    assert said == Said(0, "Sat 2026-11-28 18:40:00 CET (2026-11-28 17:40:00 UTC), in 1 d 1 h\n", "")
    assert when("--", "next sat", "+ 2hours") == said


def test_json_has_these_keys(when: When) -> None:
    assert when("-o", "json", "noon", "tomorrow").json == {
        "expression": "noon tomorrow",
        "local": "2026-11-28T12:00:00+01:00",
        "utc": "2026-11-28T11:00:00Z",
        "in_s": 69587,
        "past": False,
        "understood_as": None,
    }


def test_the_past_is_answered_and_marked(when: When) -> None:
    said = when("1.1.2020")
    assert (said.status, said.err) == (0, "")
    assert said.out.endswith("past, 2522 d ago\n")
    assert when("-o", "json", "now", "-", "1", "hour").json["past"] is True


def test_a_guess_is_told_as_one_and_is_not_for_at(when: When) -> None:
    assert when("in", "three", "days").out.startswith("understood as Mon 2026-11-30 16:40:13 CET")
    assert when("-o", "json", "in", "three", "days").json["understood_as"] == "Mon 2026-11-30 16:40:13 CET"
    assert when("--at", "in", "three", "days").status == 1


def test_now_is_now(when: When) -> None:
    assert when("2026-11-27T16:40:13").out.endswith(", now\n")


@pytest.mark.parametrize(
    ("words", "picture"),
    [
        (["--at", "now", "+", "3", "furlongs"], "now + 3 furlongs\n        ^\n"),
        (["--at", ""], "\n^\n"),
        (["--at", "10:61"], "10:61\n^\n"),
    ],
)
def test_an_error_shows_its_place(when: When, words: list[str], picture: str) -> None:
    said = when(*words)
    assert (said.status, said.out) == (1, "")
    assert said.err.startswith("Error: the time ")
    assert said.err.endswith(f"\n{picture}")


def test_a_place_behind_wide_letters_is_found() -> None:
    from appliance.errors import TimeExpressionError

    assert TimeExpressionError("日e\u0301x", 3, "").pointer().splitlines()[1] == "   ^"


def test_a_present_that_is_none_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["when", "--now", "soon", "now"]) == 1
    assert "'soon' is no ISO 8601" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["vm", "list", "--at"], "--at belongs to qa when"),
        (["--now=1", "vm", "list"], "--now belongs to qa when"),
        (["when", "now", "-f", "id=1"], "qa when takes no filter"),
    ],
)
def test_its_options_are_its_own(words: list[str], reason: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert reason in capsys.readouterr().err


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["help", "when"]) == 0
    assert capsys.readouterr().out.startswith("qa when [--at] [--now INSTANT]")
    assert main(["--help"]) == 0
    assert "  when " in capsys.readouterr().out
