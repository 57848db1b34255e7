"""Words on a display: where they stand, and a click on one, as a person would."""

from __future__ import annotations

import csv
import subprocess
from pathlib import Path
from typing import NamedTuple

from scripts.trial import TESSERACT, output, take_picture


class Place(NamedTuple):
    """The middle of a word, in pixels."""

    x: int
    y: int


def places(picture: Path) -> dict[str, Place]:
    """The words in a picture and where they stand; of a word that stands there twice, the last."""
    table = output(*TESSERACT, str(picture), "-", "--psm", "11", "tsv")
    rows = csv.DictReader(table.splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE)
    return {
        word: Place(int(row["left"]) + int(row["width"]) // 2, int(row["top"]) + int(row["height"]) // 2)
        for row in rows
        if (word := (row["text"] or "").strip())
    }


def seen(display: str, picture: Path) -> dict[str, Place]:
    """The words on a display now, and where."""
    take_picture(display, picture)
    return places(picture)


def click(display: str, place: Place) -> None:
    """Press and release the left button there."""
    subprocess.run(
        ["xdotool", "mousemove", str(place.x), str(place.y), "click", "1"],
        env={"DISPLAY": display, "PATH": "/usr/bin:/bin"},
        check=True,
        capture_output=True,
        timeout=30,
    )
