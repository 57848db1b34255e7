"""Guests that reboot themselves."""

from __future__ import annotations

import asyncio
import json
import subprocess

import pytest

from appliance.runtime import lxc_config, lxc_process
from appliance.runtime.cgroups import Cgroups
from tests.support.contract import ONE
from tests.support.lxc_guests import LONGEST_S, departed, is_reached, make_root, rebooted
from tests.support.lxc_rig import Site
from tests.support.typist import typist

pytestmark = pytest.mark.host


REBOOTS = """#!/bin/sh
[ -e /home/reboot ] || exec /bin/busybox init
sleep 0.3
/bin/busybox reboot -f
"""


def is_isolated(link: str) -> bool:
    """Whether there is such a port of a bridge, and it speaks to the bridge alone."""
    shown = subprocess.run(
        ["bridge", "-d", "-j", "link", "show", "dev", link], capture_output=True, text=True, check=False
    )
    return shown.returncode == 0 and all(port["isolated"] for port in json.loads(shown.stdout))


async def test_a_guest_that_does_nothing_else_is_ended(site: Site) -> None:
    await site.connect()
    rig = site.rig()
    guest = rig.guest()
    await make_root(rig, REBOOTS)
    await rig.fences.fence(guest)
    await rig.backend.define(guest)
    await rig.backend.launch(ONE)
    (site.paths.homefs(ONE) / "reboot").touch()
    async with typist(rig.backend, ONE) as desk:
        desk.send("reboot\n")
    assert await departed(rig) == ONE
    assert lxc_process.find_all(site.installation) == {}
    await rig.remove(ONE)


async def test_a_guest_that_rebooted_is_as_confined_as_before(site: Site) -> None:
    await site.connect()
    rig = site.rig()
    guest = await rig.start()
    groups = Cgroups(site.paths.cgroup)
    assert is_isolated(guest.interface)
    async with asyncio.TaskGroup() as tasks:
        following = tasks.create_task(departed(rig))
        after = await rebooted(rig, site)
        assert after.init is not None
        assert groups.unmet(after.init, lxc_config.limits(guest, groups.layout())) == []
        async with asyncio.timeout(LONGEST_S):
            while not is_isolated(guest.interface):
                await asyncio.sleep(0.01)
        assert is_reached(str(guest.address.ip))
        assert not following.done()
        await rig.backend.kill(ONE)


async def test_one_that_comes_back_without_a_limit_is_ended(site: Site) -> None:
    await site.connect()
    rig = site.rig()
    await rig.start()
    config = site.paths.lxc / lxc_config.name(site.installation, ONE) / "config"
    config.write_text(config.read_text().replace("pids.max = 500", "pids.max = 400"))
    async with asyncio.TaskGroup() as tasks:
        following = tasks.create_task(departed(rig))
        async with typist(rig.backend, ONE) as desk:
            desk.send("reboot\n")
        assert await following == ONE
