"""The composition root: `qvd-appliance run` builds everything, owns the TaskGroup and the signals."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import fcntl
import functools
import gc
import getpass
import logging
import os
import signal
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import uvloop

from appliance.clock import Clock, SystemClock
from appliance.config import (
    DATABASE_URL,
    HKD_STOPPING_VMS,
    LOG_FILENAME,
    LOG_LEVEL,
    NETWORK_DHCP,
    NODENAME,
    SERIAL_CAPTURE,
    VM_HYPERVISOR,
    VM_STARTING_MAX,
    Settings,
    find_file,
    read_file,
    vetted,
)
from appliance.control import ControlServer
from appliance.errors import ApplianceError, BackendError, ConfigError, HostError
from appliance.l7r.listening import Claim, claim_port
from appliance.l7r.server import L7r
from appliance.l7r.services import Do
from appliance.log import facts, set_up
from appliance.model import BackendKind, Host, HostState, InstallationId, VmId
from appliance.ops.drain import drain
from appliance.ops.images import sweep_unfinished
from appliance.ops.settings import in_force
from appliance.runtime import host_shutdown, host_usage, preflight
from appliance.runtime.addressing import AddressedFences
from appliance.runtime.ageing import Ager
from appliance.runtime.backend import Backend, ConsoleLine, Fences
from appliance.runtime.bridge import converge, spec
from appliance.runtime.consoles import Consoles
from appliance.runtime.dhcp import Dhcp
from appliance.runtime.firewall import Firewall
from appliance.runtime.hkd import Hkd
from appliance.runtime.hooks import Hooks
from appliance.runtime.kvm import Kvm
from appliance.runtime.libvirt_link import AwayError
from appliance.runtime.lxc import Lxc
from appliance.runtime.machine import Phase, VmMachine
from appliance.runtime.nothing import Nothing
from appliance.runtime.performer import Equipment, Performer
from appliance.runtime.samples import Samples
from appliance.runtime.service_manager import ServiceManager, show_life
from appliance.runtime.space import Watch
from appliance.runtime.supervisor import Perform, Supervisor
from appliance.runtime.surveyor import Surveyor
from appliance.runtime.trash import Trash
from appliance.scalars import seconds
from appliance.signals import ChangeFeed, Doorbell
from appliance.storage.btrfs import BtrfsDisks
from appliance.storage.paths import Paths
from appliance.storage.qcow2 import Qcow2Disks
from appliance.storage.shares import policy
from appliance.storage.store import Store

logger = logging.getLogger(__name__)

SYSTEM_CLOCK = SystemClock()
GUEST_RUNS = frozenset({Phase.AWAITING_VMA, Phase.MONITORING, Phase.SHUTTING_DOWN})
TURNED_DOWN = 1
OWN_MASK = 0o077
"""What the daemon makes is root's alone, unless the code says otherwise."""
INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class Around:
    """What stands between decisions and the world: nothing, but for those who try faults or other days."""

    orders: Callable[[Perform], Perform] = lambda perform: perform
    sessions: Callable[[Do], Do] = lambda do: do
    clock: Clock = SYSTEM_CLOCK


NOTHING_AROUND = Around()


