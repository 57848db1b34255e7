"""Scroll bars of whole cells: Textual's own end in eighths of a cell, which poor terminals cannot draw."""

from __future__ import annotations

from typing import ClassVar

from textual.scrollbar import ScrollBar, ScrollBarRender


class WholeCells(ScrollBarRender):
    """Bars that begin and end with a cell."""

    VERTICAL_BARS: ClassVar[list[str]] = [" "] * 8
    HORIZONTAL_BARS: ClassVar[list[str]] = [" "] * 8


def use_whole_cells() -> None:
    """Let all scroll bars of this process be of whole cells."""
    ScrollBar.renderer = WholeCells
