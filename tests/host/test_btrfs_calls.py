"""The calls of btrfs that wait for the disk, on a real pool."""

from __future__ import annotations

import errno
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from appliance.storage import btrfs_calls, subvolumes
from tests.support import pool as pools

pytestmark = pytest.mark.host

GIVES_UP_S = 30
HELD_UP_S = 60


@pytest.fixture
def own_pool() -> Iterator[Path]:
    """A pool that a test may freeze."""
    with pools.pool() as mounted:
        yield mounted


@contextmanager
def frozen(pool: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A pool that commits nothing; another process ends that if this one is held up itself."""
    subprocess.run(["fsfreeze", "--freeze", str(pool)], check=True)
    rescue = subprocess.Popen(["sh", "-c", f"sleep {GIVES_UP_S}; fsfreeze --unfreeze {pool}"])
    try:
        yield rescue
    finally:
        if rescue.poll() is None:
            rescue.kill()
            subprocess.run(["fsfreeze", "--unfreeze", str(pool)], check=True)
        rescue.wait()


CALLS: dict[str, Callable[[Path], None]] = {
    "create": lambda pool: btrfs_calls.create(pool / "new"),
    "snapshot": lambda pool: btrfs_calls.snapshot(pool / "one", pool / "new"),
    "destroy": lambda pool: btrfs_calls.destroy(pool / "one"),
}


@pytest.mark.parametrize("name", CALLS)
def test_other_threads_go_on_while_a_call_waits(own_pool: Path, name: str) -> None:
    subvolumes.create(own_pool / "one")
    calling = threading.Thread(target=CALLS[name], args=(own_pool,), daemon=True)
    with frozen(own_pool) as rescue:
        calling.start()
        calling.join(1.0)
        assert calling.is_alive(), "a frozen pool has made a change"
        assert rescue.poll() is None, "this thread was held up until the pool was no longer frozen"
    calling.join(HELD_UP_S)
    assert not calling.is_alive()


def test_a_subvolume_goes_with_those_inside_it(own_pool: Path) -> None:
    for inner in ("one", "one/two", "one/two/three", "one/four"):
        btrfs_calls.create(own_pool / inner)
    with pytest.raises(OSError, match="not empty") as refused:
        btrfs_calls.destroy(own_pool / "one")
    assert refused.value.errno == errno.ENOTEMPTY
    subvolumes.delete(own_pool / "one")
    assert not (own_pool / "one").exists()


def test_a_copy_is_one(own_pool: Path) -> None:
    btrfs_calls.create(own_pool / "one")
    (own_pool / "one" / "file").write_text("kept")
    btrfs_calls.snapshot(own_pool / "one", own_pool / "copy")
    (own_pool / "one" / "file").write_text("changed")
    assert (own_pool / "copy" / "file").read_text() == "kept"
    assert subvolumes.id_of(own_pool / "copy") != subvolumes.id_of(own_pool / "one")
    btrfs_calls.sync(own_pool)


def test_what_exists_is_not_made_again(own_pool: Path) -> None:
    btrfs_calls.create(own_pool / "one")
    with pytest.raises(FileExistsError):
        btrfs_calls.create(own_pool / "one")
    with pytest.raises(FileNotFoundError):
        btrfs_calls.destroy(own_pool / "none")
