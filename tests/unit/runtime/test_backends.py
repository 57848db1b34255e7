"""The backends that need no hypervisor keep the contract."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.model import InstallationId, VmId
from appliance.runtime.nothing import Nothing
from tests.support.contract import BackendContract, Rig
from tests.support.fake_backend import FakeBackend

INSTALLATION = InstallationId("0a1b2c3d")


class TestFake(BackendContract):
    @pytest.fixture
    def rig(self) -> Rig:
        fake = FakeBackend()

        async def end(vm_id: VmId) -> None:
            fake.depart(vm_id)

        return Rig(
            backend=fake,
            disks=fake,
            fences=fake,
            installation=INSTALLATION,
            end=end,
            has_console=True,
            keeps_homes=True,
        )


class TestNothing(BackendContract):
    @pytest.fixture
    async def rig(self, tmp_path: Path) -> Rig:
        nothing = Nothing(tmp_path, INSTALLATION)
        await nothing.check()
        return Rig(
            backend=nothing,
            disks=nothing,
            fences=nothing,
            installation=INSTALLATION,
            end=None,
            has_console=False,
            keeps_homes=False,
        )
