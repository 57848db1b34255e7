"""Real disks and networks: one pool for the run, a namespace and an installation for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import lxc_rig, netns
from tests.support import pool as pools
from tests.support.lxc_rig import Site


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
