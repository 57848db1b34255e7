"""The survey for leaks on a real host: what is ours goes, what runs or is somebody else's stays."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, replace
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import update

from appliance.clock import SystemClock
from appliance.config import Settings
from appliance.errors import VolumeError
from appliance.model import (
    AlarmKind,
    BackendKind,
    DiId,
    Kept,
    KeptKind,
    Mark,
    StartedBy,
    VmId,
    VmRuntime,
    VmState,
)
from appliance.ops import images, vms
from appliance.runtime.events import StartWanted, StopWanted
from appliance.runtime.machine import Phase
from appliance.runtime.performer import Equipment, Performer
from appliance.runtime.supervisor import Supervisor
from appliance.runtime.surveyor import FOUND, HALF_S, Surveyor
from appliance.signals import ChangeFeed
from appliance.storage import marks, quotas, root_lock, subvolumes
from appliance.storage.homes import Account
from appliance.storage.migrate import upgrade
from appliance.storage.operations import Kind
from appliance.storage.schema import kept as kept_table
from appliance.storage.store import Store
from tests.support.lxc_rig import DI, Site
from tests.support.mortal import mortal
from tests.support.store import furnish, url
from tests.support.traces import traces

pytestmark = pytest.mark.host

ONE, NOBODY, LONGEST_S = VmId(1), VmId(9), 30.0
CGROUPS = Path("/sys/fs/cgroup")


class EarlyClock(SystemClock):
    """A clock whose timers may be ahead."""

    ahead_s = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead_s


class Ground:
    """An installation without its daemon: rows, disks, machines and the surveyor."""

    def __init__(
        self, site: Site, store: Store, supervisor: Supervisor, surveyor: Surveyor, clock: EarlyClock
    ) -> None:
        self.clock = clock
        self.site, self.store = site, store
        self.paths = site.paths
        self.supervisor, self.surveyor = supervisor, surveyor

    def mark(self, vm_id: VmId, uuid: str = "uuid-1") -> Mark:
        return Mark(installation=self.site.installation, vm_id=vm_id, vm_uuid=uuid, di_id=DI)

    def volume(self, path: Path, mark: Mark | None) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        subvolumes.create(path, mark)
        return path

    async def kept(self) -> list[Kept]:
        async with self.store.read() as tx:
            return await tx.kept.find()

    async def alarms(self) -> list[str]:
        async with self.store.read() as tx:
            return [alarm.text for alarm in await tx.alarms.find() if alarm.kind is AlarmKind.LEAK]

    async def reach(self, phase: Phase) -> None:
        async with asyncio.timeout(LONGEST_S):
            while (machine := self.supervisor.machine(ONE)) is None or machine.phase is not phase:
                await asyncio.sleep(0.02)

    async def settled(self) -> VmRuntime:
        """The row, once it says that the VM is stopped: it is written in the lane."""
        async with asyncio.timeout(LONGEST_S):
            while True:
                async with self.store.read() as tx:
                    runtime = (await tx.vms.get(ONE)).runtime
                if runtime.vm_state is VmState.STOPPED:
                    return runtime
                await asyncio.sleep(0.02)

    def start(self) -> None:
        self.supervisor.post(
            StartWanted(
                vm_id=ONE,
                at=SystemClock().now(),
                cause="test",
                backend=BackendKind.LXC,
                started_by=StartedBy.COMMAND,
                run=1,
            )
        )

    def stop(self) -> None:
        self.supervisor.post(StopWanted(vm_id=ONE, at=SystemClock().now(), cause="test", restart=False))


@asynccontextmanager
async def ground(site: Site, tmp_path: Path, **changes: str) -> AsyncIterator[Ground]:
    await site.connect()
    settings = Settings(
        {
            **site.settings.written,
            "vm.network.firewall.nat.iface": "",
            "internal.hkd.lxc.timeout.on_state.stopping.stop": "1",
            **changes,
        }
    )
    upgrade(url(tmp_path))
    store = await Store.open(url(tmp_path), SystemClock())
    rig = site.rig()
    kit = Equipment(rig.backend, rig.disks, rig.fences)
    await rig.disks.check()  # type: ignore[attr-defined]  # the disks of a site are btrfs's
    clock = EarlyClock()
    try:
        async with store.write() as tx:
            host, *_ = await furnish(tx)
            await vms.edit(tx, settings, [await tx.vms.get(ONE)], {"ip": "10.44.0.101"}, by="test")
            await tx.runtimes.found_here({ONE}, host)
        async with mortal() as tasks:
            performer = Performer(
                store,
                lambda: settings,
                site.installation,
                {BackendKind.LXC: kit},
                ChangeFeed(),
                SystemClock(),
                lambda vm_id: supervisor.machine(vm_id),
            )
            supervisor = Supervisor(performer, tasks, SystemClock(), boot_slots=lambda: 2)
            kits = {BackendKind.LXC: kit}
            surveyor = Surveyor(store, lambda: settings, site.installation, kits, supervisor, clock)
            yield Ground(site, store, supervisor, surveyor, clock)
    finally:
        await store.close()


def control_groups(container: str) -> list[Path]:
    """Empty groups as a dead monitor leaves them, in every hierarchy."""
    tops = (
        [CGROUPS]
        if (CGROUPS / "cgroup.controllers").exists()
        else [p for p in CGROUPS.iterdir() if p.is_dir()]
    )
    groups = [
        top / f"lxc.{kind}.{container}"
        for top in tops
        if not top.is_symlink()
        for kind in ("payload", "monitor")
    ]
    for group in groups:
        group.mkdir()
    return groups


def link(name: str, bridge: str) -> None:
    for words in (
        ("link", "add", name, "type", "veth", "peer", "name", f"{name}p"),
        ("link", "set", name, "master", bridge),
    ):
        subprocess.run(["ip", *words], check=True)


def exists(name: str) -> bool:
    return subprocess.run(["ip", "link", "show", name], capture_output=True, check=False).returncode == 0


async def test_what_is_left_of_runs_is_removed(site: Site, tmp_path: Path) -> None:
    async with ground(site, tmp_path) as at:
        leaked: list[Callable[[], bool]] = []
        for vm_id in (ONE, NOBODY):
            container = f"qvd-{site.installation}-{vm_id}"
            groups = control_groups(container)
            link(f"qvd{vm_id}", "qvdnet")
            folder = at.paths.lxc / container
            folder.mkdir(parents=True)
            (folder / "config").touch()
            root = at.volume(at.paths.rootfs(vm_id), at.mark(vm_id))
            at.paths.root_lock(vm_id).touch()
            files = [*groups, folder, root, at.paths.root_lock(vm_id)]
            leaked += [file.exists for file in files]
            leaked.append(lambda name=f"qvd{vm_id}": exists(name))  # type: ignore[misc]  # bound at once
        assert all(there() for there in leaked)
        await at.surveyor.survey()
        assert not any(there() for there in leaked)
        assert (await at.surveyor.survey()).is_empty
        assert await at.alarms() == []
    assert traces(site.installation) == [] or all("mount" in trace for trace in traces(site.installation))


async def test_homes_are_kept_and_kept_things_end_in_time(site: Site, tmp_path: Path) -> None:
    async with ground(site, tmp_path) as at:
        home = at.volume(at.paths.homefs(NOBODY), at.mark(NOBODY, "uuid-9"))
        (home / "letter").write_text("dear")
        aside = at.volume(at.paths.kept / "1-20300101T000000Z", at.mark(ONE))
        theirs = at.volume(at.paths.homefs(ONE), at.mark(ONE))
        subvolumes.preserve(theirs, snapshot := at.paths.kept / "1-home-20300101T000000Z")
        async with at.store.write() as tx:
            until = SystemClock().now() + timedelta(days=1)
            await tx.kept.add(
                KeptKind.ROOT, at.paths.kept / "gone", vm_id=ONE, vm="x", owner="a", reason="", until=until
            )
        await at.surveyor.survey()
        rows = {Path(row.path): row for row in await at.kept()}
        assert {path: row.kind for path, row in rows.items()} == {
            home: KeptKind.HOME,
            aside: KeptKind.ROOT,
            snapshot: KeptKind.SNAPSHOT,
        }
        assert {row.reason for row in rows.values()} == {FOUND}
        assert rows[snapshot].until == rows[home].until
        assert rows[snapshot].user_id is None, "whose it was nobody knows"
        assert (home / "letter").exists()
        async with at.store.write() as tx:
            await tx.kept.end_now([row.id for row in rows.values()])
        await at.surveyor.purge()
        assert not home.exists()
        assert not aside.exists()
        assert not snapshot.exists()
        assert theirs.exists()
        assert await at.kept() == []


async def test_a_clock_that_is_ahead_for_a_while_removes_nothing(site: Site, tmp_path: Path) -> None:
    """A host whose clock has no battery may believe for a moment that years have passed."""
    async with ground(site, tmp_path) as at:
        home = at.volume(at.paths.homefs(NOBODY), at.mark(NOBODY))
        async with at.store.write() as tx:
            now = SystemClock().now()
            await tx.kept.add(KeptKind.HOME, home, vm_id=NOBODY, vm="x", owner="a", reason="", until=now)
            await tx.connection.execute(update(kept_table).values(at=now - timedelta(days=30)))
        for minutes in (0, 59):
            at.clock.ahead_s = 60 * minutes
            await at.surveyor.purge()
            assert home.exists()
        at.clock.ahead_s = 60 * 60
        await at.surveyor.purge()
        assert not home.exists()


async def test_a_kept_home_that_has_its_vm_again_is_not_removed(site: Site, tmp_path: Path) -> None:
    async with ground(site, tmp_path) as at:
        home = at.volume(at.paths.homefs(ONE), at.mark(ONE))
        async with at.store.write() as tx:
            await tx.kept.add(KeptKind.HOME, home, vm_id=ONE, vm="x", owner="a", reason="", until=tx.at)
        await at.surveyor.purge()
        assert home.exists()
        assert await at.kept() == []


async def test_a_home_in_which_somebody_works_is_not_removed(site: Site, tmp_path: Path) -> None:
    """A guest that was taken for stopped when its VM was deleted, or a handover that has not ended."""
    async with ground(site, tmp_path) as at:
        home, lock = at.volume(at.paths.homefs(NOBODY), at.mark(NOBODY)), at.paths.root_lock(NOBODY)
        async with at.store.write() as tx:
            await tx.kept.add(KeptKind.HOME, home, vm_id=NOBODY, vm="x", owner="a", reason="", until=tx.at)
        with root_lock.locked(lock):
            await at.surveyor.purge()
            assert home.exists()
            assert len(await at.kept()) == 1
        await at.surveyor.survey()
        assert not home.exists()
        assert not lock.exists()
        assert await at.kept() == []


async def test_a_handover_that_was_killed_is_finished(site: Site, tmp_path: Path) -> None:
    async with ground(site, tmp_path) as at:
        home = at.volume(at.paths.homefs(ONE), at.mark(ONE))
        (home / "alice").mkdir()
        (home / "alice" / "letter").write_text("dear")
        os.chown(home / "alice" / "letter", 2000, 2000)
        accounts = Account("alice", 2000, 2000), Account("bob", 2001, 2001)
        plan = json.dumps({"vm": "web-1", "old": asdict(accounts[0]), "new": asdict(accounts[1])})
        async with at.store.write() as tx:
            await tx.operations.begin(Kind.VM_GIVE, ONE, owner="test", pid=1, plan=plan)
        with root_lock.locked(at.paths.root_lock(ONE)):
            await at.surveyor.survey()
            assert (home / "alice" / "letter").exists(), "whoever is at it has not been killed"
            assert await at.alarms() == [], "nor has it left its lock behind"
        await at.surveyor.survey()
        assert (home / "bob" / "letter").stat().st_uid == 2001
        async with at.store.read() as tx:
            assert await tx.operations.unfinished(Kind.VM_GIVE) == []


async def test_what_is_not_ours_stays(site: Site, tmp_path: Path) -> None:
    async with ground(site, tmp_path) as at:
        stranger = replace(at.mark(ONE), installation=type(site.installation)("ffffffff"))
        volumes = [
            at.volume(at.paths.rootfs(ONE), stranger),
            at.volume(at.paths.homefs(ONE), None),
            at.volume(at.paths.kept / "theirs", stranger),
            at.volume(at.paths.homefs(NOBODY), stranger),
        ]
        async with at.store.write() as tx:
            await tx.kept.add(
                KeptKind.ROOT, at.paths.kept / "theirs", vm_id=ONE, vm="x", owner="a", reason="", until=tx.at
            )
            for path in (tmp_path / "elsewhere", at.paths.basefs(DI)):
                await tx.kept.add(KeptKind.ROOT, path, vm_id=ONE, vm="x", owner="a", reason="", until=tx.at)
        await at.surveyor.survey()
        assert all(volume.exists() for volume in volumes)
        assert at.paths.basefs(DI).exists()


async def test_images_without_rows_go_unless_somebody_is_at_work_on_them(site: Site, tmp_path: Path) -> None:
    async with ground(site, tmp_path) as at:
        paths = at.paths
        stray = [paths.images / "7-x.tar", paths.image_part(DiId(7)), at.volume(paths.basefs(DiId(7)), None)]
        stray.append(at.volume(paths.all_basefs / ".7.unpacking", None))
        working = [paths.images / "8-x.tar", at.volume(paths.all_basefs / ".8.unpacking", None)]
        for file in (*stray, *working):
            if not file.exists():
                file.touch()
        async with at.store.write() as tx:
            for number in (7, 8):
                began = await tx.operations.begin(Kind.DI_ADD, number, owner="test", pid=1)
                await tx.operations.end(began, "failed")
        import fcntl

        with paths.image_lock(DiId(8)).open("w") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            await at.surveyor.survey()
            assert not any(file.exists() for file in stray)
            assert all(file.exists() for file in working)
        await at.surveyor.survey()
        assert not any(file.exists() for file in working)
        assert paths.basefs(DI).exists()


async def test_what_a_killed_import_left_and_cannot_be_removed_is_told_in_a_line(
    site: Site, tmp_path: Path
) -> None:
    async with ground(site, tmp_path) as at:
        async with at.store.write() as tx:
            await tx.operations.begin(Kind.DI_ADD, 7, owner="test", pid=1)
        odd = at.paths.images / "7-x.tar"
        odd.mkdir()
        with pytest.raises(VolumeError, match=r"7-x\.tar cannot be removed: Is a directory"):
            await images.sweep_unfinished(at.store, at.paths)
        odd.rmdir()
        assert await images.sweep_unfinished(at.store, at.paths) == [DiId(7)]


async def test_images_of_another_database_stay_and_never_become_a_new_one(site: Site, tmp_path: Path) -> None:
    async with ground(site, tmp_path) as at:
        paths = at.paths
        async with at.store.read() as tx:
            osf = (await tx.images.find())[0].osf_id
        async with at.store.write() as tx:
            number = await tx.images.reserve_id(osf)
        archive, base = paths.images / f"{number + 1}-x.tar", at.volume(paths.basefs(DiId(number + 2)), None)
        archive.touch()
        assert (await at.surveyor.survey()).is_empty
        async with at.store.write() as tx:
            assert await images.free_id(tx, paths, osf) == number + 3
        assert archive.exists()
        assert base.exists()


async def test_what_is_half_made_goes_when_it_has_been_so_for_long(site: Site, tmp_path: Path) -> None:
    async with ground(site, tmp_path) as at:
        half = at.volume(at.paths.all_rootfs / ".1-fs.0a1b2c3d", None)
        for _ in range(2):
            await at.surveyor.survey()
            assert half.exists()
        at.clock.ahead_s = HALF_S
        await at.surveyor.survey()
        assert not half.exists()


async def test_what_cannot_be_removed_is_one_alarm_until_it_is_gone(site: Site, tmp_path: Path) -> None:
    async with ground(site, tmp_path) as at:
        groups = control_groups(f"qvd-{site.installation}-{ONE}")
        busy = subprocess.Popen(["sleep", "infinity"])
        try:
            for group in groups:
                if group.parent.name in ("pids", CGROUPS.name):
                    (group / "cgroup.procs").write_text(f"{busy.pid}\n")
            for _ in range(2):
                await at.surveyor.survey()
                (said,) = await at.alarms()
                assert said.startswith("VM 1 cannot be removed: control groups")
        finally:
            busy.kill()
            busy.wait()
        await at.surveyor.survey()
        assert await at.alarms() == []
        assert not any(group.exists() for group in groups)


async def test_a_guest_that_runs_or_begins_is_not_touched(site: Site, tmp_path: Path) -> None:
    """A survey goes on all the time while a VM starts, is left alone by its survey, and stops."""
    async with ground(site, tmp_path) as at:
        surveys = 0

        async def survey_on() -> None:
            nonlocal surveys
            while True:
                await at.surveyor.survey()
                surveys += 1

        surveying = asyncio.ensure_future(survey_on())
        try:
            for _ in range(3):
                at.start()
                await at.reach(Phase.AWAITING_VMA)
                already = surveys
                async with asyncio.timeout(LONGEST_S):
                    while surveys < already + 2:
                        await asyncio.sleep(0.02)
                machine = at.supervisor.machine(ONE)
                assert machine is not None
                assert machine.phase is Phase.AWAITING_VMA
                assert ONE in await site.backend().survey()
                assert marks.mark_of(at.paths.rootfs(ONE)) is not None
                at.stop()
                await at.reach(Phase.STOPPED)
        finally:
            surveying.cancel()
            await asyncio.wait([surveying])
        runtime = await at.settled()
        assert runtime.failure is None
        assert (await at.surveyor.survey()).is_empty
        assert quotas.is_consistent(at.paths.root)
