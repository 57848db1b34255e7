"""From the mouse to what a guest is sent; the expected bytes are those of xterm's ctlseqs."""

from __future__ import annotations

from typing import Any

import pytest
from textual import events

from appliance.tui.console.interpreter import Interpreter
from appliance.tui.console.mouse import Mouse
from appliance.tui.console.screen import GuestScreen

PRESSES, DRAGS, DECIMAL, OTHER_SCREEN = "\x1b[?1000h", "\x1b[?1002h", "\x1b[?1006h", "\x1b[?1049h"


def mouse_over(said: str, *, columns: int = 80, lines: int = 24) -> Mouse:
    """The mouse over the screen of a guest that has said something."""
    screen = GuestScreen(columns, lines)
    Interpreter(screen).feed(said.encode())
    return Mouse(screen)


def event(kind: type[events.MouseEvent], button: int = 0, **held: Any) -> events.MouseEvent:
    return kind(None, 0, 0, 0, 0, button, *(held.get(key, False) for key in ("shift", "meta", "ctrl")))


def down(button: int = 1, **held: Any) -> events.MouseEvent:
    return event(events.MouseDown, button, **held)


def up(button: int = 1, **held: Any) -> events.MouseEvent:
    return event(events.MouseUp, button, **held)


def move(button: int = 0, **held: Any) -> events.MouseEvent:
    return event(events.MouseMove, button, **held)


WHEEL_UP, WHEEL_DOWN = event(events.MouseScrollUp), event(events.MouseScrollDown)


@pytest.mark.parametrize(
    ("what", "sent"),
    [
        (down(1), b"\x1b[<0;5;3M"),
        (up(1), b"\x1b[<0;5;3m"),
        (down(2), b"\x1b[<1;5;3M"),
        (up(3), b"\x1b[<2;5;3m"),
        (down(1, ctrl=True), b"\x1b[<16;5;3M"),
        (down(1, meta=True), b"\x1b[<8;5;3M"),
        (WHEEL_UP, b"\x1b[<64;5;3M"),
        (WHEEL_DOWN, b"\x1b[<65;5;3M"),
        (move(1), b""),
    ],
    ids=str,
)
def test_a_guest_that_wants_presses_in_decimal(what: events.MouseEvent, sent: bytes) -> None:
    mouse = mouse_over(PRESSES + DECIMAL)
    assert mouse.is_for_guest(what)
    assert mouse.sent(what, 4, 2) == sent


@pytest.mark.parametrize(
    ("what", "sent"),
    [
        (down(1), b"\x1b[M \x25\x23"),
        (down(3), b"\x1b[M\x22\x25\x23"),
        (up(1), b"\x1b[M#\x25\x23"),
        (up(3, ctrl=True), b"\x1b[M\x33\x25\x23"),
        (WHEEL_DOWN, b"\x1b[M\x61\x25\x23"),
        (move(1), b"\x1b[M@\x25\x23"),
    ],
    ids=str,
)
def test_a_guest_that_wants_drags_in_bytes(what: events.MouseEvent, sent: bytes) -> None:
    assert mouse_over(DRAGS).sent(what, 4, 2) == sent


def test_a_drag_is_told_once_for_each_place_and_a_mere_move_never() -> None:
    mouse = mouse_over(DRAGS + DECIMAL)
    assert mouse.sent(down(1), 4, 2) == b"\x1b[<0;5;3M"
    assert mouse.sent(move(1), 4, 2) == b""
    assert mouse.sent(move(1), 5, 2) == b"\x1b[<32;6;3M"
    assert mouse.sent(up(1), 5, 2) == b"\x1b[<0;6;3m"
    assert mouse.sent(move(), 9, 9) == b""


def test_places_outside_of_the_guests_screen_are_told_as_its_edge() -> None:
    mouse = mouse_over(PRESSES + DECIMAL, columns=40, lines=10)
    assert mouse.sent(down(1), 60, 20) == b"\x1b[<0;40;10M"
    assert mouse.sent(up(1), -1, -1) == b"\x1b[<0;1;1m"


def test_a_place_that_no_byte_can_tell_is_not_told() -> None:
    mouse = mouse_over(PRESSES, columns=300)
    assert mouse.sent(down(1), 222, 0) == b"\x1b[M \xff!"
    assert mouse.sent(down(1), 223, 0) == b""


@pytest.mark.parametrize("said", ["", PRESSES + "\x1b[?1000l", DRAGS + "\x1b[!p", DECIMAL])
def test_a_guest_that_does_not_want_the_mouse_gets_none(said: str) -> None:
    mouse = mouse_over(said)
    assert not any(map(mouse.is_for_guest, (down(1), up(1), move(1), WHEEL_UP, WHEEL_DOWN)))


def test_with_shift_the_mouse_is_its_holders_own() -> None:
    mouse = mouse_over(DRAGS + OTHER_SCREEN)
    assert not any(map(mouse.is_for_guest, (down(1, shift=True), event(events.MouseScrollUp, shift=True))))


def test_a_pager_gets_cursor_keys_for_the_wheel() -> None:
    mouse = mouse_over(OTHER_SCREEN)
    assert not mouse.is_for_guest(down(1))
    assert mouse.is_for_guest(WHEEL_UP)
    assert mouse.sent(WHEEL_UP, 0, 0) == b"\x1b[A\x1b[A\x1b[A"
    mouse = mouse_over(OTHER_SCREEN + "\x1b[?1h")
    assert mouse.sent(WHEEL_DOWN, 0, 0) == b"\x1bOB\x1bOB\x1bOB"
