"""A whole HKD over real guests, containers or virtual machines of a test's site, equipped as a daemon."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

from sqlalchemy import insert

from appliance.clock import SystemClock
from appliance.config import DATABASE_URL, Settings
from appliance.model import BackendKind, DiId, InstallationId, VmId
from appliance.ops import vms
from appliance.runtime import bridge
from appliance.runtime.addressing import AddressedFences
from appliance.runtime.backend import Sighting
from appliance.runtime.dhcp import Dhcp
from appliance.runtime.firewall import Firewall
from appliance.runtime.kvm import Kvm
from appliance.runtime.lxc import Lxc
from appliance.runtime.performer import Equipment
from appliance.storage import schema
from appliance.storage.btrfs import BtrfsDisks
from appliance.storage.importer import import_di
from appliance.storage.migrate import upgrade
from appliance.storage.paths import Paths
from appliance.storage.qcow2 import Qcow2Disks
from appliance.storage.store import Store
from tests.support.host import Host
from tests.support.life_cycle import PATIENCE_S, Life
from tests.support.mortal import mortal
from tests.support.onlooker import files
from tests.support.traces import traces

SHORT = {
    "nodename": "live",
    "internal.hkd.lxc.timeout.on_state.stopping.stop": "1",
    "internal.hkd.lxc.timeout.on_state.zombie.delay": "0.2",
    "internal.hkd.start.delay.first": "0.2",
    "internal.hkd.start.delay.max": "1",
    "internal.hkd.poll_time": "0.05",
    "internal.hkd.vmhandler.vma.failed.max_time.on.starting": "90",
}
"""Waits that only cost time, and an end for the others."""
MEMORY_MIB = {BackendKind.LXC: 64, BackendKind.KVM: 96}
HOME_MIB = {BackendKind.LXC: None, BackendKind.KVM: 16}
ONE_PROCESSOR = 1.0


class Containers(Host):
    """A host that runs containers."""

    kind = BackendKind.LXC

    @contextlib.asynccontextmanager
    async def equipped(self) -> AsyncIterator[Mapping[BackendKind, Equipment]]:
        """A daemon's backend, which lets go of all its guests at the end."""
        paths = Paths(self.settings)
        lxc, disks = Lxc(paths, self.installation), BtrfsDisks(paths, self.installation)
        try:
            await lxc.check()
            await disks.check()
            await bridge.converge(bridge.spec(self.settings))
            yield {self.kind: Equipment(lxc, disks, Firewall(self.settings))}
        finally:
            lxc.close()

    async def add_image(self, di_id: DiId, image: Path) -> None:
        """Unpack an archive."""
        await BtrfsDisks(Paths(self.settings), self.installation).check()
        await import_di(Paths(self.settings), di_id, image, lambda _: None)

    async def seen(self) -> Mapping[VmId, Sighting]:
        """The containers that run."""
        lxc = Lxc(Paths(self.settings), self.installation)
        try:
            return await lxc.survey()
        finally:
            lxc.close()

    def roots(self) -> set[Path]:
        """The roots of running containers, and what goes with them."""
        paths = Paths(self.settings)
        return files(paths.all_rootfs) | files(paths.lxc)


class Machines(Host):
    """A host that runs virtual machines, and tells them their addresses."""

    kind = BackendKind.KVM

    @contextlib.asynccontextmanager
    async def equipped(self) -> AsyncIterator[Mapping[BackendKind, Equipment]]:
        """A daemon's backend, which lets go of all its guests at the end, and its dnsmasq."""
        paths = Paths(self.settings)
        disks = Qcow2Disks(paths, self.installation)
        kvm = Kvm(paths, self.installation, self.settings, disks.files)
        dhcp = Dhcp(self.settings, paths.run, SystemClock())
        try:
            await kvm.check()
            await disks.check()
            await dhcp.check()
            await bridge.converge(bridge.spec(self.settings))
            fences = AddressedFences(Firewall(self.settings), dhcp)
            async with mortal() as tasks:
                tasks.create_task(dhcp.run())
                yield {self.kind: Equipment(kvm, disks, fences)}
        finally:
            kvm.close()

    async def add_image(self, di_id: DiId, image: Path) -> None:
        """Put a disk image where images are."""
        paths = Paths(self.settings)
        await Qcow2Disks(paths, self.installation).check()
        shutil.copy(image, paths.image(di_id, image.name))

    async def seen(self) -> Mapping[VmId, Sighting]:
        """The virtual machines that run."""
        paths = Paths(self.settings)
        kvm = Kvm(paths, self.installation, self.settings, Qcow2Disks(paths, self.installation).files)
        try:
            return await kvm.survey()
        finally:
            kvm.close()

    def roots(self) -> set[Path]:
        """The overlays of running machines, and what goes with them; those kept are not."""
        paths = Paths(self.settings)
        kept = {path for path in files(paths.overlays) if not path.name.endswith("-overlay.qcow2")}
        return files(paths.overlays) - kept | files(paths.kvm)


@contextlib.asynccontextmanager
async def live(
    kind: Callable[[Path, Store, InstallationId, Settings], Containers | Machines],
    installation: InstallationId,
    settings: Settings,
    *,
    answers: Path,
    mute: Path,
) -> AsyncIterator[Life]:
    """Two VMs of a site: number 1 of the image whose guest answers, number 2 of the one whose guest is mute.

    Their guests are the site's to remove.
    """
    run = Paths(settings).run
    url = f"sqlite:///{run}/qvd.db"
    settings = Settings({**settings.written, DATABASE_URL.name: url, **SHORT})
    upgrade(url)
    store = await Store.open(url, SystemClock())
    try:
        host = kind(run, store, installation, settings)
        for di_id, image in ((DiId(1), answers), (DiId(2), mute)):
            await host.add_image(di_id, image)
        await _furnish(host)

        async def end(vm_id: VmId) -> None:
            init = (await host.seen())[vm_id].init_pid
            assert init is not None
            os.kill(init, signal.SIGKILL)
            async with asyncio.timeout(PATIENCE_S):
                while vm_id in await host.seen():
                    await asyncio.sleep(0.02)

        def left() -> list[str]:
            return [*map(str, sorted(host.roots())), *traces(installation)]

        yield Life(host=host, seen=host.seen, left=left, end=end)
    finally:
        await store.close()


async def _furnish(host: Containers | Machines) -> None:
    """The rows of a host, a user, and for either image an OSF, a DI and a VM."""
    async with host.store.write() as tx:
        await tx.settings.found_installation(host.installation, tx.at)
        await tx.hosts.add(host.settings.text("nodename") or "", "127.0.0.1")
        user = await tx.users.add("alice", None)
        for number, name in ((1, "answers"), (2, "mute")):
            osf_id = await tx.osfs.add(
                name=name,
                memory_mib=MEMORY_MIB[host.kind],
                cpus=ONE_PROCESSOR,
                use_overlay=True,
                user_storage_mib=HOME_MIB[host.kind],
                backend=host.kind,
            )
            image = {"path": f"{number}-{name}", "version": "one", "sha256": "", "size_bytes": 1}
            await tx.connection.execute(insert(schema.dis).values(osf_id=osf_id, created=tx.at, **image))
            tag = {"di_id": number, "osf_id": osf_id, "tag": "default"}
            await tx.connection.execute(insert(schema.di_tags).values(**tag))
            await vms.add(tx, host.settings, name=f"desk{number}", user_id=user.id, osf_id=osf_id, by="test")
