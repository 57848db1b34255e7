"""A screen as a picture for documents: it loads nothing, and where nothing changed, neither do its lines."""

from __future__ import annotations

import re
from typing import Any

from textual.app import App

FONTS = "ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace"
FONT_FACE = re.compile(r"\s*@font-face \{.*?\n    \}", re.DOTALL)
FAMILY = re.compile(r"font-family: [^;]+;")
CLIPPED = re.compile(r' clip-path="url\(#\S+-line-\d+\)"')
CLIPS = re.compile(r'<clipPath id="\S+-line-\d+">.*?</clipPath>\s*', re.DOTALL)
GROUND = re.compile(
    r'<rect fill="(\S+)" x="(\S+)" y="(\S+)" width="(\S+)" height="(\S+)" shape-rendering="\S+"/>'
)
GROUNDS = re.compile(rf"(?:{GROUND.pattern})+")
OWN_NAME = re.compile(r"terminal-\d+")


def drawn(app: App[Any], title: str) -> str:
    """What an app shows now, as an SVG document."""
    picture = app.export_screenshot(title=title, simplify=True)
    picture = CLIPS.sub("", CLIPPED.sub("", FONT_FACE.sub("", picture)))
    picture = GROUNDS.sub(lambda found: _merged(found[0]), picture)
    picture = OWN_NAME.sub("t", FAMILY.sub(f"font-family: {FONTS};", picture))
    picture = picture.replace("&#160;", "\N{NO-BREAK SPACE}")
    return "\n".join(line.rstrip(" ") for line in picture.splitlines()) + "\n"


def _merged(rectangles: str) -> str:
    """Neighbours of one colour as one rectangle, a line each."""
    merged: list[tuple[str, float, str, float, str]] = []
    for fill, x, y, width, height in GROUND.findall(rectangles):
        left, wide = float(x), float(width)
        if merged and (merged[-1][0], merged[-1][2]) == (fill, y) and _touch(merged[-1], left):
            left, wide = merged[-1][1], merged.pop()[3] + wide
        merged.append((fill, left, y, wide, height))
    crisp = 'shape-rendering="crispEdges"'
    return "\n".join(
        f'<rect fill="{fill}" x="{left:g}" y="{y}" width="{wide:g}" height="{height}" {crisp}/>'
        for fill, left, y, wide, height in merged
    )


def _touch(before: tuple[str, float, str, float, str], left: float) -> bool:
    return abs(before[1] + before[3] - left) < 0.1
