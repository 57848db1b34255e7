"""How every pane, dialog and line looks: kept as text, in every size, with colours and without.

`pytest --snapshot-update` writes the pictures anew; what is in a picture is a screen's characters, then the
style of each cell as a letter.
"""

from __future__ import annotations

import pytest
from syrupy.assertion import SnapshotAssertion

from appliance.tui.glyphs import ASCII
from tests.support.tui_picture import Picture
from tests.support.tui_scenes import ALL, SMALL, USUAL, Scene, played

ROUNDED = 3
"""By how much a grey may differ if it was mixed of greys, instead of made of the mixed colour."""
pytestmark = pytest.mark.usefixtures("in_utc", "plain_terminal", "own_folder", "garbage_later")


@pytest.mark.parametrize("scene", ALL, ids=str)
@pytest.mark.usefixtures("installation")
async def test_looks(scene: Scene, looks: SnapshotAssertion) -> None:
    differing = []
    async with played(scene) as stage:
        for size in scene.sizes:
            await stage.resize(size)
            picture = await stage.picture()
            assert [len(picture.strips), picture.strips[0].cell_length] == [size[1], size[0]]
            assert picture.text.isascii() or scene.setting.glyphs is not ASCII
            name = "x".join(map(str, size))
            if looks(name=name) != str(picture):
                differing.append(f"{scene} at {name} looks different:\n{picture.text}")
    assert not differing, "\n\n".join(differing)


def some(*names: str) -> pytest.MarkDecorator:
    """These scenes alone."""
    return pytest.mark.parametrize("scene", [scene for scene in ALL if scene.name in names], ids=str)


async def picture_of(scene: Scene) -> Picture:
    """A scene that begins at the usual size."""
    async with played(scene, USUAL) as stage:
        return await stage.picture()


@some("vms", "dashboard", "confirm-dangerous")
@pytest.mark.usefixtures("installation")
async def test_a_terminal_without_colours_gets_what_the_pictures_say(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    coloured = await picture_of(scene)
    monkeypatch.setenv("NO_COLOR", "1")
    shown = await picture_of(scene)
    assert shown.text == coloured.text
    assert shown.apart(coloured.without_colours()) <= ROUNDED
    assert shown.apart(coloured) > 10 * ROUNDED


@some("vms", "images", "tagging")
@pytest.mark.usefixtures("installation")
async def test_a_screen_that_was_resized_is_as_if_it_had_always_been_so(scene: Scene) -> None:
    async with played(scene, SMALL) as stage:
        await stage.picture()
        await stage.resize(USUAL)
        resized = await stage.picture()
    assert str(resized) == str(await picture_of(scene))


@some("details-of-desktop")
@pytest.mark.usefixtures("installation")
async def test_the_row_at_the_cursor_stays_in_sight_when_details_take_its_room(scene: Scene) -> None:
    async with played(scene, SMALL) as stage:
        assert any(line.startswith("▸ office-6") for line in (await stage.picture()).lines)
