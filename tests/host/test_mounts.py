"""Commands that see the host with mounts of their own."""

from __future__ import annotations

import asyncio
import threading
from functools import partial
from pathlib import Path

import pytest

from appliance import mounts, proc
from appliance.mounts import Mount
from appliance.runtime import processes

pytestmark = pytest.mark.host


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where something is to be seen, and beside it a folder with a file."""
    (tmp_path / "beside").mkdir()
    (tmp_path / "beside" / "file").write_text("found")
    (tmp_path / "place").mkdir()
    return tmp_path / "place"


async def test_a_command_sees_what_nobody_else_does(place: Path) -> None:
    view = (
        Mount("view", place, "tmpfs", mounts.NOEXEC, "mode=711,size=64k"),
        Mount(place.parent / "beside", place / "there", flags=mounts.BIND),
    )
    told = await proc.run(
        ["sh", "-c", 'cat "$0"/there/file; stat -c " %a" "$0"; grep -c "$0" /proc/self/mounts', str(place)],
        first=partial(mounts.enter_view, view),
    )
    assert told.stdout == b"found 711\n2\n"
    assert list(place.iterdir()) == []
    assert str(place) not in Path("/proc/self/mounts").read_text()


async def test_what_cannot_be_mounted_is_named_and_nothing_is_started(place: Path) -> None:
    missing = Mount(place / "missing", place / "there", flags=mounts.BIND)
    with pytest.raises(OSError, match=f"No such file or directory: '{place}/there'"):
        await proc.run(["touch", place / "started"], first=partial(mounts.enter_view, [missing]))
    assert not (place / "started").exists()


async def test_who_gives_up_while_the_view_is_made_leaves_no_command(place: Path) -> None:
    entered, may_go_on = threading.Event(), threading.Event()

    def slowly() -> None:
        entered.set()
        may_go_on.wait()

    words = ["sh", "-c", "sleep 1000; :", str(place)]
    running = asyncio.create_task(proc.run(words, first=slowly))
    await asyncio.to_thread(entered.wait)
    running.cancel()
    await asyncio.sleep(0)
    assert not running.done()
    may_go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await running
    for _ in range(100):  # what sh has forked is killed with it, and may be a moment later in dying
        if not (left := [pid for pid in processes.pids() if processes.command(pid) == words]):
            return
        await asyncio.sleep(0.05)
    raise AssertionError(left)