class Appliance:
    """One node: HKD, L7R, bridge and consoles in one process."""

    def __init__(
        self,
        file_settings: Settings,
        store: Store,
        host: Host,
        installation: InstallationId,
        around: Around = NOTHING_AROUND,
        manager: ServiceManager = ServiceManager(),  # noqa: B008, frozen: nobody manages us
    ) -> None:
        self._manager = manager
        self._file_settings = file_settings
        self._settings = file_settings
        self._store = store
        self._host = host
        self._installation = installation
        self._paths = Paths(file_settings)
        self._clock = around.clock
        self._feed = ChangeFeed()
        self._stop = asyncio.Event()
        self._guests_off = False
        """Whether whoever told us to stop wants the guests to stop as well."""
        self._ends = False
        self._around = around
        self._firewall: Firewall | None = None
        self._dhcp: Dhcp | None = None

    async def run(self) -> None:
        """Serve until told to stop; guests go on running afterwards."""
        async with self._store.read() as tx:
            self._settings = self._file_settings.with_database(await tx.settings.all()).checked()
            kinds = {osf.backend for osf in await tx.osfs.find()}
        with claim_port(self._settings) as port:
            await self._serve(kinds, port)

    async def _serve(self, kinds: set[BackendKind], port: Claim) -> None:
        equipment = await self._equip(kinds | {self._settings[VM_HYPERVISOR]})
        try:
            await sweep_unfinished(self._store, self._paths)
        except ApplianceError as exc:
            logger.error("what a killed import left cannot be removed", extra=facts(error=exc))
        with Doorbell(self._paths.doorbell) as bell:
            async with asyncio.TaskGroup() as tasks:
                consoles = Consoles(
                    lambda vm_id: line_of(supervisor, equipment, vm_id),
                    self._paths.console_capture,
                    tasks,
                    self._clock,
                    self._paths.console_record if self._settings[SERIAL_CAPTURE] else None,
                )
                supervisor = Supervisor(
                    Performer(
                        self._store,
                        self._current,
                        self._installation,
                        equipment,
                        self._feed,
                        self._clock,
                        lambda vm_id: supervisor.machine(vm_id),
                        self._around.orders,
                        bell.ring,
                    ),
                    tasks,
                    self._clock,
                    boot_slots=lambda: 0 if self._ends else self._settings[VM_STARTING_MAX],
                    noticed=lambda machine: tell(consoles, machine),
                )
                hkd = Hkd(
                    self._store,
                    self._file_settings,
                    self._host,
                    self._installation,
                    equipment,
                    supervisor,
                    self._feed,
                    bell,
                    self._clock,
                    self._use,
                    self._told_to_stop,
                )
                await hkd.take_up()
                self._listen_to_signals(supervisor)
                l7r = L7r(
                    self._store,
                    self._current,
                    self._host.id,
                    self._feed,
                    bell.ring,
                    self._clock,
                    tasks,
                    self._around.sessions,
                )
                samples = Samples(
                    lambda: who_runs(supervisor),
                    lambda vm_id: backend_of(supervisor, equipment, vm_id).sample(vm_id),
                    lambda: host_usage.look(self._paths.root),
                    self._clock,
                )
                streams = {"console": consoles.view, "samples": samples.serve}
                async with ControlServer(self._paths.control, streams, tasks):
                    await l7r.listen(port)
                    await hkd.declare(HostState.RUNNING, os.getpid())
                    for kind in equipment:
                        tasks.create_task(hkd.follow(kind), name=f"departures of {kind}")
                    ager = Ager(
                        self._store, self._current, self._host.id, supervisor.post, bell.ring, self._clock
                    )
                    tasks.create_task(ager.run(), name="limits")
                    wishes = tasks.create_task(hkd.serve_wishes(), name="wishes")
                    tasks.create_task(hkd.tick(), name="ticker")
                    hooks = Hooks(self._store, self._current, self._installation, self._clock)
                    tasks.create_task(hooks.run(), name="hooks")
                    self._look_after_storage(tasks, equipment, supervisor)
                    if self._firewall is not None:
                        tasks.create_task(self._firewall.keep(self._clock), name="firewall")
                    if self._dhcp is not None:
                        tasks.create_task(self._dhcp.run(), name="addresses")
                    beats = show_life(self._manager, supervisor, self._store, self._clock)
                    tasks.create_task(beats, name="watchdog")
                    logger.info("appliance runs", extra=facts(host=self._host.name, id=self._installation))
                    self._manager.ready(f"serves as {self._host.name}")
                    await self._stop.wait()
                    if self._guests_off or await host_shutdown.is_under_way():
                        self._manager.stopping("orders the guests off")
                        self._ends = True
                        await l7r.close()
                        hkd.claim_no_more()
                        await wishes
                        await hkd.declare_ending(HostState.STOPPING, os.getpid())
                        await self._order_off(supervisor, equipment.keys() - {BackendKind.NOTHING})
                    else:
                        logger.info("appliance stops; guests go on")
                        self._manager.stopping("stops; guests go on")
                        await l7r.close()
                await hkd.declare_ending(HostState.STOPPED, None)
                for task in asyncio.all_tasks() - {asyncio.current_task()}:
                    task.cancel()

    def _look_after_storage(
        self, tasks: asyncio.TaskGroup, equipment: Mapping[BackendKind, Equipment], supervisor: Supervisor
    ) -> None:
        """Watch the pool, and search for what was left behind; guests of others need neither."""
        kits = {kind: kit for kind, kit in equipment.items() if kit.disks.needs_image}
        if not kits:
            return
        surveyor = Surveyor(
            self._store,
            self._current,
            self._installation,
            kits,
            supervisor,
            self._clock,
        )
        reserves = [
            kit.disks.keep_reserve for kit in kits.values() if isinstance(kit.disks, BtrfsDisks | Qcow2Disks)
        ]
        trash = Trash(self._store, self._current, self._clock)
        each_time = (*reserves, surveyor.purge, trash.empty)
        watch = Watch(self._store, self._current, self._clock, each_time=each_time)
        tasks.create_task(watch.run(), name="storage")
        tasks.create_task(surveyor.run(), name="survey")

    async def _equip(self, kinds: set[BackendKind]) -> Mapping[BackendKind, Equipment]:
        """What runs the VMs of each kind; checked before anything is changed.

        :raises HostError: something that one of them needs is missing
        """
        nothing = Nothing(self._paths.run, self._installation)
        await nothing.check()
        equipment = {BackendKind.NOTHING: Equipment(nothing, nothing, nothing)}
        containers, machines = BackendKind.LXC in kinds, BackendKind.KVM in kinds
        if not (containers or machines):
            return equipment
        if containers:
            lxc, subvolumes = self._lxc()
            await lxc.check()
            await subvolumes.check()
        if machines:
            kvm, disks = self._kvm()
            try:
                await kvm.check()
            except AwayError as exc:  # containers need no libvirtd, and guests that run do without
                logger.error(
                    "virtual machines cannot be started until libvirtd answers", extra=facts(error=exc)
                )
            await disks.check()
        await preflight.check(self._settings)
        firewall = self._firewall = Firewall(self._settings)
        fences: Fences = firewall
        if machines and self._settings[NETWORK_DHCP]:
            self._dhcp = Dhcp(self._settings, self._paths.run, self._clock)
            await self._dhcp.check()
            fences = AddressedFences(firewall, self._dhcp)
        await converge(spec(self._settings))
        if containers:
            equipment[BackendKind.LXC] = Equipment(lxc, subvolumes, fences)
        if machines:
            equipment[BackendKind.KVM] = Equipment(kvm, disks, fences)
        return equipment

    def _lxc(self) -> tuple[Lxc, BtrfsDisks]:
        subvolumes = BtrfsDisks(self._paths, self._installation, policy=policy(self._settings))
        return Lxc(self._paths, self._installation), subvolumes

    def _kvm(self) -> tuple[Kvm, Qcow2Disks]:
        disks = Qcow2Disks(self._paths, self._installation, policy=policy(self._settings))
        return Kvm(self._paths, self._installation, self._settings, disks.files), disks

    async def _order_off(self, supervisor: Supervisor, kinds: Collection[BackendKind]) -> None:
        await host_shutdown.order_off(
            supervisor,
            kinds,
            self._clock,
            limit_s=self._settings[HKD_STOPPING_VMS],
            tell=lambda left, seconds: self._manager.patience(seconds, f"{left} guests are ordered off"),
        )

    def _told_to_stop(self) -> None:
        self._guests_off = True
        self._stop.set()

    def _current(self) -> Settings:
        return self._settings

    def _use(self, settings: Settings) -> None:
        self._settings = settings

    def _listen_to_signals(self, supervisor: Supervisor) -> None:
        loop = asyncio.get_running_loop()
        for ending in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(ending, self._stop.set)
        loop.add_signal_handler(signal.SIGUSR1, self._tell_stories, supervisor)

    @staticmethod
    def _tell_stories(supervisor: Supervisor) -> None:
        for machine in supervisor.machines():
            supervisor.tell(machine.vm_id)


