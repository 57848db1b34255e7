"""The roots and homes of guests."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from tests.support.contract import ONE
from tests.support.lxc_rig import Site
from tests.support.typist import typist

pytestmark = pytest.mark.host


async def test_a_file_in_the_root_goes_and_one_in_the_home_stays(site: Site) -> None:
    await site.connect()
    rig = site.rig()
    await rig.start()
    async with typist(rig.backend, ONE) as desk:
        await desk.type("touch /var/root-file /home/home-file; chown 1000:1000 /home/home-file")
    on_disk = (site.paths.homefs(ONE) / "home-file").stat()
    assert (on_disk.st_uid, on_disk.st_gid) == (1000, 1000)
    assert (site.paths.rootfs(ONE) / "var" / "root-file").stat().st_uid == 0
    await rig.backend.kill(ONE)
    await rig.start()
    async with typist(rig.backend, ONE) as desk:
        assert await desk.type("ls /var /home") == "/home:\nhome-file\n\n/var:"


async def test_a_kept_root_keeps_its_files(site: Site) -> None:
    await site.connect()
    rig = site.rig()
    guest = rig.guest(keep_root=True)
    await rig.start(guest)
    async with typist(rig.backend, ONE) as desk:
        await desk.type("touch /var/root-file")
    await rig.backend.kill(ONE)
    await rig.start(guest)
    async with typist(rig.backend, ONE) as desk:
        assert await desk.type("ls /var") == "root-file"
        hosts = await desk.type("cat /etc/hosts")
    assert hosts.splitlines() == [
        "127.0.0.1\tlocalhost",
        "10.9.8.7\tprinter",
        "10.44.0.101\tdesk1.example.org desk1 # this desktop",
    ]


async def test_no_link_of_a_guest_leads_the_host_astray(site: Site, tmp_path: Path) -> None:
    await site.connect()
    rig = site.rig()
    guest = rig.guest(keep_root=True)
    await rig.start(guest)
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    async with typist(rig.backend, ONE) as desk:
        await desk.type(f"ln -sf {victim} /etc/hostname; ln -sf {victim} /etc/hosts")
        await desk.type(f"rm -f /etc/resolv.conf; ln -s {victim} /etc/resolv.conf")
    await rig.backend.kill(ONE)
    await rig.start(guest)
    assert victim.read_text() == "untouched"
    async with typist(rig.backend, ONE) as desk:
        assert await desk.type("cat /etc/hostname") == "desk1"
        assert await desk.type("cat /etc/resolv.conf") == "search example.org\nnameserver 10.44.0.1"


async def test_nobody_else_gets_to_the_roots(site: Site) -> None:
    for folder in (site.paths.all_rootfs, site.paths.all_homefs, site.paths.all_basefs):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
