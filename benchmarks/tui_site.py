"""An installation with many desktops and no hypervisor, and what happens to them: for benchmarks of the TUI.

Rows are put into the database as they would be after days of use: most desktops run, some are on their way,
a few have failed, one in ten has limits. What happens is planned beforehand, so that the TUI, which sees it
in the database, and its peer, which is told of it, go through the same.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import insert

from appliance.clock import SystemClock
from appliance.model import BackendKind, StartedBy
from appliance.storage.live import LiveReader, VmLine
from appliance.storage.migrate import upgrade
from appliance.storage.schema import vm_runtimes, vms
from appliance.storage.store import Store
from appliance.tui.columns import Scene, place
from appliance.tui.first_picture import SCROLLBAR
from appliance.tui.rows import wanted
from appliance.tui.view import VM_COLUMNS
from benchmarks.terminals import COLUMNS

NAME = re.compile(rb"desk-[0-9]{5}")
PER_S = 50
USERS = 200
OSFS = ("office", "lab", "kiosk")
NEXT = {
    "stopped": ("starting", "starting/awaiting-vma"),
    "starting": ("running", "running/monitoring"),
    "running": ("stopping", "stopping/shutting-down"),
    "stopping": ("stopped", "stopped"),
    "zombie": ("stopped", "stopped"),
}


@dataclass(frozen=True, slots=True)
class Site:
    """Where it is."""

    folder: Path

    @property
    def config(self) -> Path:
        """Its configuration."""
        return self.folder / "node.conf"

    @property
    def database(self) -> Path:
        """Its database."""
        return self.folder / "storage" / "qvd.db"

    @property
    def control(self) -> Path:
        """Where its daemon would listen."""
        return self.folder / "run" / "control.sock"

    @property
    def environment(self) -> dict[str, str]:
        """That of an administrator who has arranged nothing."""
        return {"HOME": str(self.folder), "XDG_CONFIG_HOME": str(self.folder), "QVD_CONFIG": str(self.config)}


def make(folder: Path, count: int) -> Site:
    """An installation with `count` desktops."""
    site = Site(folder)
    site.database.parent.mkdir(parents=True)
    site.control.parent.mkdir()
    settings = {
        "nodename": "node1",
        "vm.hypervisor": "nothing",
        "vm.network.ip.start": "10.9.0.2",
        "vm.network.netmask": "16",
        "vm.network.gateway": "10.9.0.1",
        "path.run": str(folder / "run"),
        "path.control": str(site.control),
        "path.storage.root": str(folder / "storage"),
    }
    site.config.write_text("".join(f"{key} = {value}\n" for key, value in settings.items()))
    url = f"sqlite:///{site.database}"
    upgrade(url)
    asyncio.run(_populate(url, count))
    return site


def lines(site: Site) -> dict[int, VmLine]:
    """The desktops as the TUI reads them."""
    reader = LiveReader(site.database)
    try:
        delta = reader.look()
        assert delta is not None
        return dict(delta.vms)
    finally:
        reader.close()


def first_running(site: Site) -> int:
    """A desktop that has a console."""
    return min(vm.id for vm in lines(site).values() if vm.state == "running")


@dataclass(frozen=True, slots=True)
class Change:
    """One commit: when, counted from the first, and what it gives to which columns of which desktop."""

    at_s: float
    vm_id: int
    values: dict[str, Any]


def changes(
    before: dict[int, VmLine], seconds: float, *, seed: int = 1, per_s: float = PER_S
) -> Iterator[Change]:
    """What desktops and their users do for a while: every change of one at random, as the HKD writes it."""
    dice, now = random.Random(seed), dict(before)
    ids = sorted(now)
    for number in range(int(seconds * per_s)):
        vm = now[dice.choice(ids)]
        at = datetime.now(UTC) + timedelta(seconds=number / per_s)
        stamp = at.strftime("%Y-%m-%d %H:%M:%S.%f")
        if vm.state == "running" and dice.random() < 0.5:
            come = vm.user_state == "disconnected"
            values: dict[str, Any] = {
                "user_state": "connected" if come else "disconnected",
                "user_state_ts": stamp,
                "l7r_session": str(number) if come else None,
                "user_ip": "10.0.3.7" if come else None,
            }
        else:
            state, phase = NEXT[vm.state]
            values = {"vm_state": state, "vm_phase": phase, "vm_state_ts": stamp}
            if state == "starting":
                values |= {"current_di_id": vm.next_di_id}
            if state == "stopped":
                values |= {"current_di_id": None, "vm_address": None}
            if vm.user_state != "disconnected":
                values |= {"user_state": "disconnected", "l7r_session": None, "user_ip": None}
        now[vm.id] = _changed(vm, values)
        yield Change(number / per_s, vm.id, values)


def peer_plan(site: Site, before: dict[int, VmLine], planned: list[Change]) -> dict[str, Any]:
    """What the peer is told: how to read its rows, and which of its cells change how."""
    from appliance.storage.live import _VMS

    scene, now, told = Scene(datetime.now(UTC)), dict(before), []
    usual = [column for column in VM_COLUMNS if not column.optional]
    shown = place(usual, wanted(usual, before.values(), scene), COLUMNS - SCROLLBAR)
    columns = [one.column for one in shown]
    for change in planned:
        old = now[change.vm_id]
        new = now[change.vm_id] = _changed(old, change.values)
        cells = [
            (column.key, fresh)
            for column in columns
            if (fresh := column.cell(new, scene)[0]) != column.cell(old, scene)[0]
        ]
        told.append((change.at_s, str(change.vm_id), cells))
    names = {"session": "user_state", "outdated": "next_di_id", "cpu": "failures", "memory": "postponed"}
    return {
        "database": str(site.database),
        "sql": _VMS,
        "columns": [
            (column.key, column.title, VmLine._fields.index(names.get(column.key, column.key)))
            for column in columns
        ],
        "changes": told,
    }


def write(file: Path, content: Any) -> Path:
    """Put a plan into a file."""
    file.write_text(json.dumps(content))
    return file


def _changed(vm: VmLine, values: dict[str, Any]) -> VmLine:
    names = {"vm_state": "state", "vm_phase": "phase", "vm_state_ts": "state_ts"}
    known = {names.get(name, name): value for name, value in values.items()}
    if "current_di_id" in values:
        known |= {"di_id": values["current_di_id"], "di": vm.next_di if values["current_di_id"] else None}
    return vm._replace(**{name: value for name, value in known.items() if name in VmLine._fields})


async def _populate(url: str, count: int) -> None:
    store = await Store.open(url, SystemClock())
    dice = random.Random(count)
    try:
        async with store.write() as tx:
            host = await tx.hosts.add("node1", "127.0.0.1")
            users = [(await tx.users.add(f"user{number:03}", None)).id for number in range(USERS)]
            images: dict[int, tuple[int, int]] = {}
            for name in OSFS:
                osf = await tx.osfs.add(
                    name=name,
                    memory_mib=1024,
                    cpus=None,
                    use_overlay=True,
                    user_storage_mib=None,
                    backend=BackendKind.LXC,
                )
                made = []
                for version in ("2026-10", "2026-11"):
                    di = await tx.images.reserve_id(osf)
                    await tx.images.add(di, osf, version=version, path=f"{di}.tar", sha256="", size_bytes=1)
                    made.append(di)
                await tx.images.point(osf, "default", made[1], by="bench")
                images[osf] = (made[0], made[1])
            rows, runtimes = [], []
            for number in range(1, count + 1):
                chosen = dice.choice(list(images))
                rows.append(
                    {
                        "id": number,
                        "uuid": f"{number:036}",
                        "name": f"desk-{number:05}",
                        "subid_slot": number,
                        "user_id": dice.choice(users),
                        "osf_id": chosen,
                        "di_tag": "default",
                        "ip": f"10.9.{number // 250}.{number % 250 + 2}",
                    }
                )
                runtimes.append({"vm_id": number, **_runtime(dice, host, images[chosen], tx.at)})
            await tx.connection.execute(insert(vms), rows)
            for runtime in runtimes:
                await tx.connection.execute(insert(vm_runtimes), [runtime])
    finally:
        await store.close()


def _runtime(dice: random.Random, host: int, dis: tuple[int, int], now: datetime) -> dict[str, Any]:
    die = dice.random()
    runs = {
        "host_id": host,
        "vm_state_ts": now - timedelta(seconds=dice.randint(60, 500_000)),
        "current_di_id": dice.choice(dis),
        "vm_address": "10.9.0.9",
        "vm_vma_port": 3030,
        "vm_x_port": 4100,
        "started_by": StartedBy.COMMAND,
        "run": 1,
    }
    limits: dict[str, Any] = {}
    if dice.random() < 0.1:
        limits["vm_expiration_soft"] = now + timedelta(minutes=dice.randint(30, 3000))
        limits["vm_expiration_hard"] = limits["vm_expiration_soft"] + timedelta(days=1)
    if die < 0.6:
        user: dict[str, Any] = {}
        if dice.random() < 0.5:
            user = {
                "user_state": "connected",
                "l7r_session": "1",
                "user_state_ts": now,
                "user_ip": "10.0.3.7",
            }
        return {"vm_state": "running", "vm_phase": "running/monitoring", **runs, **user, **limits}
    if die < 0.63:
        return {"vm_state": "starting", "vm_phase": "starting/awaiting-vma", **runs}
    if die < 0.66:
        return {"vm_state": "stopping", "vm_phase": "stopping/shutting-down", **runs}
    if die < 0.68:
        failure = {"failure": "the guest ended while it booted", "failure_cause": "image", "failures": 2}
        return {**failure, "vm_state_ts": now}
    return {}
