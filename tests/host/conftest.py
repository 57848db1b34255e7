"""Real disks and networks: one pool for the run, a namespace and an installation for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.storage import subvolumes
from tests.support import lxc_rig, netns
from tests.support import pool as pools
from tests.support import wire as wires
from tests.support.lxc_rig import Site
from tests.support.machines_on_wire import Machine
from tests.support.qa import Installation
from tests.support.wire import Wire


@pytest.fixture(scope="session")
def pool() -> Iterator[Path]:
    """A btrfs pool on a loop file."""
    with pools.pool() as mounted:
        yield mounted


@pytest.fixture
def network() -> Iterator[str]:
    """A network namespace, in which the test runs."""
    with netns.namespace() as name, netns.entered(name):
        yield name


@pytest.fixture
def site(pool: Path, network: str) -> Iterator[Site]:
    """An installation on the pool, inside the namespace."""
    with lxc_rig.site(pool) as made:
        yield made


@pytest.fixture
def machines() -> Iterator[dict[str, Machine]]:
    """Two guests, the world and this host, not connected yet."""
    with wires.namespaces() as made:
        yield made


@pytest.fixture
async def wire(machines: dict[str, Machine]) -> Wire:
    """All of them connected, under the rules."""
    return await wires.connect(machines)


@pytest.fixture
def on_btrfs(pool: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Installation]:
    """An installation for containers whose storage is a part of the pool; no daemon."""
    storage = pool / f"qa-{tmp_path.name}"
    made = Installation(tmp_path, capsys)
    made.write_config(vm__hypervisor="lxc", path__storage__root=str(storage))
    subvolumes.create(storage)
    try:
        made.ok("admin", "init", "--yes")
        yield made
    finally:
        subvolumes.delete(storage)
