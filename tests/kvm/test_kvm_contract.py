"""Virtual machines keep the contract, and leave nothing behind."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from appliance.runtime.kvm import Kvm
from tests.support.contract import BackendContract, Rig
from tests.support.kvm_rig import Site
from tests.support.traces import traces

pytestmark = pytest.mark.kvm


class TestKvm(BackendContract):
    @pytest.fixture
    def clean(self, site: Site) -> Iterator[None]:
        yield
        assert traces(site.installation) == []

    @pytest.fixture
    async def rig(self, site: Site, clean: None) -> AsyncIterator[Rig]:
        await site.connect()
        rig = site.rig()
        assert isinstance(rig.backend, Kvm)
        await rig.backend.check()
        yield rig
        for vm_id in await rig.backend.survey():
            await rig.remove(vm_id)
        rig.backend.close()
