"""The laws of a VM's life hold for containers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.support import lxc_rig
from tests.support.life_cycle import Life, LifeCycle
from tests.support.live_host import Containers, live
from tests.support.lxc_rig import Site
from tests.support.quick_guest import mute_image, quick_image
from tests.support.traces import traces

pytestmark = pytest.mark.host


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The guest that answers, and the one that is mute."""
    folder = tmp_path_factory.mktemp("archives")
    return quick_image(folder / "quick.tar.gz"), mute_image(folder / "mute.tar.gz")


class TestLxc(LifeCycle):
    @pytest.fixture
    def site(self, pool: Path, network: str, archives: tuple[Path, Path]) -> Iterator[Site]:
        with lxc_rig.site(pool, archives[0]) as made:
            yield made
        assert traces(made.installation) == []

    @pytest.fixture
    async def life(self, site: Site, archives: tuple[Path, Path]) -> AsyncIterator[Life]:
        answers, mute = archives
        async with live(Containers, site.installation, site.settings, answers=answers, mute=mute) as made:
            yield made
