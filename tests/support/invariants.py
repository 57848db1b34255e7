"""THE checker of an installation: nothing doubled, lost, stuck or leaked, whatever was done to its daemon.

`violations` compares what the rows say with what the host has and names each difference in a line. It is
meant for a moment of calm: wishes served, no session open, nobody importing. Every test of faults ends in
it, and so may a run by hand. It believes the kernel, the disks and the database file, and none of the
product's own surveys. Call it inside the network namespace of the daemon.
"""

from __future__ import annotations

import hashlib
import re
import sqlite3
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from appliance.config import DATABASE_URL, NETWORK_FIREWALL, Settings
from appliance.model import DiId, VmId
from appliance.storage import marks
from appliance.storage.db import database_file
from appliance.storage.paths import Paths
from scripts.trial import BELONGS
from tests.support import machine_invariants, onlooker
from tests.support.onlooker import Guest

Row = Mapping[str, Any]
CONTAINER = re.compile(r"qvd-[0-9a-f]{8}-(\d+)")


@dataclass(frozen=True, slots=True)
class Baseline:
    """What was on the host before anything ran, and may stay."""

    links: frozenset[str]
    mounts: frozenset[str]
    loops: frozenset[str]
    subvolumes: frozenset[Path]
    files: frozenset[Path]


@dataclass(slots=True)
class Grounds:
    """An installation as its checker needs to know it."""

    directory: Path
    """Holds pool, run folder and configuration; processes of a trial carry it in their environment."""
    settings: Settings
    installation: str
    daemon: int | None = None
    """The daemon's process, if one runs."""
    canaries: dict[Path, bytes] = field(default_factory=dict)
    """Files in homes, or homes that are disks, and what they must go on holding."""

    @property
    def paths(self) -> Paths:
        return Paths(self.settings)

    def rows(self, query: str) -> list[Row]:
        """What the database file holds, read beside the daemon."""
        with closing(sqlite3.connect(database_file(self.settings[DATABASE_URL]), timeout=20)) as connection:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute(query).fetchall()]

    def vms(self) -> list[Row]:
        """Every VM with its runtime row."""
        return self.rows(
            "SELECT v.id, v.uuid, v.name, v.ip, o.backend, r.* FROM vms v JOIN osfs o ON o.id = v.osf_id"
            " JOIN vm_runtimes r ON r.vm_id = v.id ORDER BY v.id"
        )

    def images(self) -> list[Row]:
        """Every image, with the backend that it is for."""
        return self.rows("SELECT d.*, o.backend FROM dis d JOIN osfs o ON o.id = d.osf_id ORDER BY d.id")

    def baseline(self) -> Baseline:
        """The host as it is now; to be taken while no VM runs."""
        return Baseline(
            links=frozenset(onlooker.links()),
            mounts=frozenset(onlooker.mounts(self.directory)),
            loops=frozenset(onlooker.loops()),
            subvolumes=frozenset(onlooker.subvolumes(self.paths.root)),
            files=frozenset(path for folder in self.watched() for path in onlooker.files(folder)),
        )

    def plant_canary(self, vm_id: int, content: bytes) -> None:
        """Put a file into a home that must never be lost or changed."""
        if (disk := self.paths.home_disk(VmId(vm_id))).exists():
            machine_invariants.write_canary(disk, content)
            self.canaries[disk] = content
            return
        canary = self.paths.homefs(VmId(vm_id)) / f"canary-{len(self.canaries)}"
        canary.write_bytes(content)
        self.canaries[canary] = content

    def watched(self) -> tuple[Path, ...]:
        """Folders in which nothing may gather; those with a rule of their own are looked at one by one."""
        paths = self.paths
        return (self.directory, paths.root, paths.run, paths.staging, paths.trash)


