"""Two keys that arrive together are two keys, and a pasted text is none."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from textual import _parser, events

from appliance.tui.console.keys import guest_bytes
from appliance.tui.escapes import WholeParser

Read = events.Key | events.Paste


def keys_of(data: str) -> list[events.Key]:
    parser = WholeParser()
    return [key for key in (*parser.feed(data), *parser.feed("")) if isinstance(key, events.Key)]


@pytest.mark.parametrize("data", ["\x1b:wq\r", "\x1b/x", "\x1bw", "\x1b.", "\x1b\x1b[A", "\x1bOA"])
def test_what_a_person_types_reaches_the_guest_whole(data: str) -> None:
    told = [guest_bytes(key.key, key.character, cursor_keys=data.endswith("OA")) for key in keys_of(data)]
    assert b"".join(filter(None, told)) == data.encode()


def test_an_editor_hears_the_escape_before_the_colon() -> None:
    assert [key.key for key in keys_of("\x1b:w")] == ["escape", "colon", "w"]


def read(*pieces: str) -> list[str]:
    """Keys by their names, and pasted texts, in their order."""
    parser = WholeParser()
    told = [message for piece in (*pieces, "") for message in parser.feed(piece)]
    return [one.key if isinstance(one, events.Key) else one.text for one in told if isinstance(one, Read)]


PASTED = "\x1b[200~\x1b[31mred\x1b[0m\x1bx\x1b\nls\ttwo\x03\x1b[200~\x1b\x1b[201~"
TEXT = "[31mred[0mx\nls\ttwo[200~"


def test_a_pasted_text_is_one_piece_whatever_it_holds() -> None:
    assert read(f"a{PASTED}b{PASTED}{PASTED}c") == ["a", TEXT, "b", TEXT, TEXT, "c"]
    assert read("\x1b[200~\x1b[201~x") == ["", "x"]


@pytest.mark.parametrize("at", range(1, len(PASTED) + 2))
def test_a_pasted_text_is_one_piece_however_it_is_cut(at: int) -> None:
    whole = f"a{PASTED}b"
    assert read(whole[:at], whole[at:]) == ["a", TEXT, "b"]
    assert read(*whole) == ["a", TEXT, "b"]


@given(
    st.lists(
        st.sampled_from(["x", "\x1b", "\x1b[A", "[2", "00~", "\x1b[2", "\x1b[200", "01~", PASTED]), min_size=1
    )
)
@settings(deadline=None)
def test_cuts_change_nothing(pieces: list[str]) -> None:
    assert read(*pieces) == read("".join(pieces))


def test_an_escape_that_stood_alone_begins_no_pasted_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_parser, "get_time", iter(range(100)).__next__)
    parser = WholeParser()
    told = [*parser.feed("\x1b"), *parser.tick(), *parser.feed("[200~x")]
    assert [key.key for key in told if isinstance(key, events.Key)][:2] == ["escape", "left_square_bracket"]
    assert isinstance(told[-1], events.Key)
    assert told[-1].key == "x"
