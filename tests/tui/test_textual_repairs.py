"""Repairs of Textual do what they say, and are still needed."""

from __future__ import annotations

import errno
import gc
import io
import threading

import pytest
from textual._styles_cache import StylesCache
from textual.app import App
from textual.drivers import linux_driver
from textual.drivers._writer_thread import MAX_QUEUED_WRITES, WriterThread
from textual.widgets import Static

from appliance.tui.textual_repairs import LastingWriter, forget_removed_widgets, write_on_without_terminal


class Empty(App[None]):
    """Nothing."""


def alive() -> int:
    """How many widgets' drawings are remembered."""
    gc.collect()
    return sum(isinstance(each, StylesCache) for each in gc.get_objects())


async def test_widgets_that_are_gone_are_forgotten() -> None:
    forget_removed_widgets()
    forget_removed_widgets()
    app = Empty()
    async with app.run_test() as pilot:
        before = alive()
        for number in range(20):
            widget = Static(f"number {number}")
            await app.mount(widget)
            await pilot.pause()
            assert widget._styles_cache._cache
            await widget.remove()
        del widget
        await pilot.pause()
        assert alive() <= before + 2


async def test_the_colours_are_the_same() -> None:
    from textual.color import Color

    forget_removed_widgets()
    inner, outer = StylesCache().get_inner_outer(Color(10, 20, 30), Color(100, 0, 0, 0.5))
    assert inner.background == Color(10, 20, 30) + Color(100, 0, 0, 0.5)
    assert outer.background == Color(10, 20, 30)


class HungUp(io.StringIO):
    """A terminal that somebody has closed, after some writes."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self._left = after

    def write(self, text: str) -> int:
        self._left -= 1
        if self._left < 0:
            raise OSError(errno.EIO, "Input/output error")
        return super().write(text)

    def flush(self) -> None:
        if self._left < 0:
            raise OSError(errno.EIO, "Input/output error")


def test_who_writes_to_a_closed_terminal_does_not_wait() -> None:
    write_on_without_terminal()
    file = HungUp(after=2)
    writer = vars(linux_driver)["WriterThread"](file)
    assert isinstance(writer, LastingWriter)
    writer.start()

    def write_much_and_stop() -> None:
        for _ in range(3 * MAX_QUEUED_WRITES):
            writer.write("x")
        writer.stop()

    person = threading.Thread(target=write_much_and_stop, daemon=True)
    person.start()
    person.join(10)
    assert not person.is_alive()
    assert not writer.is_alive()
    assert file.getvalue() == "xx"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_textuals_own_writer_still_ends_there() -> None:
    writer = WriterThread(HungUp(after=0))
    writer.start()
    writer.write("x")
    writer.join(10)
    assert not writer.is_alive(), "or the repair is not needed any more"
