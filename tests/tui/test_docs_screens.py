"""The pictures in the documents are what the program draws; `pytest --snapshot-update` draws them anew."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.tui_scenes import IN_DOCS, Scene, named, played
from tests.support.tui_svg import drawn

pytestmark = pytest.mark.usefixtures("in_utc", "plain_terminal", "own_folder", "garbage_later")
ROOT = Path(__file__).parents[2]
SCREENS = ROOT / "docs" / "screens"
SHOWN = re.compile(r"!\[[^\]]*\]\(([^)]*screens/[^)]+)\)")


@pytest.fixture
def scene(name: str) -> Scene:
    """The scene of a picture."""
    return named(IN_DOCS[name][0])


@pytest.mark.parametrize("name", IN_DOCS)
@pytest.mark.usefixtures("installation")
async def test_the_screens_in_the_documents_are_those_of_the_program(
    name: str, scene: Scene, request: pytest.FixtureRequest
) -> None:
    file = SCREENS / f"{name}.svg"
    size = IN_DOCS[name][1]
    async with played(scene, size) as stage:
        await stage.picture()
        picture = drawn(stage.app, "qvd-tui")
    if request.config.getoption("update_snapshots"):
        file.parent.mkdir(exist_ok=True)
        file.write_text(picture, encoding="utf-8")
    assert file.read_text(encoding="utf-8") == picture
    assert "@font-face" not in picture


def test_documents_show_all_screens_and_no_others() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    shown = {(page.parent / target).resolve() for page in pages for target in SHOWN.findall(page.read_text())}
    assert shown == {SCREENS / f"{name}.svg" for name in IN_DOCS}
    assert shown == set(SCREENS.iterdir())