def until_clean(grounds: Grounds, base: Baseline, limit_s: float = 30.0) -> None:
    """Wait for the calm in which nothing is wrong.

    :raises AssertionError: something is wrong still when the time is up; each thing has its line
    """
    until = time.monotonic() + limit_s
    while found := violations(grounds, base):
        if time.monotonic() > until:
            raise AssertionError("\n".join([f"{len(found)} violations of {grounds.directory}:", *found]))
        time.sleep(0.05)


def violations(grounds: Grounds, base: Baseline) -> list[str]:
    """What is wrong, a line for each thing; empty if nothing is."""
    vms = grounds.vms()
    containers = [row for row in vms if row["backend"] == "lxc"]
    machines = [row for row in vms if row["backend"] == "kvm"]
    seen = onlooker.guests(grounds.installation)
    running = {row["id"] for row in vms if row["vm_state"] == "running"}
    contained = {row["id"] for row in containers} & running
    return [
        *_database(grounds),
        *(line for row in vms for line in _settled(row)),
        *_operations(grounds),
        *(line for row in vms if row["id"] in running for line in _answering(row)),
        *_guests(grounds, containers, seen),
        *_groups(grounds, contained),
        *_network(grounds, base, running),
        *_disks(grounds, base, containers, contained, locked=running),
        *_images(grounds),
        *_homes(grounds, containers),
        *_run_files(grounds, base, vms, contained),
        *_processes(grounds, seen),
        *machine_invariants.violations(
            grounds.paths, grounds.settings, grounds.installation, machines, serves=grounds.daemon is not None
        ),
    ]


def _database(grounds: Grounds) -> Iterator[str]:
    for row in grounds.rows("PRAGMA integrity_check"):
        if row["integrity_check"] != "ok":
            yield f"the database is damaged: {row['integrity_check']}"
    for row in grounds.rows("PRAGMA foreign_key_check"):
        yield f"the database has an orphan: {dict(row)}"


def _settled(row: Row) -> Iterator[str]:
    """A row at rest: nothing under way, nothing wished, nobody connected, and no half of anything."""
    who, state = f"VM {row['id']}", row["vm_state"]
    if state not in ("running", "stopped"):
        yield f"{who} is stuck: {row['vm_phase']} (failure: {row['failure']})"
    elif row["vm_phase"] != {"running": "running/monitoring", "stopped": "stopped"}[state]:
        yield f"{who} is {state} in the phase {row['vm_phase']}"
    if row["vm_cmd"] is not None:
        yield f"{who} has a wish that nobody takes: {row['vm_cmd']}"
    if row["restart"]:
        yield f"{who} is {state} and still to be restarted"
    session = (row["user_state"], row["user_cmd"], row["l7r_session"])
    if session != ("disconnected", None, None):
        yield f"{who} has a session without a client: {session}"
    placed = [
        name for name in ("host_id", "current_di_id", "vm_address", "vm_vma_port") if row[name] is not None
    ]
    if state == "running" and len(placed) < 4:
        yield f"{who} runs and nobody knows where: only {placed}"
    if state == "stopped" and placed:
        yield f"{who} is stopped and holds {placed}"


def _operations(grounds: Grounds) -> Iterator[str]:
    for row in grounds.rows("SELECT * FROM operations WHERE ended IS NULL"):
        if row["kind"] == "di add" and grounds.paths.image_part(DiId(int(row["object"]))).exists():
            continue  # waits, for a day, for somebody to go on with its copy
        yield f"operation {row['id']} ({row['kind']} {row['object']}) never ended"


def _guests(grounds: Grounds, vms: Collection[Row], seen: Mapping[int, Guest]) -> Iterator[str]:
    rows = {row["id"]: row for row in vms}
    for vm_id, guest in seen.items():
        if len(guest.inits) > 1 or len(guest.monitors) > 1:
            yield f"VM {vm_id} is doubled: inits {guest.inits}, monitors {guest.monitors}"
        if vm_id not in rows:
            yield f"a guest runs as VM {vm_id}, of which there is no row"
        elif rows[vm_id]["vm_state"] == "stopped":
            yield f"VM {vm_id} is stopped and runs: inits {guest.inits}, monitors {guest.monitors}"
    yield from _roots_shared(seen)
    for vm_id, row in rows.items():
        if row["vm_state"] == "running":
            yield from _running(grounds, row, seen.get(vm_id, Guest()))


