"""Lines that end and come back, hubs that fail, guests that go."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from appliance.clock import SystemClock
from appliance.console_output import TIDY
from appliance.control import ControlServer
from appliance.errors import AdminError
from appliance.runtime import console
from appliance.runtime.console import Consoles
from tests.support.console_bench import VM, Bench, eventually
from tests.support.lines import PtyLine


class Failing(PtyLine):
    """A line of which the first opening fails in a way that nobody has thought of."""

    async def open(self) -> int:
        if not self.opened:
            self.opened += 1
            await asyncio.sleep(0.05)
            raise RuntimeError("a defect")
        return await super().open()


async def test_a_hub_that_fails_says_so_and_runs_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "FAILED_PAUSE_S", 0.2)
    async with asyncio.TaskGroup() as tasks:
        with Failing() as line:
            consoles = Consoles(lambda vm_id: line, lambda vm_id: tmp_path / "7.tty", tasks, SystemClock())
            async with ControlServer(tmp_path / "s", {"console": consoles.view}, tasks):
                bench = Bench(consoles, tmp_path / "s", tmp_path)
                consoles.guest_runs(VM)
                async with bench.viewer() as seen:
                    with pytest.raises(AdminError, match="the console failed"):
                        await seen.until(lambda: False)
                async with bench.viewer() as seen:
                    await seen.until(lambda: seen.state.get("waiting_for", "") is None)
                    line.print(b"here")
                    await seen.until_it_ends(b"here")
            consoles.guest_gone(VM)


async def test_a_busy_line_is_tried_again_and_the_viewer_told(
    bench: Bench, line: PtyLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    await eventually(lambda: line.busy)
    bench.consoles.guest_gone(VM)
    await eventually(lambda: not line.busy)
    line.busy = True
    bench.consoles.guest_runs(VM)
    async with bench.viewer() as seen:
        await seen.until(lambda: seen.state.get("waiting_for") == "somebody else holds the line")
        line.busy = False
        await seen.until(lambda: seen.state.get("waiting_for") is None)
        line.print(b"here")
        await seen.until_it_ends(b"here")


async def test_a_guest_that_reboots_keeps_its_viewers(bench: Bench, line: PtyLine) -> None:
    async with bench.viewer(rows=30, columns=90) as seen:
        line.print(b"going down\r\n")
        await seen.until_it_ends(b"down\r\n")
        line.hang_up()
        await eventually(lambda: line.opened == 2)
        line.print(b"up again\r\n")
        await seen.until_it_ends(b"up again\r\n")
        assert line.size == (30, 90)


OTHER_SCREEN = b"\x1b[?1049h\x1b[?1000hvi"


async def test_what_a_program_did_to_the_screen_ends_with_its_line(bench: Bench, line: PtyLine) -> None:
    async with bench.viewer() as seen:
        line.print(OTHER_SCREEN)
        await seen.until_it_ends(OTHER_SCREEN)
        line.hang_up()
        await seen.until_it_ends(OTHER_SCREEN + TIDY)
        await eventually(lambda: line.opened == 2)
        line.hang_up()
        await eventually(lambda: line.opened == 3)
        line.print(b"login: ")
        await seen.until(lambda: seen.output.endswith(b"login: "))
        assert seen.output == OTHER_SCREEN + TIDY + b"login: "


@pytest.mark.parametrize("forgets", [False, True], ids=["the same daemon", "a daemon that has just begun"])
async def test_what_a_program_did_to_the_screen_ends_with_its_guest(
    bench: Bench, line: PtyLine, forgets: bool
) -> None:
    line.print(OTHER_SCREEN)
    await eventually(lambda: bench.captured() == len(OTHER_SCREEN))
    if forgets:
        _, task = bench.consoles._hubs.pop(VM)
        task.cancel()
        await eventually(task.done)
        bench.consoles.guest_runs(VM)
    bench.consoles.guest_gone(VM)
    await eventually(lambda: not line.busy)
    bench.consoles.guest_runs(VM)
    async with bench.viewer() as seen:
        await seen.until_it_ends(TIDY)
        assert seen.output == OTHER_SCREEN + TIDY


async def test_a_guest_that_is_gone_ends_its_views_with_a_word(bench: Bench, line: PtyLine) -> None:
    async with bench.viewer() as seen:
        await seen.until(lambda: "writer" in seen.state)
        bench.consoles.guest_gone(VM)
        bench.consoles.guest_gone(VM)
        while await seen.stream.receive():
            pass
        assert seen.stream.farewell == "the VM has stopped"
    await eventually(lambda: not line.busy)
