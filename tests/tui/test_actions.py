"""Actions of the TUI that ask at most whether they are meant: what they ask, and what the database holds."""

from __future__ import annotations

import pytest
from textual.widgets import Input

from appliance.tui.actions import Ask
from tests.support.tui import Seat, seated, twin_words
from tests.support.tui_deeds import DEEDS, Deed
from tests.support.tui_office import Office, comparable, nothing_changes


async def refuse(seat: Seat) -> None:
    """Say no to what is asked."""
    with nothing_changes(seat.office):
        await seat.press("escape")
        await seat.answered()
    assert seat.log == []


async def agree(seat: Seat, deed: Deed, names: tuple[str, ...]) -> None:
    """Say yes to what is asked, with the word that is wanted if there is one."""
    if deed.what.ask is not Ask.TYPED:
        await seat.press("y")
        return
    word = names[0] if len(names) == 1 else str(len(names))
    with nothing_changes(seat.office):
        await seat.write(word[:-1] + "x")
        await seat.press("enter")
        await seat.settle()
    assert seat.asks, "a wrong word was enough"
    seat.app.screen.query_one(Input).value = ""
    await seat.write(word)
    await seat.press("enter")


@pytest.mark.parametrize("deed", DEEDS, ids=lambda deed: f"{deed.pane}-{deed.action}")
async def test_an_action_does_what_it_says_to_whom_it_says(deed: Deed, office: Office, copy: Office) -> None:
    for place in (office, copy):
        deed.prepare(place)
    everybody = {deed.one, *deed.rows}
    before, first_event = deed.reached(office, everybody), office.newest_event
    assert deed.one not in before
    async with seated(office, deed.pane) as seat:
        await seat.point(deed.one)
        if deed.what.ask in {Ask.ALWAYS, Ask.TYPED}:
            await seat.press(deed.what.key)
            await seat.asked()
            assert deed.what.title in seat.text
            assert f"$ qa {deed.what.noun if deed.action[:5] != 'image' else 'di'} " in seat.text
            await refuse(seat)
            await seat.press(deed.what.key)
            await seat.asked()
            await agree(seat, deed, (deed.one,))
        else:
            await seat.press(deed.what.key)
        line = await seat.done()
        assert line.ok, line
        assert deed.reached(office, everybody) == before | {deed.one}

        await seat.press("escape")
        await seat.mark(*deed.rows)
        await seat.press(deed.what.key)
        if deed.what.ask is not Ask.NEVER and (len(deed.fit) > 1 or deed.what.ask is not Ask.SEVERAL):
            await seat.asked()
            left_out = len(deed.rows) - len(deed.fit)
            said = f"{left_out} chosen row{'s' if left_out > 1 else ''} left out"
            assert (said in seat.text) == bool(left_out), seat.text
            with nothing_changes(office):
                await seat.press("escape")
                await seat.answered()
            assert len(seat.marked) == len(deed.rows), "who says no keeps the marks"
            await seat.press(deed.what.key)
            await seat.asked()
            await agree(seat, deed, deed.fit)
        line = await seat.done(2)
        assert line.ok, line
        assert deed.reached(office, everybody) == before | {deed.one, *deed.fit}
        await seat.until(lambda: not seat.marked)
        twins = [twin_words(each) for each in seat.log]
    for words in twins:
        await copy.elsewhere(*words)
    assert comparable(office.tables()) == comparable(copy.tables())
    told = office.events(first_event)
    ours = [by for by, what, _ in told if what.split()[0] == twins[0][0] and what.split()[1] == twins[0][1]]
    assert ours, told
    assert all(by.startswith("tui:") for by in ours)
