"""The laws of a VM's life hold for virtual machines."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.support.kvm_rig import Site
from tests.support.life_cycle import Life, LifeCycle
from tests.support.live_host import Machines, live
from tests.support.traces import traces

pytestmark = pytest.mark.kvm


class TestKvm(LifeCycle):
    @pytest.fixture
    def clean(self, site: Site) -> Iterator[None]:
        yield
        assert traces(site.installation) == []

    @pytest.fixture
    async def life(self, tiny: Path, site: Site, clean: None, images: dict[str, Path]) -> AsyncIterator[Life]:
        settings = site.settings
        async with live(Machines, site.installation, settings, answers=tiny, mute=images["deaf"]) as made:
            yield made
