"""Virtual machines as on a server: the daemon in the sandbox of its unit, libvirtd as Debian ships it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from appliance.config import read_file
from appliance.model import InstallationId, VmId
from appliance.runtime import kvm_process
from appliance.storage.paths import Paths
from scripts.service import ROOT, SERVICE, Place, render
from scripts.trial import Trial
from tests.support.boot_sector import BOOTED
from tests.support.libvirtd import DebianLibvirtd

pytestmark = [pytest.mark.kvm, pytest.mark.timeout(300)]

ONE, NOBODY = VmId(1), 65534
SHORT = {
    "internal.hkd.lxc.timeout.on_state.stopping.shutdown": "5",
    "internal.hkd.lxc.timeout.on_state.stopping.stop": "1",
    "vm.overlay.persistent": "yes",
}


@dataclass(frozen=True, slots=True)
class Server:
    """A daemon at work with one machine, and its libvirtd."""

    trial: Trial
    libvirtd: DebianLibvirtd

    @property
    def paths(self) -> Paths:
        return Paths(read_file(self.trial.config))

    def qemu(self) -> int | None:
        """The machine's process."""
        installation = InstallationId(self.trial.marker.read_text())
        return kvm_process.find_all(self.paths, installation).get(ONE)

    def start(self, number: int) -> int:
        """Start the machine, which counts its starts on its root; its process."""
        self.trial.qa("vm", "start", "-f", "name=desk1")
        log = self.paths.console_log(ONE)
        said = f"{BOOTED}\r\n{number}"
        self.trial.wait_for(said, lambda: log.exists() and said in log.read_bytes().decode(), 30)
        pid = self.qemu()
        assert pid is not None
        return pid

    def stop(self) -> None:
        self.trial.qa("vm", "stop", "-f", "name=desk1")
        self.trial.wait_for_state("desk1", "stopped")
        assert self.qemu() is None


@pytest.fixture
def server(images: dict[str, Path]) -> Iterator[Server]:
    """One not below /tmp, which the sandbox covers."""
    with tempfile.TemporaryDirectory(prefix="qvdt-", dir="/var/lib") as directory:
        Path(directory).chmod(0o711)
        with Trial(Path(directory) / "t") as trial:
            trial.settings |= {"vm.hypervisor": "kvm", "vm.kvm.accel": "tcg", **SHORT}
            libvirtd = DebianLibvirtd(trial.netns, trial.libvirt)
            trial.settings |= {"vm.kvm.uri": libvirtd.uri}
            trial.lay_out(pool_size="512M")
            trial.directory.chmod(0o711)
            try:
                libvirtd.start()
                unit = Path(directory) / SERVICE
                place = Place(checkout=ROOT, config=trial.config)
                unit.write_text(render(place, read_file(trial.config))[SERVICE])
                trial.around = [sys.executable, "-m", "tests.support.sandbox", str(unit)]
                trial.start()
                trial.furnish(images["count"], memory=64, policy=["user_storage_size=16"])
                yield Server(trial, libvirtd)
            finally:
                trial.stop()
                libvirtd.remove()


def may(user: int, *words: str | Path) -> bool:
    """Whether a command succeeds as a user of this host."""
    as_user = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", *words]
    return subprocess.run(as_user, capture_output=True, check=False).returncode == 0


def opened_to_write(pid: int, file: Path) -> bool:
    """Whether a process can write to a file."""
    for link in Path(f"/proc/{pid}/fd").iterdir():
        if link.exists() and link.samefile(file):
            (flags,) = re.findall(r"flags:\t(\d+)", Path(f"/proc/{pid}/fdinfo/{link.name}").read_text())
            if int(flags, 8) & os.O_ACCMODE == os.O_RDWR:
                return True
    return False


def test_machines_are_of_a_user_without_rights_who_has_their_disks_and_nobody_else(server: Server) -> None:
    pid = server.start(1)
    user = Path(f"/proc/{pid}").stat().st_uid
    assert user != 0
    (image,) = server.paths.images.glob("1-*")
    (overlay,) = server.paths.overlays.glob("*-overlay.qcow2")
    home = server.paths.home_disk(ONE)
    for disk in (image, overlay, home):
        assert may(user, "head", "-c", "1", disk)
        assert not may(NOBODY, "head", "-c", "1", disk)
    assert not may(user, "dd", "conv=notrunc", "count=0", f"of={image}")
    assert not may(user, "ls", server.paths.root)

    assert opened_to_write(pid, home)
    assert not opened_to_write(pid, image)
    made = home.stat().st_ino
    server.stop()

    server.start(2)
    server.libvirtd.kill()
    server.trial.qa("vm", "stop", "-f", "name=desk1")
    server.trial.wait_for_state("desk1", "stopped")
    assert server.qemu() is None
    assert home.stat().st_ino == made
