"""The house-keeping daemon: takes up what it finds, turns wishes into events, and keeps looking.

Start-up (protocol.md 5.1): sessions of a former process are reset, every guest with our mark is
looked for and adopted, and only then are wishes claimed. What carries our mark but has no row is
reported and left alone.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path

from appliance.clock import Clock
from appliance.config import HKD_POLL, HKD_TICK, Settings
from appliance.errors import ConfigError, StoreError
from appliance.log import facts
from appliance.model import (
    BackendKind,
    FailureCause,
    Host,
    HostCmd,
    HostState,
    InstallationId,
    Osf,
    Vm,
    VmCmd,
    VmId,
    VmState,
)
from appliance.ops import failures
from appliance.runtime.adopt import adopt
from appliance.runtime.backend import GuestSpec, Sighting
from appliance.runtime.capacity import measured
from appliance.runtime.events import GuestDeparted, StartWanted, StopWanted
from appliance.runtime.guests import describe
from appliance.runtime.machine import Phase
from appliance.runtime.performer import Equipment, fences_of
from appliance.runtime.supervisor import Supervisor
from appliance.signals import ChangeFeed, Doorbell
from appliance.storage.runtimes import Claim
from appliance.storage.store import Store, Tx

logger = logging.getLogger(__name__)


def this_boot() -> str:
    """The kernel's name for the time since this host booted."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


