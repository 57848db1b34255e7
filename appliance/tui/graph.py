"""Curves of shares over time, drawn with signs that fill a cell from below. Pure."""

from __future__ import annotations

from collections.abc import Sequence


def graph(history: Sequence[float], width: int, height: int, signs: str) -> list[str]:
    """The last of some shares, from 0 to 1, as lines of text from the top; the newest at the right.

    `signs` fill a cell by steps, from the least to the whole. Even the least one has a
    sign: it was measured.
    """
    shown = list(history)[-width:] if width > 0 else []
    steps = len(signs)
    filled = [max(1, round(min(max(share, 0.0), 1.0) * height * steps)) for share in shown]
    lines = []
    for row in range(height - 1, -1, -1):
        cells = [min(max(level - row * steps, 0), steps) for level in filled]
        lines.append("".join(signs[cell - 1] if cell else " " for cell in cells).rjust(width))
    return lines
