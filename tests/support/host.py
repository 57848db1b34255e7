"""A whole HKD on a real database; over a backend in memory and VMAs on loopback, unless it has another."""

from __future__ import annotations

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from ipaddress import IPv4Address
from pathlib import Path

from sqlalchemy import insert

from appliance.clock import Clock, SystemClock
from appliance.config import Settings
from appliance.model import Alarm, BackendKind, HostId, InstallationId, StartedBy, Vm, VmId, VmState
from appliance.ops import vms
from appliance.runtime.ageing import LOOK_S, Ager
from appliance.runtime.backend import Fences
from appliance.runtime.hkd import Hkd
from appliance.runtime.nothing import Nothing
from appliance.runtime.performer import Equipment, Performer
from appliance.runtime.supervisor import Supervisor
from appliance.signals import ChangeFeed, Doorbell
from appliance.storage import schema
from appliance.storage.migrate import upgrade
from appliance.storage.store import Store
from tests.support.fake_backend import FakeBackend
from tests.support.mortal import mortal

SYSTEM_CLOCK = SystemClock()
Vma = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
INSTALLATION = InstallationId("0a1b2c3d")


class Host(ABC):
    """One host: rows, and the daemon's HKD, which may be killed and begun again."""

    def __init__(
        self, directory: Path, store: Store, installation: InstallationId, settings: Settings
    ) -> None:
        self.store = store
        self.settings = settings
        self.installation = installation
        self.feed = ChangeFeed()
        self.host_id = HostId(1)
        self.boot_slots = 2
        self.told_to_stop = asyncio.Event()
        self.clock: Clock = SystemClock()
        self.look_s = LOOK_S
        self.ager: Ager | None = None
        """Who looks after limits in the daemon that was begun last."""
        self.latest: Hkd | None = None
        """The HKD that was begun last."""
        self._run = directory

    @abstractmethod
    def equipped(self) -> AbstractAsyncContextManager[Mapping[BackendKind, Equipment]]:
        """What runs the guests of each kind, for as long as one daemon lives."""

    @contextlib.asynccontextmanager
    async def hkd(self) -> AsyncIterator[Supervisor]:
        """An HKD at work; leaving the block is its sudden death."""
        async with self.store.read() as tx:
            host = await tx.hosts.get(self.host_id)
        with Doorbell(self._run / "bell") as bell:
            async with self.equipped() as equipment, mortal() as tasks:
                performer = Performer(
                    self.store,
                    lambda: self.settings,
                    self.installation,
                    equipment,
                    self.feed,
                    self.clock,
                    lambda vm_id: supervisor.machine(vm_id),
                    ring=bell.ring,
                )
                supervisor = Supervisor(performer, tasks, self.clock, boot_slots=lambda: self.boot_slots)
                hkd = Hkd(
                    self.store,
                    self.settings,
                    host,
                    self.installation,
                    equipment,
                    supervisor,
                    self.feed,
                    bell,
                    self.clock,
                    lambda settings: None,
                    self.told_to_stop.set,
                )
                self.latest = hkd
                await hkd.take_up()
                tasks.create_task(hkd.serve_wishes())
                ager = self.ager = Ager(
                    self.store,
                    lambda: self.settings,
                    self.host_id,
                    supervisor.post,
                    bell.ring,
                    self.clock,
                    pause_s=self.look_s,
                )
                tasks.create_task(ager.run())
                for kind in equipment:
                    tasks.create_task(hkd.follow(kind))
                yield supervisor

    async def vm(self, vm_id: VmId) -> Vm:
        """The row, as it is now."""
        async with self.store.read() as tx:
            return await tx.vms.get(vm_id)

    async def alarms(self) -> list[Alarm]:
        """The open alarms."""
        async with self.store.read() as tx:
            return await tx.alarms.find()

    async def until(self, vm_id: VmId, condition: Callable[[Vm], bool], limit_s: float = 10) -> Vm:
        """Wait for a row to satisfy `condition`."""
        async with asyncio.timeout(limit_s):
            while not condition(vm := await self.vm(vm_id)):
                await asyncio.sleep(0.01)
        return vm

    async def until_state(self, vm_id: VmId, state: VmState) -> Vm:
        """Wait for a state in the row."""
        return await self.until(vm_id, lambda vm: vm.runtime.vm_state is state)

    async def wish(self, verb: str, vm_id: VmId, *, restart: bool = False) -> None:
        """Write a wish, as `qa` does."""
        async with self.store.write() as tx:
            if verb == "start":
                assert await vms.start(tx, [vm_id], by="test", started_by=StartedBy.COMMAND) == 1
            else:
                assert await vms.stop(tx, [vm_id], by="test", restart=restart) == 1


