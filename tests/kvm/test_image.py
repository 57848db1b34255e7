"""The built image as a machine: it boots by itself, answers, shows a console, keeps homes, ends when asked.

QEMU emulates: nothing here needs KVM.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.support.qemu_guest import QemuGuest, blank, overlay

pytestmark = [pytest.mark.kvm, pytest.mark.timeout(2400)]

ALICE = {
    "qvd.vm.user.name": "alice",
    "qvd.vm.user.uid": "2001",
    "qvd.vm.user.gid": "2001",
    "qvd.client.keyboard": "pc105/us",
    "qvd.client.os": "linux",
    "qvd.client.link": "lan",
    "qvd.client.geometry": "800x600",
    "qvd.client.fullscreen": "",
}
FOREIGN = {
    "mkfs.ext4 -q -F /dev/vdb 2>&1": "holds ext4",
    "wipefs -q -a /dev/vdb; echo type=83 | sfdisk -q /dev/vdb": "no file system that is known",
    "wipefs -q -a /dev/vdb; echo secret | dd of=/dev/vdb bs=1k seek=9 2>&1": "is not blank",
}
BLANK = "head -c 1M /dev/zero >/dev/vdb"
INTERRUPTED = "addpart /dev/vdb 1 2048 40000; mkfs.ext4 -q -F /dev/vdb1"
"""What an attempt that was killed before it wrote the partition table has left."""
DELETED_MIB = 20


def test_a_machine_from_boot_to_power_off_and_its_home_in_the_next(kvm_image: Path, tmp_path: Path) -> None:
    as_built = kvm_image.stat().st_mtime_ns
    root = overlay(kvm_image, tmp_path / "root.qcow2", "5G")
    home = blank(tmp_path / "home.qcow2", "64M")

    with QemuGuest(tmp_path, root, home=home, host_name="alices-desktop") as guest:
        guest.boots()
        assert "alices-desktop login:" in guest.says("login:", "# ")
        assert_knows_itself(guest)
        for make, reason in FOREIGN.items():
            assert_is_left_alone(guest, make, reason)
        guest.shell(BLANK)
        guest.shell(INTERRUPTED)
        open_desktop(guest)
        assert guest.shell("findmnt -n -o SOURCE,FSTYPE /home").split() == ["/dev/vdb1", "ext4"]
        assert guest.shell("stat -c '%u %g %a' /home/alice") == "2001 2001 700"
        guest.shell("su alice -c 'echo kept > ~/file'")
        assert_gives_room_back(guest, home)
        guest.press_power()
        assert guest.has_ended() == 0

    grow = ["qemu-img", "resize", "-q", str(home), "128M"]
    subprocess.run(grow, check=True, timeout=60)
    with QemuGuest(tmp_path, overlay(kvm_image, tmp_path / "fresh.qcow2"), home=home) as guest:
        guest.boots()
        guest.says("login:", "# ")
        guest.shell("tune2fs -E force_fsck /dev/vdb1")
        open_desktop(guest)
        assert guest.shell("tune2fs -l /dev/vdb1 | grep state:").split() == ["Filesystem", "state:", "clean"]
        assert guest.shell("cat /home/alice/file; stat -c %u /home/alice/file").split() == ["kept", "2001"]
        assert int(guest.shell("df -m --output=size /home | tail -n 1")) > 100
        assert guest.call("poweroff") == 0
        assert guest.has_ended() == 0
    assert kvm_image.stat().st_mtime_ns == as_built


def assert_knows_itself(guest: QemuGuest) -> None:
    """Init, name and resolver are there, no unit has failed, and the root fills its larger disk."""
    assert guest.shell("cat /proc/1/comm") == "systemd"
    assert guest.shell("hostname") == "alices-desktop"
    assert "10.0.2.3" in guest.shell("cat /etc/resolv.conf")
    assert guest.shell("systemctl --failed --no-legend --plain --no-pager | cat") == ""
    size = "df -m --output=size / | tail -n 1"
    guest.until("the root has grown", lambda: int(guest.shell(size)) > 4600)


def assert_is_left_alone(guest: QemuGuest, make: str, reason: str) -> None:
    """A home disk that holds something is never formatted, and the desktop's failure says why."""
    guest.shell(f"{make}; sync")
    content = guest.shell("head -c 2M /dev/vdb | sha256sum")
    since = len(guest.serial())
    guest.call("x_start", ALICE)
    guest.says("cannot start", reason, since=since)
    guest.until("the launch has failed", lambda: guest.call("x_state") == "stopped")
    assert guest.shell("head -c 2M /dev/vdb | sha256sum") == content


def open_desktop(guest: QemuGuest) -> None:
    guest.call("x_start", ALICE)
    guest.until("nxagent listens", lambda: guest.call("x_state") == "listening")


def assert_gives_room_back(guest: QemuGuest, home: Path) -> None:
    """What is deleted in a home is the host's again."""

    def allocated() -> int:
        return home.stat().st_blocks * 512 // 2**20

    guest.shell("sync")
    empty = allocated()
    guest.shell(f"dd if=/dev/urandom of=/home/alice/big bs=1M count={DELETED_MIB} 2>&1; sync")
    assert allocated() > empty + DELETED_MIB - 5
    guest.shell("rm /home/alice/big; sync")
    guest.until("the room is given back", lambda: allocated() < empty + 5)
