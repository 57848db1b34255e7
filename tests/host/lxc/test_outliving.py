"""Guests outlive who launched them, and are taken over."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from appliance.errors import BackendError
from appliance.runtime import bridge, lxc_process
from appliance.runtime.lxc import Lxc
from tests.support import netns
from tests.support.contract import ONE
from tests.support.lxc_guests import departed, is_reached, processes
from tests.support.lxc_rig import Site
from tests.support.typist import typist

pytestmark = pytest.mark.host


def test_a_guest_outlives_the_kill_of_its_launcher_and_is_adopted(site: Site) -> None:
    child = os.fork()
    if child == 0:

        async def launch() -> None:
            await site.connect()
            await site.rig().start()
            os.kill(os.getpid(), signal.SIGKILL)

        try:
            asyncio.run(launch())
        finally:
            os._exit(1)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    before = processes(site)

    async def take_over() -> None:
        rig = site.rig()
        await rig.backend.check()
        sighting = (await rig.backend.survey())[ONE]
        assert sighting.mark == rig.guest().mark
        assert sighting.init_pid == before.init
        assert before.init is not None
        assert sighting.init_started == lxc_process.started(before.init)
        with pytest.raises(BackendError, match="already runs"):
            await rig.start()
        await rig.backend.adopt(rig.guest())
        assert processes(site) == before
        await rig.backend.kill(ONE)
        assert await departed(rig) == ONE

    asyncio.run(take_over())


def test_a_guest_is_taken_over_from_another_network_namespace(site: Site) -> None:
    async def begin() -> None:
        await site.connect()
        await site.rig().start()

    async def take_over() -> None:
        await site.connect()
        rig = site.rig()
        guest = rig.guest()
        sighting = (await rig.backend.survey())[ONE]
        assert (sighting.mark, sighting.init_pid) == (guest.mark, before.init)
        with pytest.raises(BackendError, match="already runs"):
            await rig.start()
        await rig.fences.fence(guest)
        assert not await bridge.exists(guest.interface)
        await rig.backend.adopt(guest)
        assert is_reached(str(guest.address.ip))
        async with typist(rig.backend, ONE) as desk:
            assert await desk.type("hostname") == guest.hostname
        assert processes(site) == before
        await rig.backend.kill(ONE)
        assert await departed(rig) == ONE
        await rig.remove(ONE)

    asyncio.run(begin())
    before = processes(site)
    with netns.namespace() as elsewhere, netns.entered(elsewhere):
        asyncio.run(take_over())


async def test_an_installation_sees_its_own_guests_only(site: Site) -> None:
    await site.connect()
    await site.rig().start()
    stranger = Lxc(site.paths, type(site.installation)("ffffffff"))
    assert await stranger.survey() == {}
    assert set(await site.backend().survey()) == {ONE}