class Rig(Host):
    """A host whose hypervisor is a fake."""

    def __init__(self, directory: Path, store: Store, backend: FakeBackend, vma_port: int) -> None:
        settings = Settings(
            {
                "nodename": "rig",
                "path.run": str(directory),
                "path.storage.root": str(directory),
                "vm.network.ip.start": "127.0.0.10",
                "vm.network.netmask": "24",
                "vm.network.gateway": "127.0.0.1",
                "internal.vm.port.vma": str(vma_port),
                "internal.hkd.vmhandler.vma.failed.max_time.on.starting": "2",
                "internal.hkd.lxc.timeout.on_state.zombie.delay": "0.05",
                "internal.hkd.lxc.timeout.on_state.stopping.shutdown": "0.1",
                "internal.hkd.lxc.timeout.on_state.stopping.stop": "2",
                "internal.hkd.start.delay.first": "0.05",
                "internal.hkd.start.delay.max": "0.2",
                "internal.hkd.poll_time": "0.05",
            }
        )
        super().__init__(directory, store, INSTALLATION, settings)
        self.backend = backend
        self.fences: Fences | None = None
        """Those of the backend, unless others are put here."""
        self.more: dict[BackendKind, Equipment] = {}
        """Backends of other kinds that the host has as well."""

    @contextlib.asynccontextmanager
    async def equipped(self) -> AsyncIterator[Mapping[BackendKind, Equipment]]:
        """The fake for containers, and guests of others."""
        foreign = Nothing(self._run, INSTALLATION)
        await foreign.check()
        yield {
            BackendKind.LXC: Equipment(self.backend, self.backend, self.fences or self.backend),
            BackendKind.NOTHING: Equipment(foreign, foreign, foreign),
            **self.more,
        }


@contextlib.asynccontextmanager
async def rig(
    directory: Path,
    desktops: int = 1,
    *,
    mute: int = 0,
    clock: Clock = SYSTEM_CLOCK,
    vma: Callable[[VmId], Vma] = lambda vm_id: answer_vma,
) -> AsyncIterator[Rig]:
    """A rig with one image and VMs number 1, 2, …, whose VMAs answer on loopback, but for the last ones."""
    url = f"sqlite:///{directory}/qvd.db"
    upgrade(url)
    vmas = [await asyncio.start_server(vma(VmId(1)), "127.0.0.10", 0)]
    port: int = vmas[0].sockets[0].getsockname()[1]
    vmas += [
        await asyncio.start_server(vma(VmId(more + 1)), f"127.0.0.{10 + more}", port)
        for more in range(1, desktops - mute)
    ]
    store = await Store.open(url, clock)
    try:
        made = Rig(directory, store, FakeBackend(), port)
        made.clock = clock
        async with store.write() as tx:
            now = SystemClock().now()
            await tx.settings.found_installation(INSTALLATION, now)
            await tx.hosts.add("rig", "127.0.0.1")
            user = await tx.users.add("alice", None)
            osf_id = await tx.osfs.add(
                name="small",
                memory_mib=256,
                cpus=None,
                use_overlay=True,
                user_storage_mib=None,
                backend=BackendKind.LXC,
            )
            for table, row in (
                (
                    schema.dis,
                    {"osf_id": osf_id, "path": "1-a.tar", "version": "one", "sha256": "", "size_bytes": 1},
                ),
                (schema.di_tags, {"di_id": 1, "osf_id": osf_id, "tag": "default"}),
            ):
                stamped = {"created": now} if "created" in table.c else {}
                await tx.connection.execute(insert(table).values(**row, **stamped))
            for number in range(desktops):
                await vms.add(
                    tx,
                    made.settings,
                    name=f"desk{number + 1}",
                    user_id=user.id,
                    osf_id=osf_id,
                    ip=IPv4Address("127.0.0.10") + number,
                    by="test",
                )
        yield made
    finally:
        await store.close()
        for server in vmas:
            server.close()


async def answer_vma(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A VMA that says yes to everything, and minds nobody who leaves before."""
    with contextlib.closing(writer), contextlib.suppress(asyncio.IncompleteReadError, OSError):
        await reader.readuntil(b"\r\n\r\n")
        body = b"1\n\r\n"
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json-simplerpc\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
        )
