"""The checker of invariants names each kind of damage to virtual machines in a line."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from appliance.config import KVM_URI
from appliance.model import DiId, VmId
from tests.support.damages import Damages, left_behind, named_soon, tool
from tests.support.invariants import Grounds
from tests.support.machine_invariants import write_canary
from tests.support.machine_ordeal import machine_ordeal
from tests.support.ordeal import Ordeal

pytestmark = [pytest.mark.kvm, pytest.mark.timeout(300)]

CGROUPS = Path("/sys/fs/cgroup/cpu" if Path("/sys/fs/cgroup/cpu").is_dir() else "/sys/fs/cgroup")
DAMAGES = Damages()
ROW = "UPDATE vm_runtimes SET "

DAMAGES.rewritten(
    "VM 2 is to run, and its QEMUs are",
    f"{ROW} vm_state = 'running', vm_phase = 'running/monitoring' WHERE vm_id = 2",
    f"{ROW} vm_state = 'stopped', vm_phase = 'stopped' WHERE vm_id = 2",
)
DAMAGES.rewritten(
    "VM 1 runs under the mark of another",
    "UPDATE vms SET uuid = 'x' || uuid WHERE id = 1",
    "UPDATE vms SET uuid = substr(uuid, 2) WHERE id = 1",
)
DAMAGES.rewritten(
    "VM 1 runs on another root than 2-1-overlay.qcow2",
    f"{ROW} current_di_id = 2 WHERE vm_id = 1",
    f"{ROW} current_di_id = 1 WHERE vm_id = 1",
)
DAMAGES.rewritten(
    "VM 1 is to run, and its VMA does not answer",
    f"{ROW} vm_vma_port = 9 WHERE vm_id = 1",
    f"{ROW} vm_vma_port = 3030 WHERE vm_id = 1",
)
DAMAGES.rewritten(
    "VM 1 is stopped and runs: QEMUs",
    f"{ROW} vm_state = 'stopped', vm_phase = 'stopped' WHERE vm_id = 1",
    f"{ROW} vm_state = 'running', vm_phase = 'running/monitoring' WHERE vm_id = 1",
)
DAMAGES.rewritten(
    "libvirtd has a domain of VM 1, which does not run",
    f"{ROW} vm_state = 'stopped', vm_phase = 'stopped' WHERE vm_id = 1",
    f"{ROW} vm_state = 'running', vm_phase = 'running/monitoring' WHERE vm_id = 1",
)
DAMAGES.rewritten(
    "libvirtd does not know VM 2, which runs",
    f"{ROW} vm_state = 'running', vm_phase = 'running/monitoring' WHERE vm_id = 2",
    f"{ROW} vm_state = 'stopped', vm_phase = 'stopped' WHERE vm_id = 2",
)
DAMAGES.rewritten(
    "DI 1 is registered, and .* is not the archive that was hashed",
    "UPDATE dis SET sha256 = 'x' || sha256 WHERE id = 1",
    "UPDATE dis SET sha256 = substr(sha256, 2) WHERE id = 1",
)
DAMAGES.created("2-2-overlay.qcow2 belongs to no running VM", lambda on: on.paths.overlay(DiId(2), VmId(2)))
DAMAGES.created("half belongs to no running VM", lambda on: on.paths.overlays / ".2-2-overlay.qcow2.half")
DAMAGES.created("is kept and nobody knows of it", lambda on: on.paths.overlays / "2-20300131T180000Z.qcow2")
DAMAGES.created("is kept and nobody knows of it", lambda on: on.paths.homes / "2-home-20300131T180000Z.qcow2")
DAMAGES.created("the home .*/9-data.qcow2 belongs to nobody", lambda on: on.paths.home_disk(VmId(9)))
DAMAGES.created("kvm/2.xml is of no running guest", lambda on: on.paths.domain(VmId(2)))
DAMAGES.created("kvm/2 is of no running guest", lambda on: on.paths.sockets(VmId(2)), folder=True)
DAMAGES.created("rootfs/2.lock belongs to no running VM", lambda on: on.paths.root_lock(VmId(2)))
DAMAGES.created(
    "VM 2 does not run and has control groups",
    lambda on: CGROUPS / "machine" / f"qemu-99-qvd-{on.installation}-2.libvirt-qemu",
    folder=True,
)
DAMAGES.created(
    "VM 1 has control groups of two runs",
    lambda on: CGROUPS / "machine" / f"qemu-99-qvd-{on.installation}-1.libvirt-qemu",
    folder=True,
)


@DAMAGES.add("the root 1-1-overlay.qcow2 of a running VM is gone")
def _root(grounds: Grounds) -> Iterator[None]:
    overlay = grounds.paths.overlay(DiId(1), VmId(1))
    hidden = overlay.rename(overlay.with_name("hidden"))
    yield
    hidden.rename(overlay)


@DAMAGES.add("2-data.qcow2 is lost")
def _home(grounds: Grounds) -> Iterator[None]:
    disk = grounds.paths.home_disk(VmId(2))
    write_canary(disk, b"x" * 16)
    yield
    write_canary(disk, grounds.canaries[disk])


@DAMAGES.add("the home .*2-data.qcow2 has the mark of another")
def _home_of_another(grounds: Grounds) -> Iterator[None]:
    home = grounds.paths.home_disk(VmId(2))
    marks = {key: os.getxattr(home, key) for key in os.listxattr(home)}
    for key in marks:
        os.removexattr(home, key)
    yield
    for key, value in marks.items():
        os.setxattr(home, key, value)


@DAMAGES.add("guests are told the address 10.44.0.99, which is nobody's")
def _address(grounds: Grounds) -> Iterator[None]:
    hosts = grounds.paths.run / "dhcp-hostsfile"
    before = hosts.read_text()
    hosts.write_text(f"{before}54:52:00:2c:00:63,10.44.0.99,desk9,infinite\n")
    yield
    hosts.write_text(before)


@DAMAGES.add("the link qvd2 belongs to nobody")
def _tap(grounds: Grounds) -> Iterator[None]:
    tool("ip", "tuntap", "add", "qvd2", "mode", "tap")
    yield
    tool("ip", "link", "del", "qvd2")


DAMAGES.filtered("qvd2", "bridge")


@DAMAGES.add("libvirtd has a domain of VM 2, which does not run")
def _domain(grounds: Grounds) -> Iterator[None]:
    file = grounds.directory / "domain.xml"
    name = f"qvd-{grounds.installation}-2"
    file.write_text(
        f"<domain type='qemu'><name>{name}</name><memory unit='MiB'>16</memory>"
        "<os><type arch='x86_64' machine='pc'>hvm</type></os></domain>"
    )
    virsh = ("virsh", "--quiet", "--connect", grounds.settings[KVM_URI])
    tool(*virsh, "define", str(file))
    file.unlink()
    yield
    tool(*virsh, "undefine", name)


DAMAGES.started("process .* is left", left_behind)


@DAMAGES.add("VM 1 is doubled: QEMUs")
def _double(grounds: Grounds) -> Iterator[None]:
    with pretender(grounds, 1):
        yield


@DAMAGES.add("VM 2 is stopped and runs: QEMUs")
def _left_over(grounds: Grounds) -> Iterator[None]:
    with pretender(grounds, 2):
        yield


@DAMAGES.add("a QEMU runs as VM 9, of which there is no row")
def _rowless(grounds: Grounds) -> Iterator[None]:
    with pretender(grounds, 9):
        yield


@DAMAGES.add("write to one disk: .*1-1-overlay.qcow2")
def _shared(grounds: Grounds) -> Iterator[None]:
    with pretender(grounds, 9, grounds.paths.overlay(DiId(1), VmId(1))):
        yield


@DAMAGES.add("may write to the image")
def _image(grounds: Grounds) -> Iterator[None]:
    (image,) = grounds.paths.images.glob("1-*.qcow2")
    with pretender(grounds, 9, image):
        yield


@contextmanager
def pretender(grounds: Grounds, vm_id: int, disk: Path | None = None) -> Iterator[None]:
    """A process that looks like a QEMU of the installation, and has a disk open to write."""
    opened = f"f = open({str(disk)!r}, 'r+b'); " if disk else ""
    name = f"guest=qvd-{grounds.installation}-{vm_id},debug=on"
    words = ["qemu-system-x86_64", "-c", f"{opened}import time; time.sleep(60)", "-name", name]
    process = subprocess.Popen(words, executable=sys.executable)
    try:
        yield
    finally:
        process.kill()
        process.wait()


@pytest.fixture
async def on(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Ordeal]:
    """A running VM 1 and a stopped VM 2, and no daemon that could put things right."""
    async with machine_ordeal(tmp_path_factory.mktemp("damages") / "o", answering=()) as made:
        await made.bring(1, "running")
        made.kill()
        yield made


async def test_the_checker_names_each_damage_to_machines(on: Ordeal) -> None:
    await on.calm()
    await DAMAGES.are_named(on)
    await on.calm()
    addresses = on.grounds.paths.run / "dhcp-hostsfile"
    await on.start_daemon()
    addresses.write_text("")
    await named_soon(on, "the guest with the address .* would not be told it again")
