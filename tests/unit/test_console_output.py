"""What reaches an administrator's terminal: judged by a reader of its own, written after ECMA-48."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyte.charsets import LAT1_MAP

from appliance.console_output import (
    ESCAPES,
    LONGEST_STRING,
    MODES,
    ON_THE_NEXT_LINE,
    PRIVATE_MODES,
    TIDY,
    TOKEN,
    HarmlessOutput,
    tidying,
)
from appliance.tui.console.interpreter import Interpreter
from appliance.tui.console.rows import text_of
from appliance.tui.console.screen import GuestScreen

ATTACKS = {
    "primary device attributes": b"\x1b[c",
    "secondary device attributes": b"\x1b[>0c",
    "tertiary device attributes": b"\x1b[=c",
    "old identify": b"\x1bZ",
    "answerback": b"\x05",
    "status": b"\x1b[5n",
    "cursor position": b"\x1b[6n",
    "private cursor position": b"\x1b[?6n",
    "leading zeros": b"\x1b[00006n",
    "request mode": b"\x1b[?2004$p",
    "request status string": b"\x1bP$qm\x1b\\",
    "request termcap": b"\x1bP+q544e\x1b\\",
    "user-defined keys": b"\x1bP1;1|17/6c73\x1b\\",
    "sixel": b"\x1bPq#0;2;0;0;0\x1b\\",
    "terminal parameters": b"\x1b[x",
    "window size report": b"\x1b[18t",
    "title report": b"\x1b[21t",
    "iconify": b"\x1b[2t",
    "title": b"\x1b]0;pwned\x07",
    "icon name": b"\x1b]1;pwned\x1b\\",
    "window title": b"\x1b]2;pwned\x07",
    "clipboard": b"\x1b]52;c;cHduZWQ=\x07",
    "palette query": b"\x1b]4;1;?\x07",
    "colour query": b"\x1b]11;?\x1b\\",
    "hyperlink": b"\x1b]8;;http://evil\x1b\\",
    "notification": b"\x1b]777;notify;a;b\x07",
    "application command": b"\x1b_Gi=1,a=q;AAAA\x1b\\",
    "privacy message": b"\x1b^pwned\x1b\\",
    "start of string": b"\x1bXpwned\x1b\\",
    "screen title": b"\x1bkpwned\x1b\\",
    "terminal version": b"\x1b[>q",
    "kitty keyboard query": b"\x1b[?u",
    "kitty keyboard push": b"\x1b[>1u",
    "modify other keys": b"\x1b[>4;2m",
    "key modifier query": b"\x1b[?4m",
    "graphics query": b"\x1b[?1;1;0S",
    "checksum of a rectangle": b"\x1b[1;1;1;1;1;1*y",
    "locator": b"\x1b[1'|",
    "media copy": b"\x1b[5i",
    "keyboard lock": b"\x1b[2h",
    "local echo": b"\x1b[12l",
    "132 columns": b"\x1b[?3h",
    "focus reports": b"\x1b[?1004h",
    "colour scheme reports": b"\x1b[?2031h",
    "hidden among good modes": b"\x1b[?25;1004h",
    "Latin-1": b"\x1b%@",
    "locking shift": b"\x1b~",
    "eight-bit CSI": b"\x9b6n",
    "CSI as a character": "\u009b6n".encode(),
    "OSC as a character": "\u009d52;c;cHduZWQ=\u009c".encode(),
    "DCS as a character": "\u0090$qm\u009c".encode(),
    "highlight tracking": b"\x1b[1;2;3;4;5T",
    "erase the scrollback": b"\x1b[3J",
    "erase the scrollback, written differently": b"\x1b[03J\x1b[2;3J\x1b[3;J\x1b[2:3J",
    "clear tab stops": b"\x1b[3g\x1b[g",
    "set a tab stop": b"\x1bH",
    "endless repeat": b"\x1b[999999999b",
    "newline inside": b"\x1b[6\nn",
    "escape inside": b"\x1b[\x1b[6n",
    "nul inside": b"\x1b[6\x00n",
    "cancel inside": b"\x1b[6\x18n",
}

CONTROLS = set("\x07\x08\t\n\x0b\x0c\r\x0e\x0f")
ALLOWED_CSI = re.compile(
    r"\x1b\[(?:[0-9;:]*[@A-HIJKLMPSTXZ`abdefmr]|[su]|4[hl]|!p|[0-6]? q"
    r"|\?(?:1|5|7|12|25|47|104[789]|100[026]|2004)(?:;(?:1|5|7|12|25|47|104[789]|100[026]|2004))*[hl])"
)
ALLOWED_ESCAPE = re.compile(r"\x1b(?:[78=>DEM]|[()][AB0])")


def filtered(*chunks: bytes) -> bytes:
    output = HarmlessOutput()
    return b"".join(map(output.feed, chunks))


def assert_harmless(shown: bytes) -> None:
    """Every byte is text, a known control, or part of a whole sequence that only draws."""
    text = shown.decode()
    place = 0
    while place < len(text):
        if text[place] == "\x1b":
            sequence = ALLOWED_CSI.match(text, place) or ALLOWED_ESCAPE.match(text, place)
            assert sequence, f"{text[place : place + 20]!r} may do anything"
            place = sequence.end()
        else:
            assert text[place] in CONTROLS or (text[place] >= " " and not "\x7f" <= text[place] <= "\x9f")
            place += 1


attack = st.sampled_from(list(ATTACKS.values()))
fragment = st.sampled_from(
    b"\x1b|[|]|?|6|;|n|c|P|$q|\\|\x07|\x18|\x1b[|\x1b]|52;c;|\xc3\xa9|\xc2\x9b|\xc2|\x9b|\xf0\x9f|text|\r\n|\x1b[1m".split(
        b"|"
    )
)
streams = st.lists(attack | fragment | st.binary(max_size=6), max_size=30).map(b"".join)


@pytest.mark.parametrize("bytes_", ATTACKS.values(), ids=ATTACKS.keys())
def test_an_attack_leaves_nothing_that_acts(bytes_: bytes) -> None:
    shown = filtered(b"before ", bytes_, b" after\r\n")
    assert_harmless(shown)
    assert b"\x1b" not in shown
    assert shown.startswith(b"before ")
    assert shown.endswith(b" after\r\n")


@settings(max_examples=600)
@given(streams, st.lists(st.integers(1, 9), max_size=40))
def test_no_stream_and_no_split_lets_anything_harmful_pass(stream: bytes, cuts: list[int]) -> None:
    whole = filtered(stream)
    chunks = []
    rest = stream
    for cut in cuts:
        chunks.append(rest[:cut])
        rest = rest[cut:]
    assert_harmless(whole)
    assert filtered(*chunks, rest) == whole
    assert filtered(*(bytes([byte]) for byte in stream)) == whole


@given(streams)
def test_the_rest_after_the_filter_is_ground_for_any_harmless_text(stream: bytes) -> None:
    output = HarmlessOutput()
    before = output.feed(stream)
    assert_harmless(before + output.feed(b"6n"))


@given(st.text(alphabet=st.characters(min_codepoint=0x20, exclude_categories=("Cc", "Cs"))))
def test_text_passes_unchanged(text: str) -> None:
    assert filtered(text.encode()) == text.encode()


@pytest.mark.parametrize(
    "drawing",
    [
        b"\x1b[H\x1b[2J\x1b[1;31mred\x1b[0m",
        b"\x1b[38;2;1;2;3mtrue\x1b[38:5:9mcolour\x1b[m",
        b"\x1b[?1049h\x1b[?25l\x1b[2;5r\x1b[5;1Htop\x1b[?1049l\x1b[?25h",
        b"\x1b7\x1b[10;1Hx\x1b8\x1b[K\x1b[3P\x1b[2@\x1b[4X\x1b[1L\x1b[1M",
        b"\x1b(0lqqk\x1b(B\x0e\x0f\x08\t\x07",
        b"\x1b[?2004h$ \x1b[?2004l\x1b[4h\x1b[4l\x1b[!p\x1b[4 q",
    ],
)
def test_drawing_passes_unchanged(drawing: bytes) -> None:
    assert filtered(drawing) == drawing


def test_a_full_reset_becomes_a_gentle_one() -> None:
    assert filtered(b"\x1bc") == b"\x1b[!p\x1b[m\x1b[H\x1b[2J"


def test_bytes_that_are_no_utf8_are_marked() -> None:
    assert filtered(b"caf\xe9 \x9b6n").decode() == "caf\ufffd \ufffd6n"


def test_an_unfinished_string_does_not_swallow_the_console_for_ever() -> None:
    shown = filtered(b"\x1b]0;", b"x" * LONGEST_STRING, b"visible again")
    assert shown == b"xxvisible again"
    assert filtered(b"\x1b]0;half a title", b"\r\nlogin: ") == b"\r\nlogin: "


def test_coloured_text_is_looked_at_once() -> None:
    coloured = "\x1b[m\x1b[1;38;5;208mword\x1b[0m \x1b[38:2::1:2:3mmore\r\n" * 50
    token = TOKEN.match(coloured)
    assert token is not None
    assert token[0] == coloured
    assert filtered(b"\x1b[99999m\x1b[" + b"1;" * 20 + b"m") == b"\x1b[" + b"1;" * 20 + b"m"


def test_an_endless_sequence_is_not_kept() -> None:
    output = HarmlessOutput()
    for _ in range(1000):
        assert_harmless(output.feed(b"\x1b[" + b"1;" * 500))


CURSOR_STYLE = "12"
"""Ends with `ESC [ 0 SP q`, which GuestScreen knows nothing of."""
LASTING = [
    *(f"\x1b[?{mode}{on}" for mode in sorted(PRIVATE_MODES - {CURSOR_STYLE}) for on in "hl"),
    *(f"\x1b[{mode}h" for mode in sorted(MODES)),
    *(f"\x1b{escape}" for escape in sorted(ESCAPES)),
    *("\x0e", "\x1b[2;3r", "\x1b[1;31;42m", "\x1b[2;3H\x1b[3;4r"),
]


def state(screen: GuestScreen) -> dict[str, object]:
    """All that lasts of a screen, but for what it shows and where the cursor is."""
    names = ["mode", "private_modes", "margins", "charset", "g0_charset", "g1_charset", "is_alternate"]
    state = {name: getattr(screen, name) for name in names}
    return state | {"look": screen._look, "hidden": screen.cursor.hidden}


@pytest.mark.parametrize("lasting", LASTING, ids=repr)
def test_whatever_passes_and_lasts_is_undone(lasting: str) -> None:
    screen = GuestScreen(20, 5)
    interpreter = Interpreter(screen)
    shown = HarmlessOutput().feed(f"$ {lasting}".encode())
    assert shown == f"$ {lasting}".encode()
    interpreter.feed(shown + TIDY)
    # The second set of a pyte that has just begun draws lines; that of xterm does not.
    assert state(screen) == state(GuestScreen(20, 5)) | {"g1_charset": LAT1_MAP}


def test_what_undoes_passes() -> None:
    for words in (TIDY, TIDY + ON_THE_NEXT_LINE):
        assert HarmlessOutput().feed(words) == words


@pytest.mark.parametrize(
    ("shown", "undone"),
    [
        (b"", b""),
        (b"login: ", TIDY),
        (b"\x1b[?1049hvi", TIDY + ON_THE_NEXT_LINE),
        (b"\x1b[?25;1047;7hvi\x1b[?25l", TIDY + ON_THE_NEXT_LINE),
        (b"\x1b[?1049hvi\x1b[?1049l$ ", TIDY),
        (b"\x1b[?49hvi", TIDY),
        (b"login: " + TIDY, b""),
        (b"\x1b[?47hvi" + TIDY + ON_THE_NEXT_LINE, b""),
    ],
    ids=repr,
)
def test_undoing_what_was_shown(shown: bytes, undone: bytes) -> None:
    assert tidying(shown) == undone


def test_what_comes_after_a_program_in_the_other_screen_is_shown_below_the_first() -> None:
    screen = GuestScreen(20, 4)
    interpreter = Interpreter(screen)
    shown = b"one\r\ntwo\r\n$ \x1b[?1049h\x1b[2J\x1b[1;1H~ vi\x1b[1;1H"
    interpreter.feed(shown + tidying(shown) + b"boot")
    lines = [text_of(screen.line(number)).rstrip() for number in range(screen.first, screen.end)]
    assert lines == ["one", "two", "$", "", "boot"]
