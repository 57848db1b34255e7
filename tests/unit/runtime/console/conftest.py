"""The hub of a console: a real pseudo terminal at one end, real viewers on a Unix socket at the other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from appliance.clock import SystemClock
from appliance.control import ControlServer
from appliance.runtime.consoles import Consoles
from tests.support.console_bench import VM, Bench
from tests.support.lines import PtyLine


@pytest.fixture
def line() -> Iterator[PtyLine]:
    with PtyLine() as line:
        yield line


@pytest.fixture
async def bench(line: PtyLine, tmp_path: Path) -> AsyncIterator[Bench]:
    async with asyncio.TaskGroup() as tasks:
        consoles = Consoles(lambda vm_id: line, lambda vm_id: tmp_path / f"{vm_id}.tty", tasks, SystemClock())
        consoles.guest_runs(VM)
        path = tmp_path / "s"
        async with ControlServer(path, {"console": consoles.view}, tasks):
            yield Bench(consoles, path, tmp_path)
        consoles.guest_gone(VM)
