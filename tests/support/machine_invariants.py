"""The part of the checker that knows virtual machines: their QEMUs, domains, disks, groups, files, addresses.

As the rest of it, it believes the kernel, the disks and libvirtd's list, and none of the product's surveys.
"""

from __future__ import annotations

import subprocess
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from appliance.config import KVM_URI, NETWORK_DHCP, Settings
from appliance.model import DiId, VmId
from appliance.storage import marks
from appliance.storage.paths import HOME_SNAPSHOT, Paths
from tests.support import onlooker, qemu_onlooker
from tests.support.qemu_onlooker import Qemu

Row = Mapping[str, Any]
CANARY_PLACE = 65536
"""Where on a home's disk a canary is: a guest without a file system writes nowhere."""


def violations(
    paths: Paths, settings: Settings, installation: str, vms: Collection[Row], *, serves: bool
) -> Iterator[str]:
    """What is wrong with the virtual machines; `vms` are their rows.

    Without a daemon (`serves` is false) nobody needs to be told an address.
    """
    seen = qemu_onlooker.qemus(installation)
    running = {row["id"]: row for row in vms if row["vm_state"] == "running"}
    yield from _qemus(vms, seen)
    yield from _disks_shared(paths, seen)
    for vm_id, row in running.items():
        yield from _running(paths, row, seen.get(vm_id, ()))
    if vms:
        yield from _domains(settings, installation, running.keys())
    yield from _groups(installation, running.keys())
    yield from _overlays(paths, running)
    yield from _homes(paths, vms)
    yield from _run_files(paths, running.keys())
    yield from _addresses(paths, settings, running.values(), serves=serves)


def _qemus(vms: Collection[Row], seen: Mapping[int, tuple[Qemu, ...]]) -> Iterator[str]:
    rows = {row["id"]: row for row in vms}
    for vm_id, qemus in seen.items():
        pids = [qemu.pid for qemu in qemus]
        if len(pids) > 1:
            yield f"VM {vm_id} is doubled: QEMUs {pids}"
        if vm_id not in rows:
            yield f"a QEMU runs as VM {vm_id}, of which there is no row: {pids}"
        elif rows[vm_id]["vm_state"] == "stopped":
            yield f"VM {vm_id} is stopped and runs: QEMUs {pids}"


def _disks_shared(paths: Paths, seen: Mapping[int, tuple[Qemu, ...]]) -> Iterator[str]:
    users: dict[Path, list[int]] = {}
    for qemus in seen.values():
        for qemu in qemus:
            for disk in qemu.writes:
                users.setdefault(disk, []).append(qemu.pid)
    for disk, pids in sorted(users.items()):
        if len(pids) > 1:
            yield f"the QEMUs {sorted(pids)} write to one disk: {disk}"
        if disk.parent == paths.images:
            yield f"a QEMU, {pids[0]}, may write to the image {disk}"


def _running(paths: Paths, row: Row, qemus: tuple[Qemu, ...]) -> Iterator[str]:
    who = f"VM {row['id']}"
    if len(qemus) != 1:
        yield f"{who} is to run, and its QEMUs are {[qemu.pid for qemu in qemus]}"
    for qemu in qemus:
        if qemu.uuid != row["uuid"]:
            yield f"{who} runs under the mark of another: {qemu.uuid}"
        root = paths.overlay(DiId(row["current_di_id"] or 0), VmId(row["id"]))
        if root not in qemu.writes:
            yield f"{who} runs on another root than {root.name}: {sorted(disk.name for disk in qemu.writes)}"


def _domains(settings: Settings, installation: str, running: Collection[int]) -> Iterator[str]:
    domains = qemu_onlooker.domains(settings[KVM_URI], installation)
    for vm_id in sorted(domains - set(running)):
        yield f"libvirtd has a domain of VM {vm_id}, which does not run"
    for vm_id in sorted(set(running) - domains):
        yield f"libvirtd does not know VM {vm_id}, which runs"


def _groups(installation: str, running: Collection[int]) -> Iterator[str]:
    for vm_id, groups in qemu_onlooker.groups(installation).items():
        if vm_id not in running:
            yield f"VM {vm_id} does not run and has control groups: {', '.join(sorted(groups))}"
        elif len({Path(group).name for group in groups}) > 1:
            yield f"VM {vm_id} has control groups of two runs: {', '.join(sorted(groups))}"


