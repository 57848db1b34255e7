"""The checker of invariants names each kind of damage in a line: else the tests of faults prove nothing."""

from __future__ import annotations

import asyncio
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from appliance.model import VmId
from scripts.trial import BELONGS
from tests.support.invariants import Grounds
from tests.support.ordeal import Ordeal, ordeal

pytestmark = [pytest.mark.host, pytest.mark.timeout(300)]

CGROUPS = Path("/sys/fs/cgroup/memory" if Path("/sys/fs/cgroup/memory").is_dir() else "/sys/fs/cgroup")
Damage = Callable[[Grounds], Iterator[None]]
DAMAGES: dict[str, Damage] = {}


def damage(seen_as: str) -> Callable[[Damage], Damage]:
    """Register something that the checker must tell by this expression."""

    def register(made: Damage) -> Damage:
        DAMAGES[seen_as] = made
        return made

    return register


def rewritten(seen_as: str, change: str, back: str) -> None:
    """Register a change of the database."""

    def made(grounds: Grounds) -> Iterator[None]:
        execute(grounds, change)
        yield
        execute(grounds, back)

    DAMAGES[seen_as] = made


def created(seen_as: str, where: Callable[[Grounds], Path], *, folder: bool = False) -> None:
    """Register a file or folder too many."""

    def made(grounds: Grounds) -> Iterator[None]:
        path = where(grounds)
        if folder:
            path.mkdir()
        else:
            path.touch()
        yield
        if folder:
            path.rmdir()
        else:
            path.unlink()

    DAMAGES[seen_as] = made


ROW = "UPDATE vm_runtimes SET "
rewritten(
    "VM 2 is stuck: stopping/cleaning",
    f"{ROW} vm_state = 'stopping', vm_phase = 'stopping/cleaning' WHERE vm_id = 2",
    f"{ROW} vm_state = 'stopped', vm_phase = 'stopped' WHERE vm_id = 2",
)
rewritten(
    "VM 1 has a wish that nobody takes: stop",
    f"{ROW} vm_cmd = 'stop' WHERE vm_id = 1",
    f"{ROW} vm_cmd = NULL WHERE vm_id = 1",
)
rewritten(
    "VM 1 has a session without a client",
    f"{ROW} user_state = 'connecting', l7r_session = 'x' WHERE vm_id = 1",
    f"{ROW} user_state = 'disconnected', l7r_session = NULL WHERE vm_id = 1",
)
rewritten(
    "VM 1 runs under the mark of another",
    "UPDATE vms SET uuid = 'x' || uuid WHERE id = 1",
    "UPDATE vms SET uuid = substr(uuid, 2) WHERE id = 1",
)
rewritten(
    "VM 1 is to run, and its VMA does not answer",
    f"{ROW} vm_vma_port = 9 WHERE vm_id = 1",
    f"{ROW} vm_vma_port = 3030 WHERE vm_id = 1",
)
rewritten(
    "VM 2 is to run, and its inits are",
    f"{ROW} vm_state = 'running', vm_phase = 'running/monitoring' WHERE vm_id = 2",
    f"{ROW} vm_state = 'stopped', vm_phase = 'stopped' WHERE vm_id = 2",
)
rewritten(
    "operation .* never ended",
    "INSERT INTO operations (id, kind, object, owner, begun) VALUES (999, 'di add', '9', 'x', '2030-01-01')",
    "DELETE FROM operations WHERE id = 999",
)
rewritten(
    "DI 1 is registered, and .* is not the archive that was hashed",
    "UPDATE dis SET sha256 = 'x' || sha256 WHERE id = 1",
    "UPDATE dis SET sha256 = substr(sha256, 2) WHERE id = 1",
)
rewritten(
    "the database has an orphan",
    "INSERT INTO vm_counters (vm_id) VALUES (999)",
    "DELETE FROM vm_counters WHERE vm_id = 999",
)
created("rootfs/9.lock belongs to no running VM", lambda on: on.paths.root_lock(VmId(9)))
created("is kept and nobody knows of it", lambda on: on.paths.kept / "9-x", folder=True)
created("9.part belongs to no image", lambda on: on.paths.images / ".9.part")
created("9.log is the console of no VM", lambda on: on.paths.consoles / "9.log")
created(
    "is the folder of no running guest", lambda on: on.paths.lxc / f"qvd-{on.installation}-9", folder=True
)
created("run/extra was not there before", lambda on: on.paths.run / "extra")
created("the home .*/9-fs belongs to nobody", lambda on: on.paths.homefs(VmId(9)), folder=True)
created(
    "VM 2 does not run and has control groups",
    lambda on: CGROUPS / f"lxc.payload.qvd-{on.installation}-2",
    folder=True,
)
created(
    "VM 1 has control groups of two runs",
    lambda on: CGROUPS / f"lxc.payload.qvd-{on.installation}-1-1",
    folder=True,
)


