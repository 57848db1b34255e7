"""Real virtual machines for a test: an installation whose DI 1 is a tiny disk, and what cleans up after."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from appliance.config import Settings
from appliance.model import DiId, InstallationId, Mark, VmId
from appliance.runtime import bridge, kvm_process
from appliance.runtime.firewall import Firewall
from appliance.runtime.kvm import Kvm
from appliance.storage.paths import Paths
from tests.support.contract import Rig
from tests.support.libvirtd import Libvirtd
from tests.support.lxc_rig import NETWORK


@dataclass(frozen=True, slots=True)
class Files:
    """The files behind a guest's disks."""

    base: Path
    base_format: str
    overlay: Path
    home: Path | None


class OverlayDisks:
    """Overlays of one image, and homes, made by qemu-img and by nothing else."""

    needs_image = False

    def __init__(self, folder: Path, image: Path) -> None:
        self._folder = folder
        self.image = image

    def files(self, mark: Mark) -> Files:
        """Where the disks of a guest are."""
        home = self._folder / f"{mark.vm_id}-data.qcow2"
        return Files(self.image, "qcow2", self._overlay(mark.vm_id), home if home.exists() else None)

    async def clone_root(self, mark: Mark, *, keep: bool, limit_mib: int | None = None) -> Path:
        """A fresh overlay."""
        overlay = self._overlay(mark.vm_id)
        if not (keep and overlay.exists()):
            overlay.unlink(missing_ok=True)
            _tool(
                "qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", str(self.image), str(overlay)
            )
        return overlay

    async def ensure_home(self, mark: Mark, *, size_mib: int | None) -> Path:
        """An empty home."""
        home = self._folder / f"{mark.vm_id}-data.qcow2"
        if not home.exists():
            _tool("qemu-img", "create", "-q", "-f", "qcow2", str(home), f"{size_mib or 16}M")
        return home

    async def home_used_with(self, mark: Mark) -> DiId | None:
        """Nothing is kept."""
        return None

    def home_aside(self, vm_id: VmId, at: datetime) -> Path | None:
        """Nothing is kept."""
        return None

    async def snapshot_home(self, mark: Mark, path: Path) -> bool:
        """Nothing is kept."""
        return False

    async def is_home_as_in(self, mark: Mark, path: Path) -> bool:
        """Nothing is kept."""
        return False

    def aside(self, vm_id: VmId, at: datetime) -> Path | None:
        """Nothing is kept."""
        return None

    async def put_aside(self, vm_id: VmId, path: Path) -> bool:
        """Nothing is kept."""
        return False

    async def erase_root(self, vm_id: VmId) -> None:
        """Remove the overlay."""
        self._overlay(vm_id).unlink(missing_ok=True)

    def _overlay(self, vm_id: VmId) -> Path:
        return self._folder / f"1-{vm_id}-overlay.qcow2"


@dataclass(frozen=True, slots=True)
class Site:
    """An installation of its own: its settings, paths and disks, and the libvirtd that it uses."""

    installation: InstallationId
    settings: Settings
    paths: Paths
    disks: OverlayDisks
    libvirtd: Libvirtd

    def backend(self) -> Kvm:
        """As a daemon has it that was just started."""
        return Kvm(self.paths, self.installation, self.settings, self.disks.files)

    def rig(self) -> Rig:
        """Everything that the contract suite asks for."""
        backend = self.backend()

        async def end(vm_id: VmId) -> None:
            qemu = (await backend.survey())[vm_id].init_pid
            assert qemu is not None
            os.kill(qemu, signal.SIGKILL)

        return Rig(
            backend=backend,
            disks=self.disks,
            fences=Firewall(self.settings),
            installation=self.installation,
            end=end,
            has_console=True,
            keeps_homes=False,
        )

    async def connect(self) -> None:
        """Make the bridge and set the rules."""
        await bridge.converge(bridge.spec(self.settings))
        await Firewall(self.settings).apply()


@contextmanager
def site(libvirtd: Libvirtd, image: Path) -> Iterator[Site]:
    """A fresh installation with the image as DI 1; at the end its guests are killed and its disks go."""
    installation = InstallationId(secrets.token_hex(4))
    run = Path(tempfile.mkdtemp(prefix="qvdt-kvm-"))
    settings = Settings(
        {
            **NETWORK,
            "path.storage.root": str(run / "storage"),
            "path.run": str(run),
            "vm.kvm.accel": "tcg",
            "vm.kvm.uri": libvirtd.uri,
        }
    )
    (run / "storage").mkdir()
    made = Site(installation, settings, Paths(settings), OverlayDisks(run / "storage", image), libvirtd)
    try:
        yield made
    finally:
        asyncio.run(clear(made))
        shutil.rmtree(run)


async def clear(site: Site) -> None:
    """Remove every guest of the installation."""
    backend = site.backend()
    for vm_id in kvm_process.find_all(site.paths, site.installation):
        await backend.kill(vm_id)
    for domain in site.paths.kvm.glob("*.xml"):
        await backend.erase(VmId(int(domain.stem)))
    backend.close()


def _tool(*words: str) -> None:
    subprocess.run(words, check=True)
