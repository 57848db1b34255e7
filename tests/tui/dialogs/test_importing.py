"""Importing images: the staging directory, progress, and giving up."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from appliance.tui.calls import Caller, Outcome, Told
from tests.support.dialog_calls import (
    Recorder,
    importing,
    ready,
    staged,
    tags,
)
from tests.support.dialogs import acting
from tests.support.qa import Installation


async def test_an_image_is_imported_from_the_staging_directory(qa: Installation, call: Recorder) -> None:
    staged(qa, "office.tar")
    staged(qa, ".hidden")
    async with acting(importing(qa, call, proposed={"osf": "desktop"})) as actor:
        await actor.until(lambda: actor.shows("office.tar"))
        assert not actor.shows(".hidden")
        await actor.press("down")
        assert actor.shows("$ qa di add path=office.tar osf=desktop")
        await actor.press("enter")
        assert (await actor.done()).ok
    assert (await tags(qa)).keys() == {1}


async def test_an_image_that_is_none_is_refused_in_the_form(qa: Installation, call: Recorder) -> None:
    proposed = {"path": "/nowhere/x.tar", "osf": "desktop"}
    async with acting(importing(qa, call, proposed=proposed)) as actor:
        await actor.press("enter")
        await actor.until(lambda: actor.shows("There is no file /nowhere/x.tar"))
        assert (await ready(actor, "path")).text == "/nowhere/x.tar"
        assert actor.shows("Path"), "the form is back"
    assert await tags(qa) == {}


class Slow:
    """An import that waits in its middle until it may go on; all else is as ever."""

    def __init__(self, qa: Installation) -> None:
        self._caller = Caller(qa.config)
        self.may_go_on = asyncio.Event()
        self.cancelled = False

    async def __call__(
        self, words: Sequence[str], *, stdin: str = "", progress: Told | None = None
    ) -> Outcome:
        if progress is not None and "add" in words:
            progress("copying", 0.42)
            try:
                await self.may_go_on.wait()
            except asyncio.CancelledError:
                self.cancelled = True
                raise
        return await self._caller(words, stdin=stdin, progress=progress)


async def test_an_import_shows_how_far_it_is_and_can_be_cancelled(qa: Installation) -> None:
    staged(qa, "office.tar")
    slow = Slow(qa)
    async with acting(importing(qa, slow, proposed={"path": "office.tar", "osf": "desktop"})) as actor:
        await actor.press("enter")
        await actor.until(lambda: actor.shows("42%"))
        assert actor.shows("copying: 2 KiB of 6 KiB")
        await actor.press("shift+tab", "enter")
        await actor.until(lambda: actor.shows("The import was cancelled."))
        assert slow.cancelled
        assert not actor.stage.is_done
    assert await tags(qa) == {}


async def test_an_import_goes_on_without_its_dialog(qa: Installation) -> None:
    staged(qa, "office.tar")
    slow = Slow(qa)
    async with acting(importing(qa, slow, proposed={"path": "office.tar", "osf": "desktop"})) as actor:
        await actor.press("enter")
        await actor.until(lambda: actor.shows("42%"))
        await actor.press("escape")
        assert await actor.done() is None
        assert await tags(qa) == {}
        slow.may_go_on.set()
        await actor.until(lambda: bool(actor.stage.notices))
        assert actor.stage.notices == ["DI added with id 1"]
    assert (await tags(qa)).keys() == {1}
