"""Two keys that arrive together are two keys."""

from __future__ import annotations

import pytest
from textual import events

from appliance.tui.console.keys import guest_bytes
from appliance.tui.escapes import WholeParser


def keys_of(data: str) -> list[events.Key]:
    parser = WholeParser()
    return [key for key in (*parser.feed(data), *parser.feed("")) if isinstance(key, events.Key)]


@pytest.mark.parametrize("data", ["\x1b:wq\r", "\x1b/x", "\x1bw", "\x1b.", "\x1b\x1b[A", "\x1bOA"])
def test_what_a_person_types_reaches_the_guest_whole(data: str) -> None:
    told = [guest_bytes(key.key, key.character, cursor_keys=data.endswith("OA")) for key in keys_of(data)]
    assert b"".join(filter(None, told)) == data.encode()


def test_an_editor_hears_the_escape_before_the_colon() -> None:
    assert [key.key for key in keys_of("\x1b:w")] == ["escape", "colon", "w"]
