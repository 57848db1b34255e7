"""Everybody on the new image by Saturday: twelve desktops, four people connected."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.images import Variants
from tests.support.story import story, tell

pytestmark = [pytest.mark.host, pytest.mark.timeout(900)]


def test_everybody_is_on_the_new_image_by_saturday(tmp_path: Path, variants: Variants) -> None:
    with story(tmp_path / "trial", variants, desktops=12, connected=4) as made:
        tell(made, print)
