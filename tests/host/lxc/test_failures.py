"""Starts that fail, images that mean harm, and what is told of them."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path

import pytest

from appliance.errors import BackendError, ImageError
from appliance.runtime import lxc_config
from tests.support.contract import ONE
from tests.support.lxc_guests import LONGEST_S, departed
from tests.support.lxc_rig import Site
from tests.support.typist import typist

pytestmark = pytest.mark.host


async def test_a_root_without_init_is_the_images_fault(site: Site) -> None:
    rig = site.rig()
    guest = rig.guest()
    root = await rig.disks.clone_root(guest.mark, keep=False)
    (root / "sbin" / "init").unlink()
    with pytest.raises(ImageError, match="no /sbin/init"):
        await rig.backend.define(guest)


async def test_a_start_that_fails_says_why_and_leaves_nothing(site: Site) -> None:
    rig = site.rig()
    guest = rig.guest(bridge="nobridge")
    with pytest.raises(BackendError, match=r"did not start: .*(nobridge|network)"):
        await rig.start(guest)
    await rig.remove(ONE)


async def test_the_boot_log_is_harmless(site: Site) -> None:
    await site.connect()
    rig = site.rig()
    await rig.start()
    async with typist(rig.backend, ONE) as desk:
        await desk.type(r"echo -e 'red \033[31mred\033[0m \033]0;title\007bell\007 end' >/dev/console")
    async with asyncio.timeout(LONGEST_S):
        while "end" not in (last := await rig.backend.console_tail(ONE, 1)):
            await asyncio.sleep(0.01)
    assert last == "red red bell end"
    assert "the tiny root has booted" in await rig.backend.console_tail(ONE, 5)


async def test_the_login_has_one_holder(site: Site) -> None:
    await site.connect()
    rig, other = site.rig(), site.rig()
    await rig.start()
    await other.backend.adopt(other.guest())
    async with typist(rig.backend, ONE):
        with pytest.raises(BackendError, match="held by somebody else"):
            await other.backend.console(ONE).open()
    async with typist(other.backend, ONE) as desk:
        assert await desk.type("hostname") == "desk1"


async def test_an_orderly_stop_lets_init_finish(site: Site) -> None:
    await site.connect()
    rig = site.rig()
    await rig.start()
    await rig.backend.stop(ONE)
    assert await departed(rig) == ONE
    assert "The system is going down NOW!" in await rig.backend.console_tail(ONE, 20)


HOOK = b"#!/bin/sh\ntouch %b\n"


CONFIGURATION = """\
lxc.hook.pre-start = {marker}.sh
lxc.mount.entry = / mnt none bind 0 0
lxc.cap.keep = sys_admin
"""


async def test_nothing_that_an_image_holds_runs_on_the_host(site: Site, tmp_path: Path) -> None:
    """Programs and configurations where LXC, QVD (in extended images) and our own tools have theirs."""
    marker = tmp_path / "ran-on-the-host"
    hook, configuration = HOOK % bytes(marker), CONFIGURATION.format(marker=marker).encode()
    rig = site.rig()
    guest = rig.guest(keep_root=True)
    root = await rig.disks.clone_root(guest.mark, keep=False)
    for name in ("hooks/prestart", "hooks/poststart", "hooks/poststop", "usr/share/lxc/hooks/clonehostname"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(hook)
        (root / name).chmod(0o755)
    for name in ("lxc/config-extra", "lxc/fstab", "config", "etc/lxc/default.conf", "etc/lxc/lxc.conf"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(configuration)
    for program in ("sh", "mount", "nft", "ip", "setpriv", "unshare", "lxc-start"):
        (root / "usr" / "sbin").mkdir(exist_ok=True)
        (root / "usr" / "sbin" / program).write_bytes(hook)
        (root / "usr" / "sbin" / program).chmod(0o755)
    subprocess.run([root / "hooks" / "prestart"], check=True)
    marker.unlink()
    await site.connect()
    await rig.start(guest)
    written = (site.paths.lxc / lxc_config.name(site.installation, ONE) / "config").read_text()
    assert "hook" not in written
    assert "cap.keep" not in written
    async with typist(rig.backend, ONE) as desk:
        assert await desk.type("ls /mnt") == "ls: /mnt: No such file or directory"
    await rig.remove(ONE)
    assert not marker.exists()
