"""The checker of invariants names each kind of damage in a line: else the tests of faults prove nothing."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from appliance.model import VmId
from tests.support.damages import Damages, left_behind, tool
from tests.support.invariants import Grounds
from tests.support.ordeal import Ordeal, ordeal

pytestmark = [pytest.mark.host, pytest.mark.timeout(300)]

CGROUPS = Path("/sys/fs/cgroup/memory" if Path("/sys/fs/cgroup/memory").is_dir() else "/sys/fs/cgroup")
DAMAGES = Damages()
ROW = "UPDATE vm_runtimes SET "
DAMAGES.rewritten(
    "VM 2 is stuck: stopping/cleaning",
    f"{ROW} vm_state = 'stopping', vm_phase = 'stopping/cleaning' WHERE vm_id = 2",
    f"{ROW} vm_state = 'stopped', vm_phase = 'stopped' WHERE vm_id = 2",
)
DAMAGES.rewritten(
    "VM 1 has a wish that nobody takes: stop",
    f"{ROW} vm_cmd = 'stop' WHERE vm_id = 1",
    f"{ROW} vm_cmd = NULL WHERE vm_id = 1",
)
DAMAGES.rewritten(
    "VM 1 has a session without a client",
    f"{ROW} user_state = 'connecting', l7r_session = 'x' WHERE vm_id = 1",
    f"{ROW} user_state = 'disconnected', l7r_session = NULL WHERE vm_id = 1",
)
DAMAGES.rewritten(
    "VM 1 runs under the mark of another",
    "UPDATE vms SET uuid = 'x' || uuid WHERE id = 1",
    "UPDATE vms SET uuid = substr(uuid, 2) WHERE id = 1",
)
DAMAGES.rewritten(
    "VM 1 is to run, and its VMA does not answer",
    f"{ROW} vm_vma_port = 9 WHERE vm_id = 1",
    f"{ROW} vm_vma_port = 3030 WHERE vm_id = 1",
)
DAMAGES.rewritten(
    "VM 2 is to run, and its inits are",
    f"{ROW} vm_state = 'running', vm_phase = 'running/monitoring' WHERE vm_id = 2",
    f"{ROW} vm_state = 'stopped', vm_phase = 'stopped' WHERE vm_id = 2",
)
DAMAGES.rewritten(
    "operation .* never ended",
    "INSERT INTO operations (id, kind, object, owner, begun) VALUES (999, 'di add', '9', 'x', '2030-01-01')",
    "DELETE FROM operations WHERE id = 999",
)
DAMAGES.rewritten(
    "DI 1 is registered, and .* is not the archive that was hashed",
    "UPDATE dis SET sha256 = 'x' || sha256 WHERE id = 1",
    "UPDATE dis SET sha256 = substr(sha256, 2) WHERE id = 1",
)
DAMAGES.rewritten(
    "the database has an orphan",
    "INSERT INTO vm_counters (vm_id) VALUES (999)",
    "DELETE FROM vm_counters WHERE vm_id = 999",
)
DAMAGES.created("rootfs/9.lock belongs to no running VM", lambda on: on.paths.root_lock(VmId(9)))
DAMAGES.created("is kept and nobody knows of it", lambda on: on.paths.kept / "9-x", folder=True)
DAMAGES.created(
    "is kept and nobody knows of it", lambda on: on.paths.kept / "1-home-20300131T180000Z", folder=True
)
DAMAGES.rewritten(
    "/gone/1-home should be kept and is gone",
    "INSERT INTO kept (id, kind, path, vm_id, vm, owner, reason, at)"
    " VALUES (999, 'snapshot', '/gone/1-home', 1, 'web-1', 'alice', '', '2030-01-01')",
    "DELETE FROM kept WHERE id = 999",
)
DAMAGES.created("9.part belongs to no image", lambda on: on.paths.images / ".9.part")
DAMAGES.created("9.log is the console of no VM", lambda on: on.paths.consoles / "9.log")
DAMAGES.created(
    "is the folder of no running guest", lambda on: on.paths.lxc / f"qvd-{on.installation}-9", folder=True
)
DAMAGES.created("run/extra was not there before", lambda on: on.paths.run / "extra")
DAMAGES.created("the home .*/9-fs belongs to nobody", lambda on: on.paths.homefs(VmId(9)), folder=True)
DAMAGES.created(
    "VM 2 does not run and has control groups",
    lambda on: CGROUPS / f"lxc.payload.qvd-{on.installation}-2",
    folder=True,
)
DAMAGES.created(
    "VM 1 has control groups of two runs",
    lambda on: CGROUPS / f"lxc.payload.qvd-{on.installation}-1-1",
    folder=True,
)


@DAMAGES.add("canary-0 is lost")
def _canary(grounds: Grounds) -> Iterator[None]:
    canary, content = next(iter(grounds.canaries.items()))
    canary.write_bytes(b"")
    yield
    canary.write_bytes(content)


@DAMAGES.add("the subvolume .*/extra belongs to nobody")
def _subvolume(grounds: Grounds) -> Iterator[None]:
    tool("btrfs", "subvolume", "create", str(grounds.paths.root / "extra"))
    yield
    tool("btrfs", "subvolume", "delete", str(grounds.paths.root / "extra"))


@DAMAGES.add("the link qvd9 belongs to nobody")
def _link(grounds: Grounds) -> Iterator[None]:
    tool("ip", "link", "add", "qvd9", "type", "bridge")
    yield
    tool("ip", "link", "del", "qvd9")


DAMAGES.filtered("qvd9", "inet")


@DAMAGES.add("left mounted")
def _mount(grounds: Grounds) -> Iterator[None]:
    tool("mount", "-t", "tmpfs", "none", str(grounds.paths.staging))
    yield
    tool("umount", str(grounds.paths.staging))


@DAMAGES.add("left attached")
def _loop(grounds: Grounds) -> Iterator[None]:
    device = tool("losetup", "--find", "--show", str(grounds.directory / "pool.btrfs"))
    yield
    tool("losetup", "--detach", device)


DAMAGES.started("process .* is left", left_behind)


def double(grounds: Grounds) -> subprocess.Popen[bytes]:
    """A process that looks like the monitor of VM 1."""
    words = ["lxc-start", "-c", "import time; time.sleep(60)", "-n", f"qvd-{grounds.installation}-1"]
    return subprocess.Popen(words, executable=sys.executable)


DAMAGES.started("VM 1 is doubled", double)


@pytest.fixture
async def on(tmp_path: Path) -> AsyncIterator[Ordeal]:
    """A running VM 1 and a stopped VM 2, and no daemon that could put things right."""
    async with ordeal(tmp_path / "ordeal", 2) as made:
        await made.bring(1, "running")
        made.kill()
        yield made


async def test_the_checker_names_each_damage(on: Ordeal) -> None:
    await on.calm()
    await DAMAGES.are_named(on)
    await on.calm()