def _roots_shared(seen: Mapping[int, Guest]) -> Iterator[str]:
    users: dict[int, list[int]] = {}
    for guest in seen.values():
        for init in guest.inits:
            if (root := onlooker.root_of(init)) is not None:
                users.setdefault(root, []).append(init)
    for inits in users.values():
        if len(inits) > 1:
            yield f"the inits {inits} run on one root"


def _running(grounds: Grounds, row: Row, guest: Guest) -> Iterator[str]:
    who = f"VM {row['id']}"
    if len(guest.inits) != 1 or len(guest.monitors) != 1:
        yield f"{who} is to run, and its inits are {guest.inits}, its monitors {guest.monitors}"
    file = grounds.paths.lxc / f"qvd-{grounds.installation}-{row['id']}" / "mark"
    try:
        mark = marks.decoded(file.read_bytes())
    except (OSError, ValueError) as exc:
        yield f"{who} runs without a mark: {exc}"
        return
    if (mark.vm_id, mark.vm_uuid, mark.di_id) != (row["id"], row["uuid"], row["current_di_id"]):
        yield f"{who} runs under the mark of another: {mark}"


def _answering(row: Row) -> Iterator[str]:
    address, port = row["vm_address"], row["vm_vma_port"]
    if address and not onlooker.answers(address, port):
        yield f"VM {row['id']} is to run, and its VMA does not answer at {address}:{port}"


def _groups(grounds: Grounds, running: Collection[int]) -> Iterator[str]:
    for vm_id, groups in onlooker.groups(grounds.installation).items():
        again = [group for group in groups if re.search(rf"-{vm_id}-\d+$", group)]
        if vm_id not in running:
            yield f"VM {vm_id} does not run and has control groups: {', '.join(sorted(groups))}"
        elif again:
            yield f"VM {vm_id} has control groups of two runs: {', '.join(sorted(groups))}"


def _network(grounds: Grounds, base: Baseline, running: Collection[int]) -> Iterator[str]:
    ports = {f"qvd{vm_id}" for vm_id in running}
    links = onlooker.links()
    for link in sorted(links - ports - base.links):
        yield f"the link {link} belongs to nobody"
    for link in sorted(ports - links):
        yield f"the link {link} of a running VM is gone"
    fenced = onlooker.fenced()
    for link in sorted(fenced - ports):
        yield f"the packet filter knows {link}, which belongs to nobody"
    if grounds.settings[NETWORK_FIREWALL] and grounds.daemon is not None:
        for link in sorted(ports - fenced):
            yield f"the packet filter does not know {link} of a running VM"


def _disks(
    grounds: Grounds,
    base: Baseline,
    vms: Collection[Row],
    running: Collection[int],
    *,
    locked: Collection[int],
) -> Iterator[str]:
    paths = grounds.paths
    roots = {paths.rootfs(VmId(vm_id)) for vm_id in running}
    locks = {paths.root_lock(VmId(vm_id)) for vm_id in locked}
    for root in sorted(roots - onlooker.files(paths.all_rootfs)):
        yield f"the root {root.name} of a running VM is gone"
    for left in sorted(onlooker.files(paths.all_rootfs) - roots - locks):
        yield f"{left} belongs to no running VM"
    kept = {Path(row["path"]) for row in grounds.rows("SELECT path FROM kept")}
    for left in sorted((onlooker.files(paths.kept) | machine_invariants.kept(paths)) - kept):
        yield f"{left} is kept and nobody knows of it"
    for gone in sorted(path for path in kept if not path.exists()):
        yield f"{gone} should be kept and is gone"
    bases = {paths.basefs(DiId(row["id"])) for row in grounds.images()}
    homes = {paths.homefs(VmId(row["id"])) for row in vms}
    for volume in sorted(onlooker.subvolumes(paths.root) - roots - kept - bases - homes - base.subvolumes):
        yield f"the subvolume {volume} belongs to nobody"
    for mount in sorted(onlooker.mounts(grounds.directory) - base.mounts):
        yield f"left mounted: {mount}"
    for loop in sorted(onlooker.loops() - base.loops):
        if str(grounds.directory) in loop:
            yield f"left attached: {loop}"


