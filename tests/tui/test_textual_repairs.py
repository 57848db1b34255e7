"""Repairs of Textual do what they say, and are still needed."""

from __future__ import annotations

import gc

from textual._styles_cache import StylesCache
from textual.app import App
from textual.widgets import Static

from appliance.tui.textual_repairs import forget_removed_widgets


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