def backend_of(supervisor: Supervisor, equipment: Mapping[BackendKind, Equipment], vm_id: VmId) -> Backend:
    """What runs a VM.

    :raises BackendError: the VM is not known here
    """
    machine = supervisor.machine(vm_id)
    if machine is None:
        raise BackendError(f"VM {vm_id} does not run here")
    return equipment[machine.backend].backend


def line_of(supervisor: Supervisor, equipment: Mapping[BackendKind, Equipment], vm_id: VmId) -> ConsoleLine:
    """The console line of a VM.

    :raises BackendError: the VM is not known here
    """
    return backend_of(supervisor, equipment, vm_id).console(vm_id)


def who_runs(supervisor: Supervisor) -> Iterator[VmId]:
    """The VMs whose guests are processes of this host, and so use something of it."""
    for machine in supervisor.machines():
        if machine.phase in GUEST_RUNS and machine.backend is not BackendKind.NOTHING:
            yield machine.vm_id


def tell(consoles: Consoles, machine: VmMachine) -> None:
    """Let the consoles follow a guest for as long as it may run."""
    if machine.phase is Phase.LAUNCHING:
        consoles.guest_begins(machine.vm_id)
    elif machine.phase in GUEST_RUNS:
        consoles.guest_runs(machine.vm_id)
    else:
        consoles.guest_gone(machine.vm_id)


