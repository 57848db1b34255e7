"""Real containers for a test: an installation with an unpacked DI, and what cleans up after it."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from appliance.config import Settings
from appliance.model import DiId, InstallationId, VmId
from appliance.runtime import bridge, lxc_process
from appliance.runtime.firewall import Firewall
from appliance.runtime.lxc import Lxc
from appliance.storage import volumes
from appliance.storage.btrfs import BtrfsDisks
from appliance.storage.importer import import_di
from appliance.storage.paths import Paths
from tests.support.contract import Rig
from tests.support.pool import tiny_root

DI = DiId(1)
NETWORK = {
    "vm.network.gateway": "10.44.0.1",
    "vm.network.netmask": "24",
    "vm.network.ip.start": "10.44.0.100",
    "vm.network.dns_server": "10.44.0.1",
}


@dataclass(frozen=True, slots=True)
class Site:
    """An installation of its own on a pool: its settings and paths."""

    installation: InstallationId
    settings: Settings
    paths: Paths

    def backend(self) -> Lxc:
        """As a daemon has it that was just started."""
        return Lxc(self.paths, self.installation)

    def rig(self) -> Rig:
        """Everything that the contract suite asks for."""
        backend = self.backend()

        async def end(vm_id: VmId) -> None:
            init = (await backend.survey())[vm_id].init_pid
            assert init is not None
            os.kill(init, signal.SIGKILL)

        return Rig(
            backend=backend,
            disks=BtrfsDisks(self.paths, self.installation),
            fences=Firewall(self.settings),
            installation=self.installation,
            end=end,
            has_console=True,
            keeps_homes=True,
        )

    async def prepare(self, archive: Path) -> None:
        """Make the directories, and unpack the archive as DI 1."""
        await BtrfsDisks(self.paths, self.installation).check()
        await import_di(self.paths, DI, archive, lambda _: None)

    async def connect(self) -> None:
        """Make the bridge and set the rules."""
        await bridge.converge(bridge.spec(self.settings))
        await Firewall(self.settings).apply()


@contextmanager
def site(pool: Path, archive: Path | None = None) -> Iterator[Site]:
    """A fresh installation with the tiny root as DI 1; at the end its guests are killed and its disks go."""
    installation = InstallationId(secrets.token_hex(4))
    run = Path(tempfile.mkdtemp(prefix="qvdt-run-"))
    storage = pool / installation
    settings = Settings({**NETWORK, "path.storage.root": str(storage), "path.run": str(run)})
    made = Site(installation, settings, Paths(settings))
    try:
        asyncio.run(made.prepare(archive or tiny_root(run / "tiny.tar.gz")))
        yield made
    finally:
        asyncio.run(_clear(made))
        for folder in (storage / "basefs", storage / "rootfs", storage / "homefs", storage / "kept"):
            for subvolume in folder.iterdir() if folder.is_dir() else ():
                if subvolume.is_dir():
                    volumes.delete(subvolume)
        shutil.rmtree(storage, ignore_errors=True)
        shutil.rmtree(run)


async def _clear(site: Site) -> None:
    backend = site.backend()
    for vm_id in lxc_process.find_all(site.installation):
        await backend.kill(vm_id)
    for folder in site.paths.lxc.glob("qvd-*"):
        await backend.erase(VmId(int(folder.name.rpartition("-")[2])))
    backend.close()
