"""Containers as they really are: whatever a test leaves running is ended, and nothing of it may stay."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from tests.support.lxc_rig import Site
from tests.support.traces import traces


@pytest.fixture(autouse=True)
def nothing_is_left(site: Site) -> Iterator[None]:
    """Kill what a test left running, and see that nothing of it stays on the host."""

    async def clear() -> None:
        rig = site.rig()
        for vm_id in await rig.backend.survey():
            await rig.remove(vm_id)

    yield
    asyncio.run(clear())
    assert traces(site.installation) == []
