"""Searches for what was left behind, at the start and now and then, and removes what is ours.

What concerns a VM is done in its lane, so that nothing else happens to it meanwhile; what concerns an image,
under the image's lock. What cannot be removed becomes an alarm, once, until it is gone.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from appliance import config
from appliance.clock import Clock
from appliance.config import Settings
from appliance.errors import ApplianceError, VolumeError
from appliance.log import facts
from appliance.model import AlarmKind, BackendKind, DiId, InstallationId, Kept, KeptKind, Mark, VmId
from appliance.ops import handover, images
from appliance.runtime import bridge, traces
from appliance.runtime.performer import Equipment
from appliance.runtime.supervisor import Supervisor
from appliance.runtime.survey import Found, Plan, Rows, plan
from appliance.runtime.traces import Places
from appliance.storage import marks, quotas, subvolumes, volumes
from appliance.storage.image_lock import is_in_use
from appliance.storage.operations import MAKES_IMAGES
from appliance.storage.paths import HOME_SNAPSHOT, Paths
from appliance.storage.root_lock import is_locked, locked
from appliance.storage.store import Store
from appliance.threads import in_thread

logger = logging.getLogger(__name__)

HALF_S = 300.0
"""A volume is made in a moment; one that has no name for so long is nobody's."""
SURE_S = 3600.0
"""For how long the calendar must say that the time of a kept thing is over before we believe it."""
UNKNOWN = "unknown"
FOUND = "found without a VM or a row"