@damage("canary-0 is lost")
def _canary(grounds: Grounds) -> Iterator[None]:
    canary, content = next(iter(grounds.canaries.items()))
    canary.write_bytes(b"")
    yield
    canary.write_bytes(content)


@damage("the subvolume .*/extra belongs to nobody")
def _subvolume(grounds: Grounds) -> Iterator[None]:
    tool("btrfs", "subvolume", "create", str(grounds.paths.root / "extra"))
    yield
    tool("btrfs", "subvolume", "delete", str(grounds.paths.root / "extra"))


@damage("the link qvd9 belongs to nobody")
def _link(grounds: Grounds) -> Iterator[None]:
    tool("ip", "link", "add", "qvd9", "type", "bridge")
    yield
    tool("ip", "link", "del", "qvd9")


@damage("the packet filter knows qvd9")
def _filter(grounds: Grounds) -> Iterator[None]:
    tool("nft", "add table inet extra; add set inet extra s { type ifname; elements = { qvd9 }; }")
    yield
    tool("nft", "delete table inet extra")


@damage("left mounted")
def _mount(grounds: Grounds) -> Iterator[None]:
    tool("mount", "-t", "tmpfs", "none", str(grounds.paths.staging))
    yield
    tool("umount", str(grounds.paths.staging))


@damage("left attached")
def _loop(grounds: Grounds) -> Iterator[None]:
    device = tool("losetup", "--find", "--show", str(grounds.directory / "pool.btrfs"))
    yield
    tool("losetup", "--detach", device)


@damage("process .* is left")
def _process(grounds: Grounds) -> Iterator[None]:
    left = subprocess.Popen(["sleep", "60"], env={**os.environ, BELONGS: str(grounds.directory)})
    yield
    left.kill()
    left.wait()


@damage("VM 1 is doubled")
def _double(grounds: Grounds) -> Iterator[None]:
    words = ["lxc-start", "-c", "import time; time.sleep(60)", "-n", f"qvd-{grounds.installation}-1"]
    double = subprocess.Popen(words, executable=sys.executable)
    yield
    double.kill()
    double.wait()


@pytest.fixture
async def on(tmp_path: Path) -> AsyncIterator[Ordeal]:
    """A running VM 1 and a stopped VM 2, and no daemon that could put things right."""
    async with ordeal(tmp_path / "ordeal", 2) as made:
        await made.bring(1, "running")
        made.kill()
        yield made


async def test_the_checker_names_each_damage(on: Ordeal) -> None:
    await on.calm()
    for seen_as, made in DAMAGES.items():
        with contextmanager(made)(on.grounds):
            found = await found_soon(on, seen_as)
            assert any(re.search(seen_as, line) for line in found), f"not seen: {seen_as}; but {found}"
    await on.calm()


async def found_soon(on: Ordeal, seen_as: str) -> list[str]:
    """What is wrong, once that shows: a new process needs a moment to be itself."""
    found: list[str] = []
    for _ in range(200):
        found = on.violations()
        if any(re.search(seen_as, line) for line in found):
            break
        await asyncio.sleep(0.05)
    return found


def execute(grounds: Grounds, statement: str) -> None:
    """Change the database without its rules."""
    with closing(sqlite3.connect(grounds.paths.root / "qvd.db", isolation_level=None)) as connection:
        connection.execute("PRAGMA ignore_check_constraints = ON")
        connection.execute(statement)


def tool(*words: str) -> str:
    """Run a tool that must succeed; what it prints."""
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()