def _overlays(paths: Paths, running: Mapping[int, Row]) -> Iterator[str]:
    """Every root is a running machine's, and marked as its."""
    owners = {
        paths.overlay(DiId(row["current_di_id"] or 0), VmId(row["id"])): row for row in running.values()
    }
    for overlay, row in owners.items():
        if not overlay.exists():
            yield f"the root {overlay.name} of a running VM is gone"
        elif (mark := marks.mark_of(overlay)) is None or mark.vm_uuid != row["uuid"]:
            yield f"the root {overlay} has the mark of another: {mark}"
    for left in sorted(roots(paths) - owners.keys()):
        yield f"{left} belongs to no running VM"


def _homes(paths: Paths, vms: Collection[Row]) -> Iterator[str]:
    owners = {paths.home_disk(VmId(row["id"])): row for row in vms}
    for left in sorted(onlooker.files(paths.homes) - owners.keys() - kept(paths)):
        yield f"the home {left} belongs to nobody"
    for home, row in owners.items():
        if home.exists() and ((mark := marks.mark_of(home)) is None or mark.vm_uuid != row["uuid"]):
            yield f"the home {home} has the mark of another: {mark}"


def _run_files(paths: Paths, running: Collection[int]) -> Iterator[str]:
    wanted = {file for vm_id in running for file in (paths.sockets(VmId(vm_id)), paths.domain(VmId(vm_id)))}
    allowed = wanted | {paths.line_lock(VmId(vm_id)) for vm_id in running}
    there = onlooker.files(paths.kvm)
    for left in sorted(there - allowed):
        yield f"{left} is of no running guest"
    for gone in sorted(wanted - there):
        yield f"{gone} of a running guest is gone"


def _addresses(paths: Paths, settings: Settings, running: Collection[Row], *, serves: bool) -> Iterator[str]:
    told = qemu_onlooker.told_addresses(paths.run)
    addresses = {row["ip"] for row in running}
    for address in sorted(told - addresses):
        yield f"guests are told the address {address}, which is nobody's"
    if serves and settings[NETWORK_DHCP]:
        for address in sorted(addresses - told):
            yield f"the guest with the address {address} would not be told it again"


def roots(paths: Paths) -> set[Path]:
    """The roots there are, half made ones with them; not those that were put aside."""
    return {path for path in onlooker.files(paths.overlays) if "-overlay.qcow2" in path.name}


def kept(paths: Paths) -> set[Path]:
    """The roots that were put aside, and snapshots of homes."""
    snapshots = {path for path in onlooker.files(paths.homes) if HOME_SNAPSHOT.fullmatch(path.name)}
    return onlooker.files(paths.overlays) - roots(paths) | snapshots


def write_canary(disk: Path, content: bytes) -> None:
    """Write onto a disk that nobody uses."""
    plain = disk.with_name(f".{disk.name}.canary")
    plain.write_bytes(content.ljust(-len(content) % 512 + len(content), b"\0"))
    size = plain.stat().st_size
    try:
        _qemu_io(disk, f"write -q -s {plain} {CANARY_PLACE} {size}")
    finally:
        plain.unlink()


def read_canary(disk: Path, length: int) -> bytes | None:
    """What is there on a disk that its guest may use; None if it cannot be read."""
    whole = -(-length // 512)
    words = ["qemu-img", "dd", "-U", "-f", "qcow2", "-O", "raw", "bs=512", f"skip={CANARY_PLACE // 512}"]
    out = disk.parents[1] / f".{disk.name}.read"
    try:
        counted = f"count={CANARY_PLACE // 512 + whole}"
        done = subprocess.run([*words, counted, f"if={disk}", f"of={out}"], capture_output=True, check=False)
        return out.read_bytes()[:length] if done.returncode == 0 else None
    finally:
        out.unlink(missing_ok=True)


def _qemu_io(disk: Path, command: str) -> None:
    subprocess.run(["qemu-io", "-f", "qcow2", "-c", command, str(disk)], check=True, capture_output=True)
