"""What `qa` says of an image without a login at its console, and what it reads of a guest that runs."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from appliance.storage.guest_files import GuestFiles
from tests.support.contract import ONE, Rig
from tests.support.lxc_rig import Site
from tests.support.pool import tiny_root
from tests.support.qa import Installation

pytestmark = pytest.mark.host

WARNING = (
    "Warning: the image has no login on tty1, so the consoles of its desktops stay silent: its /etc/inittab "
    "starts none there (add the line tty1::respawn:/sbin/getty -L tty1 115200 xterm)\n"
)
COMMANDS = """
mkdir -p /var/log
echo from inside >/var/log/messages
echo of her own >/home/notes
ln -s /home/notes /var/log/notes
ln -s /dev/console /var/log/console
echo hidden >/tmp/x
touch /var/log/done
"""


def test_an_image_without_a_login_is_added_with_a_warning(on_btrfs: Installation, tmp_path: Path) -> None:
    qa = on_btrfs
    qa.ok("osf", "add", "name=desktop")
    with_one = tiny_root(tmp_path / "with.tar.gz")
    assert "Warning" not in qa.ok("di", "add", f"path={with_one}", "osf=desktop").err
    without = tiny_root(tmp_path / "without.tar.gz", inittab="::sysinit:/bin/true\n")
    said = qa.ok("di", "add", f"path={without}", "osf=desktop", "version=dark")
    assert said.err.endswith(WARNING)
    assert said.out == "DI added with id 2\n"
    assert [di["version"] for di in qa.listed("di", "tag=head")] == ["dark"], "it is no refusal"
    assert (qa.storage / "basefs/2/sbin/init").is_symlink()


def test_an_image_that_comes_from_another_box_is_looked_at_as_well(
    on_btrfs: Installation, tmp_path: Path
) -> None:
    qa = on_btrfs
    qa.ok("osf", "add", "name=desktop")
    without = tiny_root(tmp_path / "without.tar.gz", inittab="::sysinit:/bin/true\n")
    qa.ok("di", "add", f"path={without}", "osf=desktop", "version=dark")
    qa.ok("di", "export", "di_id=1", f"path={tmp_path / 'dark.tar'}")
    said = qa.ok("di", "import", f"path={tmp_path / 'dark.tar'}", "osf=desktop", "version=again")
    assert WARNING in said.err


async def test_files_of_a_guest_that_runs_are_read_on_the_host(site: Site) -> None:
    rig: Rig = site.rig()
    await site.connect()
    await rig.start()
    files = GuestFiles(site.paths.rootfs(ONE), site.paths.homefs(ONE))
    line = rig.backend.console(ONE)
    descriptor = await line.open()
    try:
        os.write(descriptor, COMMANDS.encode())
        async with asyncio.timeout(20):
            while not (site.paths.rootfs(ONE) / "var/log/done").exists():
                await asyncio.sleep(0.05)
        assert files.tail("/var/log/messages").data == b"from inside\n"
        assert files.tail("/var/log/notes").data == b"of her own\n", "the home is bound over /home"
        assert {log.path for log in files.logs()[0]} == {"/var/log/messages", "/var/log/done"}
        with pytest.raises(Exception, match="/dev is in the guest's memory"):
            files.tail("/var/log/console")
        with pytest.raises(Exception, match="/tmp is in the guest's memory"):
            files.tail("/tmp/x")
        assert files.tail("/etc/hostname").data == b"desk1\n"
    finally:
        os.close(descriptor)
        line.close()
        await rig.remove(ONE)
