"""The survey for leaks among disks of virtual machines: homes go in their time, the rest at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import update

from appliance.clock import SystemClock
from appliance.config import Settings
from appliance.errors import VolumeError
from appliance.model import AlarmKind, BackendKind, DiId, InstallationId, Kept, KeptKind, Mark, VmId
from appliance.ops import reset
from appliance.runtime.performer import Equipment, Performer
from appliance.runtime.supervisor import Supervisor
from appliance.runtime.surveyor import FOUND, HALF_S, Surveyor
from appliance.signals import ChangeFeed
from appliance.storage.image_lock import is_in_use
from appliance.storage.migrate import upgrade
from appliance.storage.paths import Paths
from appliance.storage.qcow2 import Qcow2Disks
from appliance.storage.schema import osfs
from appliance.storage.store import Store
from tests.support import disks as images
from tests.support.disks import running
from tests.support.fake_backend import FakeBackend
from tests.support.store import furnish, url

pytestmark = pytest.mark.kvm

ONE, NOBODY, DI = VmId(1), VmId(9), DiId(1)
INSTALLATION = InstallationId("0a1b2c3d")


class EarlyClock(SystemClock):
    """A clock whose timers may be ahead."""

    ahead_s = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead_s


class Ground:
    """An installation without its daemon: rows, disks and the surveyor."""

    def __init__(
        self, paths: Paths, store: Store, surveyor: Surveyor, disks: Qcow2Disks, clock: EarlyClock
    ) -> None:
        self.paths, self.store, self.surveyor, self.disks, self.clock = paths, store, surveyor, disks, clock

    def mark(self, vm_id: VmId, uuid: str = "uuid-1") -> Mark:
        return Mark(installation=INSTALLATION, vm_id=vm_id, vm_uuid=uuid, di_id=DI)

    async def kept(self) -> list[Kept]:
        async with self.store.read() as tx:
            return await tx.kept.find()

    async def give_up(self) -> None:
        async with self.store.write() as tx:
            await tx.kept.end_now([kept.id for kept in await tx.kept.find()])

    async def alarms(self) -> list[str]:
        async with self.store.read() as tx:
            return [alarm.text for alarm in await tx.alarms.find() if alarm.kind is AlarmKind.LEAK]


@asynccontextmanager
async def ground(tmp_path: Path, **changes: str) -> AsyncIterator[Ground]:
    settings = Settings(
        {
            "path.storage.root": str(tmp_path / "storage"),
            "path.run": str(tmp_path / "run"),
            **{name.replace("__", "."): value for name, value in changes.items()},
        }
    )
    paths, clock = Paths(settings), EarlyClock()
    for folder in paths.storage:
        folder.mkdir(parents=True)
    images.qcow2(paths.image(DI, "a.qcow2"))
    upgrade(url(tmp_path))
    store = await Store.open(url(tmp_path), clock)
    disks, fake, before = Qcow2Disks(paths, INSTALLATION), FakeBackend(), asyncio.all_tasks()
    kits = {BackendKind.LXC: Equipment(fake, fake, fake), BackendKind.KVM: Equipment(fake, disks, fake)}
    try:
        await disks.check()
        async with store.write() as tx:
            await furnish(tx)
            await tx.connection.execute(update(osfs).values(backend=BackendKind.KVM))
        async with asyncio.TaskGroup() as tasks:
            performer = Performer(
                store,
                lambda: settings,
                INSTALLATION,
                kits,
                ChangeFeed(),
                clock,
                lambda vm_id: supervisor.machine(vm_id),
            )
            supervisor = Supervisor(performer, tasks, clock, boot_slots=lambda: 2)
            surveyor = Surveyor(store, lambda: settings, INSTALLATION, kits, supervisor, clock)
            yield Ground(paths, store, surveyor, disks, clock)
            for task in asyncio.all_tasks() - before:
                task.cancel()
    finally:
        await store.close()


async def test_overlays_of_vms_at_rest_are_removed(tmp_path: Path) -> None:
    async with ground(tmp_path) as at:
        roots = [await at.disks.clone_root(at.mark(vm_id), keep=False) for vm_id in (ONE, NOBODY)]
        await at.surveyor.survey()
        assert not any(root.exists() for root in roots)
        assert (await at.surveyor.survey()).is_empty
        assert await at.alarms() == []


async def test_overlays_that_survive_restarts_are_their_vms(tmp_path: Path) -> None:
    async with ground(tmp_path, vm__overlay__persistent="1") as at:
        theirs = await at.disks.clone_root(at.mark(ONE), keep=True)
        nobodys = await at.disks.clone_root(at.mark(NOBODY), keep=True)
        await at.surveyor.survey()
        assert theirs.exists()
        assert not nobodys.exists()


async def test_homes_are_kept_and_kept_things_end_in_time(tmp_path: Path) -> None:
    async with ground(tmp_path) as at:
        theirs = await at.disks.ensure_home(at.mark(ONE), size_mib=10)
        home = await at.disks.ensure_home(at.mark(NOBODY, "uuid-9"), size_mib=10)
        await at.disks.clone_root(at.mark(ONE), keep=False)
        aside = at.disks.aside(ONE, at.clock.now())
        assert await at.disks.put_aside(ONE, aside)
        await at.surveyor.survey()
        rows = {Path(row.path): row for row in await at.kept()}
        assert {path: row.kind for path, row in rows.items()} == {home: KeptKind.HOME, aside: KeptKind.ROOT}
        assert {row.reason for row in rows.values()} == {FOUND}
        until = rows[home].until
        assert until is not None
        assert until - rows[home].at > timedelta(days=29)
        await at.surveyor.purge()
        assert home.exists()
        assert aside.exists()
        await at.give_up()
        await at.surveyor.purge()
        assert not home.exists()
        assert not aside.exists()
        assert theirs.exists()
        assert await at.kept() == []
        assert (await at.surveyor.survey()).is_empty


async def test_what_a_guest_has_open_is_not_removed(tmp_path: Path) -> None:
    """A guest that nobody knows of any more holds the locks of its disks."""
    async with ground(tmp_path) as at:
        home = await at.disks.ensure_home(at.mark(NOBODY), size_mib=10)
        root = await at.disks.clone_root(at.mark(NOBODY), keep=False)
        await at.surveyor.survey()
        root = await at.disks.clone_root(at.mark(NOBODY), keep=False)
        await at.give_up()
        with running(home), running(root):
            assert is_in_use(home)
            await at.surveyor.survey()
            assert home.exists()
            assert root.exists()
            assert any(f"a guest still runs on {home}" in alarm for alarm in await at.alarms())
            with pytest.raises(VolumeError, match="a guest still runs on"):
                await at.disks.clone_root(at.mark(NOBODY), keep=False)
            with pytest.raises(VolumeError, match=r"cannot grow: Could not open .*lock"):
                await at.disks.ensure_home(at.mark(NOBODY), size_mib=20)
        assert not is_in_use(home)
        await at.surveyor.survey()
        assert not home.exists()
        assert not root.exists()
        assert await at.alarms() == []


async def test_what_is_half_made_goes_when_it_has_been_so_for_long(tmp_path: Path) -> None:
    async with ground(tmp_path) as at:
        half = [
            at.paths.overlays / ".1-1-overlay.qcow2.0a1b2c3d",
            at.paths.homes / ".1-data.qcow2.0a1b2c3d",
        ]
        for file in half:
            images.blank(file)
        for _ in range(2):
            await at.surveyor.survey()
            assert all(file.exists() for file in half)
        at.clock.ahead_s = HALF_S
        await at.surveyor.survey()
        assert not any(file.exists() for file in half)


async def test_what_is_not_ours_stays(tmp_path: Path) -> None:
    async with ground(tmp_path) as at:
        stranger = replace(at.mark(NOBODY), installation=InstallationId("ffffffff"))
        others = Qcow2Disks(at.paths, stranger.installation)
        files = [
            await others.clone_root(stranger, keep=False),
            await others.ensure_home(stranger, size_mib=10),
            images.blank(at.paths.overlay(DI, ONE)),
            images.blank(at.paths.home_disk(ONE)),
            at.paths.overlays / "notes",
        ]
        files[-1].write_text("mine")
        for _ in range(2):
            await at.surveyor.survey()
        assert all(file.exists() for file in files)
        assert await at.kept() == []
        assert at.paths.image(DI, "a.qcow2").exists()


async def test_a_reset_takes_disks_of_ours_and_none_that_runs(tmp_path: Path) -> None:
    async with ground(tmp_path) as at:
        settings = Settings(
            {
                "nodename": "x",
                "path.storage.root": str(tmp_path / "storage"),
                "path.run": str(tmp_path / "run"),
                "database.url": url(tmp_path),
            }
        )
        async with at.store.write() as tx:
            await tx.settings.found_installation(INSTALLATION, tx.at)
        root = await at.disks.clone_root(at.mark(ONE), keep=False)
        home = await at.disks.ensure_home(at.mark(ONE), size_mib=10)
        theirs = images.blank(at.paths.home_disk(NOBODY))
        estate = await reset.survey(settings, at.clock)
        assert (estate.roots, estate.homes, theirs in estate.foreign) == ((root,), (home,), True)
        with running(root), pytest.raises(Exception, match="1 guests run"):
            reset.check_idle(settings, estate)
        reset.check_idle(settings, estate)
        await reset.remove(settings, estate, lambda _: None)
        assert not root.exists()
        assert not home.exists()
        assert theirs.exists()