@contextlib.contextmanager
def only_one(lock: Path) -> Iterator[None]:
    """Hold the installation's lock.

    :raises HostError: another daemon of this installation runs
    """
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        raise HostError(f"{lock} cannot be opened: {exc.strerror}", hint="run qa admin init") from exc
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as exc:
        pid = os.read(descriptor, 32).decode().strip() or "unknown"
        os.close(descriptor)
        raise HostError(
            f"another appliance of this installation runs (pid {pid})", hint="stop it first"
        ) from exc
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


async def serve(config: Path, around: Around = NOTHING_AROUND) -> None:
    """Run the appliance that `config` describes.

    :raises ApplianceError: it cannot begin; nothing was changed
    """
    manager = ServiceManager.from_environment()
    settings = read_file(config)
    set_up(settings[LOG_LEVEL], settings[LOG_FILENAME])
    for warning in vetted(settings.written, settings.source):
        logger.warning(warning)
    paths = Paths(settings)
    try:
        paths.run.mkdir(mode=0o755, parents=True, exist_ok=True)
    except OSError as exc:
        raise HostError(f"{paths.run} cannot be made: {exc.strerror}", hint="run as root") from exc
    os.umask(OWN_MASK)
    with only_one(paths.hkd_lock):
        store = await Store.open(settings[DATABASE_URL], around.clock)
        try:
            async with store.read() as tx:
                installation = await tx.settings.installation()
                host = await tx.hosts.by_name(settings[NODENAME])
            if host is None:
                raise ConfigError(
                    f"nodename = {settings[NODENAME]!r} is not a host of this installation",
                    hint="see qa host list; the name is fixed by qa admin init",
                )
            await Appliance(settings, store, host, installation, around, manager).run()
        finally:
            await store.close()


async def empty(config: Path, timeout_s: float | None) -> int:
    """Wait until nobody is connected to the appliance that `config` describes; returns the exit status.

    :raises ApplianceError: it cannot begin; nothing was changed
    """
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    file_settings, clock = read_file(config), SystemClock()
    store = await Store.open(file_settings[DATABASE_URL], clock)
    try:
        settings = await in_force(store, file_settings)
        by = f"drain:{os.environ.get('SUDO_USER') or getpass.getuser()}"[:64]
        say = functools.partial(print, flush=True)
        gone = await drain(store, settings, clock, by=by, timeout_s=timeout_s, say=say)
    finally:
        await store.close()
    return 0 if gone else TURNED_DOWN


def main(argv: Sequence[str] | None = None) -> int:
    """`qvd-appliance run|drain|version [--config FILE]`; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="qvd-appliance", description="The QVD appliance: HKD, L7R and NAT bridge in one process."
    )
    parser.add_argument(
        "verb",
        choices=["run", "drain", "version"],
        help="run: serve until told to stop; drain: let nobody new in, and wait until nobody is connected",
    )
    parser.add_argument(
        "--timeout",
        type=seconds,
        metavar="S",
        help="drain: give up after S seconds, and let clients in again",
    )
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="node.conf (else $QVD_CONFIG, else /etc/qvd/node.conf)"
    )
    words = parser.parse_args(argv)
    if words.verb == "version":
        print(version("qvd-appliance"))
        return 0
    if words.timeout is not None and words.verb != "drain":
        parser.error("--timeout is for drain")
    status = 0
    try:
        if words.verb == "drain":
            status = uvloop.run(empty(find_file(words.config), words.timeout))
        else:
            gc.freeze()  # what is loaded stays, and each look through all of it holds everybody up for 75 ms
            uvloop.run(serve(find_file(words.config)))
    except* ApplianceError as failures:
        print(f"qvd-appliance: {first_cause(failures)}", file=sys.stderr)
        status = TURNED_DOWN
    except* Exception as failures:
        logger.critical("ended by a fault of its own", exc_info=failures)
        print(f"qvd-appliance: ended by a fault of its own: {first_cause(failures)!r}", file=sys.stderr)
        status = TURNED_DOWN
    except* (KeyboardInterrupt, asyncio.CancelledError):
        status = INTERRUPTED
    return status


def first_cause(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first failure inside nested groups."""
    cause: BaseException = failures
    while isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[0]
    return cause