class Hkd:
    """The life of one host's VMs."""

    def __init__(
        self,
        store: Store,
        file_settings: Settings,
        host: Host,
        installation: InstallationId,
        equipment: Mapping[BackendKind, Equipment],
        supervisor: Supervisor,
        feed: ChangeFeed,
        bell: Doorbell,
        clock: Clock,
        settings_changed: Callable[[Settings], None],
        told_to_stop: Callable[[], None] = lambda: None,
    ) -> None:
        """`told_to_stop` is called when the row of this host says `stop`."""
        self._store = store
        self._file_settings = file_settings
        self._settings = file_settings
        self._written: Mapping[str, str] | None = None
        self._host = host
        self._installation = installation
        self._equipment = equipment
        self._supervisor = supervisor
        self._feed = feed
        self._bell = bell
        self._clock = clock
        self._settings_changed = settings_changed
        self._told_to_stop = told_to_stop
        self._quarantined: set[VmId] = set()
        self._claims = True

    async def take_up(self) -> None:
        """Adopt what runs and begin again what should; afterwards the rows and the host agree."""
        boot_id = this_boot()
        rebooted = self._host.boot_id not in {None, boot_id}
        cpu, ram = measured()
        sightings = await self._survey()
        async with self._store.write() as tx:
            self._take_over(await tx.settings.all())
            reset = await tx.runtimes.reset_sessions(self._host.id)
            await tx.hosts.declare(self._host.id, HostState.STARTING, pid=None, boot_id=boot_id)
            await tx.hosts.claim(self._host.id)  # It was meant for a daemon that is gone.
            await tx.hosts.measure(self._host.id, usable_cpu=cpu, usable_ram=ram)
            vms = await tx.vms.find()
            osfs = {osf.id: osf for osf in await tx.osfs.find()}
            here = {vm.id for vm in vms if vm.id in sightings and sightings[vm.id][1].mark.vm_uuid == vm.uuid}
            await tx.runtimes.found_here(here, self._host.id)
            if rebooted:
                await tx.runtimes.begin_again(self._host.id, but=sightings.keys())
                vms = await tx.vms.find()
            self._quarantined = set(sightings) - here
            for vm in vms:
                if vm.id in self._quarantined and vm.runtime.vm_state is not VmState.STOPPED:
                    await self._turn_down(tx, vm.id, vm.runtime.run)
        if reset:
            logger.info("sessions reset", extra=facts(count=reset))
        found = [
            (vm, *self._found(vm, osfs[vm.osf_id], sightings.pop(vm.id) if vm.id in here else None))
            for vm in vms
            if vm.id in here or (vm.id not in self._quarantined and self._is_ours(vm))
        ]
        for vm_id, (_, sighting) in sightings.items():
            logger.error(
                "a guest with our mark has no row: left alone",
                extra=facts(vm=vm_id, uuid=sighting.mark.vm_uuid, init=sighting.init_pid),
            )
        for fences in fences_of(self._equipment):
            behind = [guest for _, kind, guest in found if guest and self._equipment[kind].fences is fences]
            await fences.begin(behind)
        for vm, kind, guest in found:
            if guest is not None and vm.runtime.vm_state is VmState.STOPPED:
                logger.warning("found running though its row says stopped", extra=facts(vm=vm.id))
            step = adopt(vm, guest, backend=kind, rebooted=rebooted)
            if step is not None:
                self._supervisor.adopt(*step, cause="adopted")

    def _is_ours(self, vm: Vm) -> bool:
        """Whether this host looks after a VM that does not run here."""
        return vm.runtime.vm_state is VmState.STOPPED or vm.runtime.host_id in {None, self._host.id}

    def _found(
        self, vm: Vm, osf: Osf, seen: tuple[BackendKind, Sighting] | None
    ) -> tuple[BackendKind, GuestSpec | None]:
        """Which backend looks after a VM, and its guest, if it was seen running."""
        if seen is None:
            return vm.backend, None
        kind, sighting = seen
        return kind, describe(vm, osf, sighting.mark.di_id, self._settings, self._installation)

    async def declare(self, state: HostState, pid: int | None) -> None:
        """Write this host's state."""
        await self._store.at_once(
            lambda tx: tx.hosts.declare(self._host.id, state, pid=pid, boot_id=this_boot())
        )

    async def declare_ending(self, state: HostState, pid: int | None) -> None:
        """Write this host's state if the database takes it: no guest that is to end waits for that."""
        try:
            await self.declare(state, pid)
        except StoreError as exc:
            logger.error("the end of this host cannot be written", extra=facts(state=state, error=exc))

    async def serve_wishes(self) -> None:
        """Claim wishes whenever the bell rings or somebody has committed something, until that is enough."""
        commits = await self._store.watch_commits()
        overdue = False
        try:
            while self._claims:
                try:
                    overdue = await commits.changed() or overdue
                    if overdue:
                        await self._look()
                        overdue = False
                except StoreError as exc:
                    logger.error("wishes cannot be claimed", extra=facts(error=exc))
                await self._bell.wait(self._settings[HKD_POLL])
        finally:
            await commits.close()

    def claim_no_more(self) -> None:
        """Let `serve_wishes` end: what it has claimed is on its way, other wishes stay in their rows."""
        self._claims = False
        self._bell.ring()

    async def follow(self, kind: BackendKind) -> None:
        """Tell the machines which guests are gone, for ever."""
        async for departure in self._equipment[kind].backend.departures():
            vm_id = departure.vm_id
            cause = self._supervisor.cause(vm_id)
            self._supervisor.post(GuestDeparted(vm_id=vm_id, at=self._clock.now(), cause=cause))

    async def tick(self) -> None:
        """Show that this host lives, for ever."""
        while True:
            await self._clock.sleep(self._settings[HKD_TICK])
            try:
                if not await self._store.at_once(lambda tx: tx.hosts.tick(self._host.id)):
                    logger.error("the row of this host is gone", extra=facts(host=self._host.name))
            except StoreError as exc:
                logger.error("no sign of life could be written", extra=facts(error=exc))

    async def _look(self) -> None:
        """Read the settings and claim the wishes."""
        written, order, claims = await self._store.at_once(self._claimed)
        self._take_over(written)
        for claim in claims:
            if claim.vm_id not in self._quarantined:
                self._want(claim)
        self._feed.announce_all()
        if order is HostCmd.STOP:
            logger.info("told to stop, and to order the guests off", extra=facts(host=self._host.name))
            self._told_to_stop()

    @staticmethod
    async def _turn_down(tx: Tx, vm_id: VmId, run: int) -> None:
        """Leave a VM stopped under whose number a stranger runs, who would suffer what is done to it."""
        stranger = f"a guest that is no VM of this database runs as number {vm_id}"
        reason = f"{stranger}: end it, then restart the daemon"
        was = await tx.runtimes.save(
            vm_id,
            state=VmState.STOPPED,
            phase=Phase.STOPPED,
            restart=False,
            run=run,
            started_by=None,
            placement=None,
        )
        if was is not None:
            await failures.overcome(tx, vm_id, was, now=VmState.STOPPED)
        await tx.runtimes.record_failure(vm_id, reason, "", FailureCause.HOST)
        logger.error("VM kept stopped", extra=facts(vm=vm_id, reason=reason))

    def _want(self, claim: Claim) -> None:
        cause = uuid.uuid4().hex[:6]
        logger.info(
            "wish claimed",
            extra=facts(vm=claim.vm_id, wish=claim.wish, restart=claim.restart or None, cause=cause),
        )
        if claim.wish is VmCmd.STOP:
            event: StartWanted | StopWanted = StopWanted(
                vm_id=claim.vm_id, at=self._clock.now(), cause=cause, restart=claim.restart
            )
        else:
            event = StartWanted(
                vm_id=claim.vm_id,
                at=self._clock.now(),
                cause=cause,
                backend=claim.backend,
                started_by=claim.started_by,
                run=claim.run,
            )
        self._supervisor.post(event)

    async def _survey(self) -> dict[VmId, tuple[BackendKind, Sighting]]:
        found: dict[VmId, tuple[BackendKind, Sighting]] = {}
        for kind, kit in self._equipment.items():
            for vm_id, sighting in (await kit.backend.survey()).items():
                found[vm_id] = (kind, sighting)
        return found

    async def _claimed(self, tx: Tx) -> tuple[Mapping[str, str], HostCmd | None, list[Claim]]:
        """The settings as they are written, and what is wished of this host and of its VMs."""
        written, order = await tx.settings.all(), await tx.hosts.claim(self._host.id)
        claims = await tx.runtimes.claim(self._host.id)
        for claim in claims:
            if claim.vm_id in self._quarantined:
                await self._turn_down(tx, claim.vm_id, claim.run)
        return written, order, claims

    def _take_over(self, written: Mapping[str, str]) -> None:
        """Take over the settings of the database, unless one of them cannot be read."""
        if written == self._written:
            return
        self._written = written
        try:
            self._settings = self._file_settings.with_database(written).checked()
        except ConfigError as exc:
            logger.error("settings stay as they were", extra=facts(error=exc))
        else:
            self._settings_changed(self._settings)
