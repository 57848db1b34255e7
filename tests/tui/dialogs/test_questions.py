"""Questions before something is done: whom it hits, what it costs, and how they are answered."""

from __future__ import annotations

import pytest

from tests.support.dialog_calls import (
    stop,
)
from tests.support.dialogs import acting


async def test_a_question_says_whom_what_it_costs_and_the_command() -> None:
    async with acting(stop()) as actor:
        for text in (
            "web-1, web-2, web-3",
            "alice is connected",
            "$ qa vm stop -f 'name in (",
            "Stop 3 desktops",
        ):
            assert actor.shows(text)
        await actor.press("enter")
        assert await actor.done() is True


async def test_a_dangerous_question_is_not_answered_by_a_hasty_enter() -> None:
    async with acting(stop(dangerous=True)) as actor:
        await actor.press("enter")
        assert await actor.done() is False
    async with acting(stop(dangerous=True)) as actor:
        await actor.press("right", "enter")
        assert await actor.done() is True


@pytest.mark.parametrize(("key", "answer"), [("y", True), ("n", False), ("escape", False)])
async def test_a_question_is_answered_by_a_key(key: str, answer: bool) -> None:
    async with acting(stop(dangerous=True)) as actor:
        await actor.press(key)
        assert await actor.done() is answer


async def test_what_cannot_be_undone_is_typed() -> None:
    async with acting(stop(typed="39")) as actor:
        await actor.write("3")
        await actor.press("enter")
        await actor.press("tab", "y")
        assert not actor.stage.is_done, "neither Enter nor y is enough"
        await actor.press("shift+tab", "end")
        await actor.write("9")
        await actor.press("enter")
        assert await actor.done() is True


async def test_many_are_counted() -> None:
    async with acting(stop(whom=[f"web-{number}" for number in range(2000)])) as actor:
        assert actor.shows("and 1,976 more")
        assert actor.shows("Cancel")
