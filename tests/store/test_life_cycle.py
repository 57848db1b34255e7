"""The laws of a VM's life hold for guests in memory, and for guests that somebody else runs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest
from sqlalchemy import update

from appliance.config import Settings
from appliance.model import BackendKind, VmId
from appliance.runtime.backend import Sighting
from appliance.runtime.nothing import Nothing
from appliance.storage.schema import osfs
from tests.support.host import INSTALLATION, Rig, rig
from tests.support.life_cycle import GRACE, SIGNAL, Life, LifeCycle

WAITS = {SIGNAL: "0.3", GRACE: "30"}


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Rig]:
    async with rig(tmp_path, desktops=2, mute=1) as made:
        made.settings = Settings({**made.settings.written, **WAITS})
        yield made


class TestFake(LifeCycle):
    @pytest.fixture
    def life(self, host: Rig) -> Life:
        fake = host.backend
        fake.deaf.add(VmId(2))

        async def seen() -> Mapping[VmId, Sighting]:
            return await fake.survey()

        async def end(vm_id: VmId) -> None:
            fake.depart(vm_id)

        def left() -> list[str]:
            return [f"VM {vm_id}" for vm_id in (*fake.roots, *fake.defined, *fake.fences)]

        return Life(host=host, seen=seen, left=left, end=end)


class TestNothing(LifeCycle):
    @pytest.fixture
    async def life(self, host: Rig, tmp_path: Path) -> Life:
        async with host.store.write() as tx:
            await tx.connection.execute(update(osfs).values(backend=BackendKind.NOTHING))

        async def seen() -> Mapping[VmId, Sighting]:
            return await Nothing(tmp_path, INSTALLATION).survey()

        def left() -> list[str]:
            return [file.name for file in (tmp_path / "nothing").iterdir()]

        return Life(host=host, seen=seen, left=left, end=None, obeys_at_once=True)