def _images(grounds: Grounds) -> Iterator[str]:
    """Every image that has a row is whole, and what has no row is not there."""
    paths = grounds.paths
    rows = grounds.images()
    for row in rows:
        archive = paths.images / row["path"]
        if row["backend"] == "lxc" and not paths.basefs(DiId(row["id"])).is_dir():
            yield f"DI {row['id']} is registered and not unpacked"
        if not archive.is_file() or hashlib.sha256(archive.read_bytes()).hexdigest() != row["sha256"]:
            yield f"DI {row['id']} is registered, and {archive.name} is not the archive that was hashed"
    archives = {paths.images / row["path"] for row in rows} | _announced(grounds)
    bases = {paths.basefs(DiId(row["id"])) for row in rows if row["backend"] == "lxc"}
    for folder, expected in ((paths.images, archives), (paths.all_basefs, bases)):
        for left in sorted(onlooker.files(folder) - expected):
            yield f"{left} belongs to no image"


def _announced(grounds: Grounds) -> set[Path]:
    """The copies of killed imports that wait for somebody to go on with them."""
    waiting = grounds.rows("SELECT object FROM operations WHERE kind = 'di add' AND ended IS NULL")
    return {grounds.paths.image_part(DiId(int(row["object"]))) for row in waiting}


def _homes(grounds: Grounds, vms: Collection[Row]) -> Iterator[str]:
    paths = grounds.paths
    owners = {paths.homefs(VmId(row["id"])): row for row in vms}
    for left in sorted(onlooker.files(paths.all_homefs) - owners.keys()):
        yield f"the home {left} belongs to nobody"
    for home, row in owners.items():
        if home.is_dir() and ((mark := marks.mark_of(home)) is None or mark.vm_uuid != row["uuid"]):
            yield f"the home {home} has the mark of another: {mark}"
        if (home / "strays").exists():
            yield f"VM {row['id']} had two clients on its graphical session at once"
    for canary, content in grounds.canaries.items():
        found: bytes | None = None
        with suppress(OSError):
            is_disk = canary.parent == paths.homes
            found = machine_invariants.read_canary(canary, len(content)) if is_disk else canary.read_bytes()
        if found != content:
            yield f"{canary} is lost: it holds {found!r}"


def _run_files(
    grounds: Grounds, base: Baseline, vms: Collection[Row], running: Collection[int]
) -> Iterator[str]:
    paths = grounds.paths
    containers = {paths.lxc / f"qvd-{grounds.installation}-{vm_id}" for vm_id in running}
    for left in sorted(onlooker.files(paths.lxc) - containers):
        yield f"{left} is the folder of no running guest"
    known = {str(row["id"]) for row in vms}
    for file in sorted(onlooker.files(paths.consoles)):
        if file.name.partition(".")[0] not in known:
            yield f"{file} is the console of no VM"
    for folder in grounds.watched():
        for left in sorted(onlooker.files(folder) - base.files):
            yield f"{left} was not there before"


def _processes(grounds: Grounds, seen: Mapping[int, Guest]) -> Iterator[str]:
    """Whatever a trial's daemon started and is neither it nor part of a guest."""
    monitors = {pid for guest in seen.values() for pid in guest.monitors}
    keepers = {parent for pid in monitors for parent in onlooker.parents(pid)[:1]}
    for pid, line in sorted(onlooker.holders(grounds.directory, BELONGS).items()):
        family = {pid, *onlooker.parents(pid)}
        if grounds.daemon not in family and not family & (monitors | keepers):
            yield f"process {pid} is left: {line}"
