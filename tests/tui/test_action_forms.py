"""Actions of the TUI that open a form: what is wrong stays in the form, what is right is in the database."""

from __future__ import annotations

import pytest

from appliance.tui.dialogs.form import VerbForm
from tests.support.tui import Seat, seated, twin_words
from tests.support.tui_forms import FORMS, Answers, FormDeed
from tests.support.tui_office import Office, comparable, nothing_changes


async def fill(seat: Seat, answers: Answers) -> None:
    """Write answers, each in its field."""
    form = seat.app.screen
    assert isinstance(form, VerbForm)
    for name, text in answers.items():
        field = form.field(name)
        assert field is not None, f"nobody asks for {name}"
        field.answer.focus()
        field.answer.value = ""
        await seat.settle()
        await (seat.write(text) if field.question.tells_time else seat.paste(text))
        assert field.answer.value == text


async def submit(seat: Seat) -> None:
    """Send what is written, and wait until the form has done with it."""
    await seat.press("ctrl+s")
    await seat.until(
        lambda: all(worker.is_finished for worker in seat.app.workers if worker.group == "submit")
    )
    await seat.settle()


def complaints(seat: Seat) -> str:
    """All that a form says about what is written in it."""
    texts = [*seat.app.screen.query(".feedback"), *seat.app.screen.query("#problem .sentence")]
    return "\n".join(str(text.render()) for text in texts)


@pytest.mark.parametrize("deed", FORMS, ids=lambda deed: f"{deed.pane}-{deed.action}-{len(deed.rows)}")
async def test_a_form_sends_what_is_right_and_keeps_what_is_wrong(
    deed: FormDeed, office: Office, copy: Office
) -> None:
    first_event = office.newest_event
    assert office.sql(deed.found) != deed.expected
    async with seated(office, deed.pane) as seat:
        if deed.rows:
            await seat.choose(*deed.rows)
        with nothing_changes(office):
            await seat.press(deed.what.key)
            await seat.asked()
            await fill(seat, deed.answers)
            await seat.press("escape")
            await seat.answered()
        assert seat.log == []
        await seat.press(deed.what.key)
        await seat.asked()
        if deed.wrong:
            with nothing_changes(office):
                await fill(seat, deed.wrong)
                await submit(seat)
                assert deed.says in complaints(seat), complaints(seat)
            assert all(line.ok is False for line in seat.log), seat.log
            assert seat.asks, "what was written is gone"
            for name in deed.wrong.keys() - deed.answers.keys():
                await fill(seat, {name: ""})
        await fill(seat, deed.answers)
        await seat.press("ctrl+s")
        await seat.answered()
        line = await seat.done()
        assert line.ok, line
        assert not getattr(seat.table, "marks", None)
        assert office.sql(deed.found) == deed.expected
        twins = [twin_words(each) for each in seat.log if each.ok]
    if deed.has_twin:
        for words in twins:
            await copy.elsewhere(*words)
        assert comparable(office.tables()) == comparable(copy.tables())
    told = office.events(first_event)
    assert told
    assert all(by.startswith("tui:") for by, _, _ in told)