class Surveyor:
    """Looks after what nobody looks after."""

    def __init__(
        self,
        store: Store,
        settings: Callable[[], Settings],
        installation: InstallationId,
        kits: Mapping[BackendKind, Equipment],
        supervisor: Supervisor,
        clock: Clock,
    ) -> None:
        self._store = store
        self._settings = settings
        self._installation = installation
        self._kits = kits
        self._supervisor = supervisor
        self._clock = clock
        self._half: dict[Path, float] = {}
        """Since when, by the monotonic clock, a volume has looked half made."""
        self._due: dict[int, float] = {}
        """Since when, by the monotonic clock, the time of a kept thing has been over."""
        self._told: set[str] = set()
        self._failures: dict[str, str] = {}
        self._stuck: set[int] = set()

    async def run(self) -> None:
        """Survey for ever."""
        while True:
            try:
                await self.survey()
            except (ApplianceError, OSError) as exc:
                logger.error("the survey for leaks failed", extra=facts(error=exc))
            await self._clock.sleep(self._settings()[config.SURVEY_DELAY])

    async def survey(self) -> Plan:
        """Look once, and remove what is left behind; returns what was found.

        :raises ApplianceError: the database cannot be read or written
        :raises OSError: the storage cannot be read
        """
        paths = Paths(self._settings())
        busy = self._busy()
        now = self._clock.monotonic()
        old = [path for path, since in self._half.items() if now - since >= HALF_S]
        found = await in_thread(traces.look, self._places(paths), half_before=old)
        half = await in_thread(traces.half_made, paths)
        self._half = {path: self._half.get(path, now) for path in half}
        running = {vm_id for kit in self._kits.values() for vm_id in await kit.backend.survey()}
        rows, backends = await self._rows()
        found = await in_thread(_with_missing, found, rows)
        left = plan(
            rows,
            found,
            installation=self._installation,
            busy={*running, *busy, *self._busy()},
            keeps_roots=self._settings()[config.VM_OVERLAY_PERSISTENT],
        )
        self._failures = {}
        self._stuck.clear()
        for stranger in left.strangers:
            if stranger not in self._told:
                self._told.add(stranger)
                logger.warning("not ours, and left alone", extra=facts(what=stranger))
        await self._tidy(paths, left, backends)
        self._supervisor.forget(but=rows.vms)
        await self._keep(paths, left)
        await self.purge()
        await images.sweep_unfinished(self._store, paths)
        await self._finish_handovers()
        for di_id in left.images:
            with self._trying(f"image {di_id}"):
                if await images.sweep_stray(self._store, paths, di_id):
                    logger.warning("an image without a row was removed", extra=facts(di=di_id))
        with self._trying("quota groups"):
            await in_thread(_drop_orphans, paths)
        await self._tell()
        return left

    async def purge(self) -> None:
        """Remove the kept things whose time is over.

        :raises ApplianceError: the database cannot be read or written
        """
        async with self._store.read() as tx:
            due = [kept for kept in self._surely(await tx.kept.due()) if kept.id not in self._stuck]
        if not due:
            return
        paths = Paths(self._settings())
        async with self._store.read() as tx:
            owned = {vm.id: vm.uuid for vm in await tx.vms.find()}
        for kept in due:
            with self._trying(kept.path):
                self._stuck.add(kept.id)
                gone = await in_thread(self._end, kept, paths, owned)
                async with self._store.write() as tx:
                    await tx.kept.forget([kept.id])
                if gone:
                    logger.info(
                        "kept long enough, removed", extra=facts(path=kept.path, kind=kept.kind, vm=kept.vm)
                    )

    def _surely(self, due: Sequence[Kept]) -> list[Kept]:
        """Those whose time is over for certain: a clock that was wrong at boot is put right meanwhile."""
        now = self._clock.monotonic()
        self._due = {kept.id: self._due.get(kept.id, now) for kept in due}
        return [kept for kept in due if kept.is_given_up or now - self._due[kept.id] >= SURE_S]

    def _end(self, kept: Kept, paths: Paths, owned: dict[VmId, str]) -> bool:
        """Delete a kept thing; false if it is gone, or not to be touched."""
        path = Path(kept.path)
        folders = (paths.all_homefs, paths.homes, paths.kept, paths.overlays)
        if path.parent not in folders or not path.exists():
            return False
        mark = marks.mark_of(path)
        if mark is None or mark.installation != self._installation:
            logger.warning("kept, and not ours: left alone", extra=facts(path=path))
            return False
        if kept.kind is KeptKind.HOME and owned.get(mark.vm_id) == mark.vm_uuid:
            return False
        if path.is_file() and is_in_use(path):
            raise VolumeError(f"a guest still runs on {path}", hint="stop it first")
        if kept.kind is KeptKind.HOME:
            self._end_home(path, paths.root_lock(mark.vm_id))
        else:
            volumes.delete(path)
        return True

    @staticmethod
    def _end_home(path: Path, lock: Path) -> None:
        """Delete a home, unless a guest that nobody knows of works in it, or somebody hands it over."""
        with locked(lock):
            volumes.delete(path)
            lock.unlink(missing_ok=True)

    async def _finish_handovers(self) -> None:
        """Let homes follow whose handover was killed: until then their VMs cannot start."""
        try:
            done = await handover.finish(self._store, self._settings(), report=lambda vm: None)
        except ApplianceError as exc:
            logger.error("a handover that was killed cannot be finished", extra=facts(error=exc))
        else:
            for moved in done:
                logger.info("a handover that was killed is finished", extra=facts(vm=moved.vm))

    async def _rows(self) -> tuple[Rows, Mapping[VmId, BackendKind]]:
        async with self._store.read() as tx:
            vms = await tx.vms.find()
            rows = Rows(
                vms={vm.id: vm.uuid for vm in vms},
                dis={di.id for di in await tx.images.find(trash=True)},
                given={DiId(number) for number in await tx.operations.objects(*MAKES_IMAGES)},
                kept=await tx.kept.find(),
            )
        return rows, {vm.id: vm.backend for vm in vms}

    def _busy(self) -> set[VmId]:
        return {machine.vm_id for machine in self._supervisor.machines() if not machine.is_at_rest}

    async def _tidy(self, paths: Paths, left: Plan, backends: Mapping[VmId, BackendKind]) -> None:
        for vm_id, things in left.tidy.items():
            # Of a VM that is no more, nobody knows what ran it.
            kinds = [kind for kind in self._kits if backends.get(vm_id, kind) is kind] or list(self._kits)
            with self._trying(f"VM {vm_id}: {', '.join(things)}"):
                if not all([await self._supervisor.tidy(vm_id, kind, cause="survey") for kind in kinds]):
                    continue
                if vm_id not in backends:
                    for kit in self._kits.values():
                        await kit.disks.erase_root(vm_id)
                if "link" in things:
                    await self._unlink(paths, vm_id)
                logger.warning("left behind, removed", extra=facts(vm=vm_id, what=", ".join(things)))
        if left.tidy:
            await self._tell_what_stayed(paths, left)
        for vm_id in left.consoles:
            with self._trying(f"console files of VM {vm_id}"):
                for file in paths.consoles.glob(f"{vm_id}.*"):
                    file.unlink(missing_ok=True)
                logger.info("console files of a deleted VM removed", extra=facts(vm=vm_id))
        for path in left.half:
            with self._trying(str(path)):
                await in_thread(volumes.delete, path)
                logger.warning("half made, removed", extra=facts(path=path))

    async def _tell_what_stayed(self, paths: Paths, left: Plan) -> None:
        found = await in_thread(traces.look, self._places(paths))
        for vm_id in left.tidy.keys() - self._busy():
            if (lock := paths.root_lock(vm_id)).exists() and is_locked(lock):
                continue  # somebody works on its files: a handover
            stays = [*found.traces.get(vm_id, ()), *(("root",) if vm_id in found.roots else ())]
            if again := set(stays) & set(left.tidy[vm_id]):
                self._failures[f"VM {vm_id}"] = f"{', '.join(sorted(again))}: see the log"

    async def _unlink(self, paths: Paths, vm_id: VmId) -> None:
        """Remove a link that nobody recorded. Whoever starts a guest holds the lock of its root."""
        places, lock = self._places(paths), paths.root_lock(vm_id)
        with locked(lock):
            if vm_id in traces.links(places):
                await bridge.remove(f"{places.link_prefix}{vm_id}")
            lock.unlink(missing_ok=True)

    async def _keep(self, paths: Paths, left: Plan) -> None:
        """Give a row to what is kept without one, and forget the rows of what is gone."""
        now, settings = self._clock.now(), self._settings()
        homes_end = now + timedelta(days=settings[config.KEPT_HOME_DAYS])
        roots_end = now + timedelta(days=settings[config.KEPT_ROOT_DAYS])
        homes = [(home, mark) for mark in left.homes for home in paths.homes_of(mark.vm_id) if home.exists()]
        kept = [(KeptKind.HOME, home, mark, homes_end) for home, mark in homes]
        for path, mark in left.kept.items():
            # Whose a snapshot was nobody knows any more: it is kept as a home is, and restored by nobody.
            is_snapshot = bool(HOME_SNAPSHOT.fullmatch(path.name))
            kind, until = (KeptKind.SNAPSHOT, homes_end) if is_snapshot else (KeptKind.ROOT, roots_end)
            kept.append((kind, path, mark, until))
        if not kept and not left.gone:
            return
        async with self._store.write() as tx:
            names = {vm.id: (vm.name, vm.user) for vm in await tx.vms.find()}
            for kind, path, mark, until in kept:
                name, owner = _known(names, mark)
                await tx.kept.add(
                    kind, path, vm_id=mark.vm_id, vm=name, owner=owner, reason=FOUND, until=until
                )
            await tx.kept.forget(left.gone)
        for kind, path, _, until in kept:
            logger.warning("found and kept", extra=facts(path=path, kind=kind, until=until.isoformat()))

    async def _tell(self) -> None:
        """Raise an alarm for each thing that cannot be removed, and clear those of things that are gone."""
        async with self._store.write() as tx:
            for what, why in self._failures.items():
                await tx.alarms.raise_(AlarmKind.LEAK, what[:128], f"{what} cannot be removed: {why}")
            await tx.alarms.clear_all(AlarmKind.LEAK, but=[what[:128] for what in self._failures])

    @contextmanager
    def _trying(self, what: str) -> Iterator[None]:
        try:
            yield
        except (ApplianceError, OSError) as exc:
            self._failures[what] = str(exc)
            logger.error("left behind and cannot be removed", extra=facts(what=what, error=exc))

    def _places(self, paths: Paths) -> Places:
        settings = self._settings()
        return Places(
            paths, self._installation, settings[config.NETWORK_BRIDGE], settings[config.NETWORK_DEVICE_PREFIX]
        )


def _with_missing(found: Found, rows: Rows) -> Found:
    missing = [kept.id for kept in rows.kept if not Path(kept.path).exists()]
    return replace(found, missing=missing)


def _known(names: dict[VmId, tuple[str, str]], mark: Mark) -> tuple[str, str]:
    return names.get(mark.vm_id, (f"number {mark.vm_id}", UNKNOWN))


def _drop_orphans(paths: Paths) -> None:
    if not subvolumes.is_btrfs(paths.all_rootfs):
        return
    for group in quotas.orphans(paths.all_rootfs):
        quotas.remove_group(paths.all_rootfs, group)
