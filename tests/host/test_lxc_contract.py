"""Containers keep the contract, and leave nothing behind."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from appliance.runtime.lxc import Lxc
from tests.support.contract import BackendContract, Rig
from tests.support.lxc_rig import Site
from tests.support.traces import traces

pytestmark = pytest.mark.host


class TestLxc(BackendContract):
    @pytest.fixture
    def clean(self, site: Site) -> Iterator[None]:
        yield
        assert traces(site.installation) == []

    @pytest.fixture
    async def rig(self, site: Site, clean: None) -> AsyncIterator[Rig]:
        await site.connect()
        rig = site.rig()
        yield rig
        for vm_id in await rig.backend.survey():
            await rig.remove(vm_id)
        assert isinstance(rig.backend, Lxc)
        rig.backend.close()
