"""A start that waits for a program is given up with it: the program is gone before anything is removed."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from appliance import proc
from appliance.model import Mark, VmId, VmState
from tests.support.fake_backend import FakeBackend
from tests.support.host import rig

pytestmark = pytest.mark.host

ONE = VmId(1)
NAME = "qvdt-endless"


class Spawning(FakeBackend):
    """A host whose roots are made by a program that never ends, and that has children."""

    async def clone_root(self, mark: Mark, *, keep: bool, limit_mib: int | None = None) -> Path:
        await proc.run(["sh", "-c", "sleep 1000 & sleep 1000; wait", NAME])
        raise AssertionError("it never ends")

    async def kill(self, vm_id: VmId) -> None:
        self.calls.append((f"{len(programs())} programs", vm_id))
        await super().kill(vm_id)


def programs() -> list[int]:
    """The shells of this test that run."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if NAME.encode() in words:
                found.append(int(entry.name))
    return found


async def test_a_stop_kills_the_program_that_a_start_waits_for(tmp_path: Path) -> None:
    async with rig(tmp_path) as host:
        host.backend = Spawning()
        async with host.hkd():
            await host.wish("start", ONE)
            async with asyncio.timeout(20):
                while not programs():
                    await asyncio.sleep(0.01)
            await host.wish("stop", ONE)
            vm = await host.until_state(ONE, VmState.STOPPED)
    assert vm.runtime.failure is None
    assert [call for call, _ in host.backend.calls][:2] == ["0 programs", "kill"]
