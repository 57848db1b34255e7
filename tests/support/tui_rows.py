"""What is in the databases that pictures of the TUI are taken of; the same in every run, at every place."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from hashlib import sha256
from itertools import groupby
from pathlib import Path
from typing import Any

from sqlalchemy import insert

from appliance.model import AlarmKind, BackendKind, DiId, HostState, OsfId, UserId
from appliance.storage.migrate import upgrade
from appliance.storage.operations import Kind
from appliance.storage.properties import Owner
from appliance.storage.schema import vm_runtimes, vms
from appliance.storage.store import Store, Tx

NOW = datetime(2026, 11, 23, 11, 0, tzinfo=UTC)
"""A Monday."""
BY = "qa:root"
PEOPLE = ("alice", "bruno", "chiara", "dmitri", "eva", "farid", "greta", "hugo")
FAILURE = "the guest ended while it booted: exit status 127"
Row = dict[str, Any]
Fill = Callable[["Shelf"], Awaitable[None]]


class Shelf:
    """A transaction at a chosen time; rows of desktops are gathered and written at once."""

    def __init__(self, store: Store, calendar: Dated) -> None:
        self._store = store
        self._calendar = calendar
        self._vms: list[Row] = []
        self._runtimes: list[Row] = []
        self.host = 0

    async def at(self, minutes_ago: float, work: Callable[[Tx], Awaitable[Any]]) -> Any:
        """Do something as it was done so long ago."""
        self._calendar.moment = NOW - timedelta(minutes=minutes_ago)
        async with self._store.write() as tx:
            return await work(tx)

    def vm(self, name: str, user: UserId, osf: OsfId, *, tag: str = "default", **runtime: object) -> int:
        """A desktop; returns its id."""
        number = len(self._vms) + 1
        address = f"10.9.{number // 250}.{number % 250 + 1}"
        self._vms.append(
            {
                "id": number,
                "uuid": f"{number:036}",
                "name": name,
                "user_id": user,
                "osf_id": osf,
                "di_tag": tag,
                "ip": address,
                "subid_slot": number,
            }
        )
        self._runtimes.append({"vm_id": number, **runtime})
        return number

    async def write_vms(self) -> None:
        """Write the desktops."""
        rows, self._vms = self._vms, []
        runtimes, self._runtimes = self._runtimes, []

        async def write(tx: Tx) -> None:
            await tx.connection.execute(insert(vms), rows)
            for _, group in groupby(sorted(runtimes, key=_names), key=_names):
                await tx.connection.execute(insert(vm_runtimes), list(group))

        await self.at(0, write)


def _names(row: Row) -> list[str]:
    return sorted(row)


class Dated:
    """A calendar on which it is the moment that was set."""

    def __init__(self) -> None:
        self.moment = NOW

    def now(self) -> datetime:
        return self.moment


def build(database: Path, fill: Fill) -> None:
    """Make a database and fill it."""
    database.parent.mkdir(parents=True, exist_ok=True)
    url = f"sqlite:///{database}"
    upgrade(url)

    async def make() -> None:
        calendar = Dated()
        store = await Store.open(url, calendar)
        try:
            await fill(Shelf(store, calendar))
        finally:
            await store.close()

    asyncio.run(make())


def stamp(minutes_ago: float) -> datetime:
    """So many minutes before the present."""
    return NOW - timedelta(minutes=minutes_ago)


def runs(host: int, di: DiId, minutes: float, **more: object) -> Row:
    """A desktop that has been running for a while."""
    return {
        "vm_state": "running",
        "vm_phase": "running/monitoring",
        "vm_state_ts": stamp(minutes),
        "host_id": host,
        "current_di_id": di,
        "vm_address": "10.9.0.9",
        "started_by": "client",
        **more,
    }


def there(user: UserId, minutes: float, address: str, state: str = "connected") -> Row:
    """Somebody is at a desktop."""
    return {
        "user_state": state,
        "user_state_ts": stamp(minutes),
        "l7r_session": "s",
        "real_user_id": user,
        "user_ip": address,
    }


async def add_osf(tx: Tx, name: str, backend: BackendKind = BackendKind.LXC, **more: Any) -> OsfId:
    """A flavour."""
    given: dict[str, Any] = {"memory_mib": 1024, "cpus": None, "user_storage_mib": None, **more}
    return await tx.osfs.add(name=name, use_overlay=True, backend=backend, **given)


async def add_image(tx: Tx, osf: OsfId, version: str, *tags: str, mib: int = 1800, notes: str = "") -> DiId:
    """An image with tags."""
    di = await tx.images.reserve_id(osf)
    await tx.images.add(
        di,
        osf,
        version=version,
        path=f"{di}-{version}.tar",
        sha256=digest(di),
        size_bytes=mib * 2**20,
        notes=notes or None,
    )
    await tx.images.point(osf, version, di, by=BY, fixed=True)
    for tag in tags:
        await tx.images.point(osf, tag, di, by=BY)
    return di


def digest(di: DiId) -> str:
    """What an archive might hash to."""
    return sha256(str(di).encode()).hexdigest()


async def add_host(shelf: Shelf) -> None:
    """This node, as its daemon declares it."""

    async def add(tx: Tx) -> None:
        shelf.host = await tx.hosts.add("node1", "192.0.2.10")
        await tx.hosts.declare(shelf.host, HostState.RUNNING, pid=812, boot_id="b")
        await tx.hosts.measure(shelf.host, usable_cpu=16, usable_ram=64_000)

    await shelf.at(0.05, add)


async def nothing(shelf: Shelf) -> None:
    """An installation on its first day."""
    await add_host(shelf)


async def company(shelf: Shelf) -> None:
    """A usual day: three flavours, a new image on its way to the desktops of one, some trouble."""
    await add_host(shelf)

    async def long_ago(tx: Tx) -> Row:
        users = [(await tx.users.add(login, None)).id for login in PEOPLE]
        office = await add_osf(tx, "office", memory_mib=2048, cpus=2.0)
        lab = await add_osf(tx, "lab", memory_mib=4096, cpus=4.0, user_storage_mib=10_240)
        cad = await add_osf(tx, "cad", BackendKind.KVM, memory_mib=8192, cpus=4.0)
        office_10 = await add_image(tx, office, "2026-10", "default")
        lab_09 = await add_image(tx, lab, "2026-09", "default", mib=2400)
        cad_10 = await add_image(tx, cad, "2026-10", "default", mib=7900)
        return {
            "users": users,
            "osfs": (office, lab, cad),
            "old": (office_10, lab_09, cad_10),
        }

    made = await shelf.at(60 * 24 * 34, long_ago)
    users, (office, lab, cad) = made["users"], made["osfs"]

    async def lately(tx: Tx) -> tuple[DiId, ...]:
        office_11 = await add_image(tx, office, "2026-11", "default", "test", mib=1900, notes="new browser")
        lab_11 = await add_image(tx, lab, "2026-11", "test", mib=2450)
        cad_11 = await add_image(tx, cad, "2026-11", mib=8100)
        await tx.images.block([cad_11], True)
        for di in (office_11, lab_11, cad_11):
            await tx.log.append(by=BY, what="di add", object=f"di {di}", now=f"2026-11 sha256 {digest(di)}")
        await tx.log.append(
            by=BY, what="di tag", object=f"osf {office} tag default", was="di 1", now=f"di {office_11}"
        )
        return office_11, lab_11, cad_11

    new = await shelf.at(150, lately)
    _desks(shelf, users, made["osfs"], made["old"], new)
    await shelf.write_vms()
    await _doings(shelf, users, lab)


def _desks(
    shelf: Shelf,
    users: list[UserId],
    osfs: tuple[OsfId, ...],
    old: tuple[DiId, ...],
    new: tuple[DiId, ...],
) -> None:
    (office, lab, cad), host = osfs, shelf.host
    limits = {"vm_expiration_soft": stamp(-30), "vm_expiration_hard": stamp(-60 * 23)}
    for number in range(1, 25):
        owner = users[number % 8]
        more: Row = {}
        if number % 3 == 0:
            more = there(owner, 7 * number, f"198.51.100.{number + 10}")
        match number:
            case 4 | 15:
                row: Row = {}
            case 7:
                row = runs(host, new[0], 0.2) | {"vm_state": "starting", "vm_phase": "starting/awaiting-vma"}
            case 11:
                row = _failed(new[0], 42, blocked=True)
            case 13:
                row = runs(host, old[0], 0.1) | {"vm_state": "stopping", "vm_phase": "stopping/shutting-down"}
            case 17:
                row = runs(host, new[0], 95) | {"vm_state": "zombie", "vm_phase": "zombie/reaping"}
            case number if number % 2:
                row = runs(host, new[0], 35 + 3 * number, **more)
            case _:
                row = runs(host, old[0], 60 * 50 + 11 * number, **more, **limits)
                if number == 6:
                    row |= {"expire_asked": 2, "expire_postponed": 1}
        shelf.vm(f"office-{number}", owner, office, **row)
    for number in range(1, 11):
        owner = users[number % 5]
        row = runs(host, old[1], 60 * 24 * 6 + number) if number % 2 else {}
        if number == 3:
            row |= there(owner, 200, "198.51.100.77")
        if number == 8:
            row |= {"blocked": True, "block_cause": "admin"}
        if number == 5:
            row |= {"vm_expiration_hard": stamp(-42)}
        shelf.vm(f"lab-{number}", owner, lab, tag="test" if number == 9 else "default", **row)
    for number in range(1, 5):
        row = runs(host, old[2], 60 * 9 + number) if number < 4 else {}
        if number == 2:
            row |= there(users[number], 0.3, "198.51.100.99", "connecting")
        shelf.vm(f"cad-{number}", users[number], cad, **row)


def _failed(di: DiId, minutes: float, *, blocked: bool = False) -> Row:
    return {
        "failure": FAILURE,
        "failure_cause": "image",
        "failures": 2,
        "failed_at": stamp(minutes),
        "failed_di_id": di,
        "vm_state_ts": stamp(minutes),
        "blocked": blocked,
        "block_cause": "image" if blocked else None,
    }


async def _doings(shelf: Shelf, users: list[UserId], lab: OsfId) -> None:
    """What the log, the alarms and the properties tell."""
    doings: tuple[tuple[float, str, str, str, str | None, str | None], ...] = (
        (120, "qa:root", "vm message", "vm 3", None, "The printer on the second floor is back."),
        (60, "hkd", "expire ask", "vm 6", "di 1", "di 4"),
        (42, "hkd", "vm block", "vm 11", None, "image"),
        (31, "hkd", "expire later", "vm 6", "di 1", "2026-11-23 11:29:00+00:00"),
        (18, "qa:root", "config set", "hkd.vm.starting.max", "4", "6"),
        (9, "tui:root", "expire", "1 vms", None, "hard 2026-11-23 11:42 for 1 VMs"),
        (5, "tui:root", "user disable", "user 8", None, None),
        (0.2, "tui:root", "vm start", "vm 7", None, None),
        (0.1, "tui:root", "vm restart", "vm 13", None, None),
    )
    for minutes, *line in doings:
        await shelf.at(minutes, partial(_tell, line=line))

    async def rest(tx: Tx) -> None:
        await tx.alarms.raise_(AlarmKind.POOL, "pool", "the storage pool is 91 % full")
        await tx.properties.set(Owner.VM, [3, 6], {"room": "12", "cost.centre": "4711"})
        await tx.users.enable([users[7]], False)
        arriving = await tx.images.reserve_id(lab)
        work = await tx.operations.begin(Kind.DI_ADD, arriving, owner=BY, pid=1, plan=f'{{"osf_id": {lab}}}')
        await tx.operations.progress(work, 0.43)

    await shelf.at(4, rest)


async def _tell(tx: Tx, line: Sequence[Any]) -> None:
    by, what, concerned, was, now = line
    await tx.log.append(by=by, what=what, object=concerned, was=was, now=now)


async def crowd(shelf: Shelf) -> None:
    """Ten thousand desktops of two hundred people."""
    await add_host(shelf)

    async def before(tx: Tx) -> tuple[list[UserId], OsfId, DiId, DiId]:
        users = [(await tx.users.add(f"user{number:03}", None)).id for number in range(200)]
        osf = await add_osf(tx, "office")
        old = await add_image(tx, osf, "2026-10")
        return users, osf, old, await add_image(tx, osf, "2026-11", "default")

    users, osf, old, new = await shelf.at(1440, before)
    for number in range(1, 10_001):
        row: Row = {}
        if number % 5 < 3:
            row = runs(shelf.host, old if number % 7 else new, number % 9000)
            if number % 10 == 2:
                row |= there(users[number % 200], number % 300, "198.51.100.7")
            if number % 50 == 1:
                row |= {"vm_expiration_hard": stamp(-number)}
        elif number % 500 == 3:
            row = _failed(new, number % 900)
        shelf.vm(f"desk-{number}", users[number % 200], osf, **row)
    await shelf.write_vms()


async def long_names(shelf: Shelf) -> None:
    """Names as long as they may be, and in other scripts."""
    await add_host(shelf)
    logins = ("a" * 60, "鈴木一郎", "максимилиана", "user.with.a.rather.long.login@example.org")
    flavours = ("flavour-" * 7 + "last", "設計用デスクトップ")
    versions = ("2026-11-23T11:00:00+00:00-" + "0123456789abcdef" * 2, "第二十三版")

    async def before(tx: Tx) -> tuple[list[UserId], list[OsfId], list[DiId]]:
        users = [(await tx.users.add(login, None)).id for login in logins]
        osfs = [await add_osf(tx, name) for name in flavours]
        dis = [
            await add_image(tx, osf, version, "default", "試験")
            for osf, version in zip(osfs, versions, strict=True)
        ]
        return users, osfs, dis

    users, osfs, dis = await shelf.at(600, before)
    names = (
        "desktop-of-the-department-of-very-long-names-number-0000001-",
        "営業部のデスクトップ",
        "名" * 30,
    )
    for number, name in enumerate(names):
        row = runs(
            shelf.host, dis[number % 2], 100 + number, **there(users[number], number, "2001:db8::1234:5678")
        )
        shelf.vm(name, users[number], osfs[number % 2], **row)
    shelf.vm("x" * 60, users[3], osfs[0], **_failed(dis[0], 5))
    shelf.vm("ждёт", users[2], osfs[1], vm_state="starting", vm_phase="starting/queued", waits_for="memory")
    await shelf.write_vms()
    await shelf.at(1, partial(_tell, line=(BY, "vm edit", f"vm {names[2]}", "試験", "default")))


async def ill(shelf: Shelf) -> None:
    """Everything that can be wrong with a desktop, and every state on the way."""
    await add_host(shelf)

    async def before(tx: Tx) -> tuple[UserId, OsfId, DiId, DiId]:
        user = (await tx.users.add("alice", None)).id
        osf = await add_osf(tx, "office")
        old = await add_image(tx, osf, "2026-10")
        new = await add_image(tx, osf, "2026-11", "default")
        lone = await add_osf(tx, "lone")
        assert lone
        await tx.alarms.raise_(AlarmKind.IMAGE, f"di {new}", "2026-11 of office does not boot")
        await tx.alarms.raise_(AlarmKind.CERTIFICATE, "l7r", "the certificate ends in 3 days")
        return user, osf, old, new

    user, osf, old, new = await shelf.at(90, before)
    for name, row in _ills(shelf.host, old, new, user):
        shelf.vm(name, user, osf, **row)
    shelf.vm("no-image", user, OsfId(osf + 1))
    await shelf.write_vms()


def _ills(host: int, old: DiId, new: DiId, user: UserId) -> Iterator[tuple[str, Row]]:
    yield "fails-once", _failed(new, 3)
    yield "fails-and-is-blocked", _failed(new, 4, blocked=True)
    yield "blocked-by-hand", {"blocked": True, "block_cause": "admin"}
    yield "blocked-but-runs", runs(host, old, 50, blocked=True, block_cause="admin")
    yield "zombie", runs(host, old, 70) | {"vm_state": "zombie", "vm_phase": "zombie/reaping"}
    yield (
        "zombie-with-person",
        runs(host, old, 71, **there(user, 300, "198.51.100.5"))
        | {
            "vm_state": "zombie",
            "vm_phase": "zombie/reaping",
        },
    )
    yield "waits-for-pool", {"vm_state": "starting", "vm_phase": "starting/waiting", "waits_for": "pool"}
    yield "wants-start", {"vm_cmd": "start", "host_id": host}
    yield "wants-stop", runs(host, old, 80, vm_cmd="stop")
    yield "wants-restart", runs(host, old, 81, vm_cmd="stop", restart=True)
    for step in ("queued", "cloning", "launching", "awaiting-vma"):
        yield f"starts-{step}", {"vm_state": "starting", "vm_phase": f"starting/{step}", "host_id": host}
    yield "cleans-up", {"vm_state": "stopping", "vm_phase": "stopping/cleaning", "host_id": host}
    yield "throws-out", runs(host, old, 82, **there(user, 20, "198.51.100.6"), user_cmd="abort")
    yield (
        "limit-is-over",
        runs(host, old, 83, vm_expiration_soft=stamp(60), vm_expiration_hard=stamp(1), expire_asked=3),
    )
    yield "limit-is-near", runs(host, old, 84, vm_expiration_soft=stamp(60), vm_expiration_hard=stamp(-9))
