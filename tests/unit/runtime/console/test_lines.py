"""Lines that end and come back, hubs that fail, guests that go."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from appliance.clock import SystemClock
from appliance.console_output import ON_THE_NEXT_LINE, TIDY
from appliance.control import ControlServer
from appliance.errors import AdminError
from appliance.runtime import console
from appliance.runtime.consoles import Consoles
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
    monkeypatch.setattr("appliance.runtime.consoles.FAILED_PAUSE_S", 0.2)
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
UNDONE = OTHER_SCREEN + TIDY + ON_THE_NEXT_LINE


async def test_what_a_program_did_to_the_screen_ends_with_its_line(bench: Bench, line: PtyLine) -> None:
    async with bench.viewer() as seen:
        line.print(OTHER_SCREEN)
        await seen.until_it_ends(OTHER_SCREEN)
        line.hang_up()
        await seen.until_it_ends(UNDONE)
        await eventually(lambda: line.opened == 2)
        line.hang_up()
        await eventually(lambda: line.opened == 3)
        line.print(b"login: ")
        await seen.until_it_ends(b"login: ")
        assert seen.output == UNDONE + b"login: "


async def restarted(bench: Bench) -> None:
    """As if the daemon were another one: it knows no hub."""
    _, task = bench.consoles._hubs.pop(VM)
    task.cancel()
    await eventually(task.done)


@pytest.mark.parametrize("daemon", ["the same", "one that found the guest", "one that found it gone"])
async def test_what_a_program_did_to_the_screen_ends_with_its_guest(
    bench: Bench, line: PtyLine, daemon: str
) -> None:
    line.print(OTHER_SCREEN)
    await eventually(lambda: bench.captured() == len(OTHER_SCREEN))
    if daemon != "the same":
        await restarted(bench)
    if daemon == "one that found the guest":
        bench.consoles.guest_runs(VM)
        await eventually(lambda: line.busy)
    bench.consoles.guest_gone(VM)
    await eventually(lambda: not line.busy)
    bench.consoles.guest_begins(VM)
    bench.consoles.guest_runs(VM)
    line.print(b"boot")
    async with bench.viewer() as seen:
        await seen.until_it_ends(b"boot")
        assert seen.output == UNDONE + b"boot"


async def test_a_guest_that_runs_on_keeps_its_screen_though_the_daemon_is_another(
    bench: Bench, line: PtyLine
) -> None:
    line.print(OTHER_SCREEN)
    await eventually(lambda: bench.captured() == len(OTHER_SCREEN))
    await restarted(bench)
    bench.consoles.guest_runs(VM)
    async with bench.viewer() as seen:
        await seen.until(lambda: seen.state.get("waiting_for", "") is None)
        line.print(b"more")
        await seen.until_it_ends(b"more")
        assert seen.output == OTHER_SCREEN + b"more"


async def test_nothing_is_read_of_a_guest_that_is_gone(bench: Bench, line: PtyLine) -> None:
    line.print(OTHER_SCREEN)
    await eventually(lambda: bench.captured() == len(OTHER_SCREEN))
    await asyncio.sleep(2 * console.PAUSE_S)  # it is read again from then on
    line.print(b"late\x1b[?1002h")
    asyncio.get_running_loop().call_soon(bench.consoles.guest_gone, VM)  # in the turn in which it can be read
    await eventually(lambda: not line.busy)
    assert bench.capture.read_bytes() == UNDONE


async def test_a_guest_that_said_nothing_leaves_nothing(bench: Bench, line: PtyLine) -> None:
    await eventually(lambda: line.busy)
    bench.consoles.guest_gone(VM)
    await eventually(lambda: not line.busy)
    assert bench.captured() == 0


async def test_no_file_of_a_guest_that_is_gone_stays_open(bench: Bench, line: PtyLine) -> None:
    def opened() -> list[Path]:
        links = [link.readlink() for link in Path("/proc/self/fd").iterdir() if link.exists()]
        return [file for file in links if file == bench.capture]

    line.print(b"login: ")
    await eventually(bench.capture.exists)
    assert opened()
    bench.consoles.guest_gone(VM)
    await eventually(lambda: not line.busy)
    await eventually(lambda: not opened())


async def test_a_guest_that_is_gone_ends_its_views_with_a_word(bench: Bench, line: PtyLine) -> None:
    async with bench.viewer() as seen:
        await seen.until(lambda: "writer" in seen.state)
        bench.consoles.guest_gone(VM)
        bench.consoles.guest_gone(VM)
        while await seen.stream.receive():
            pass
        assert seen.stream.farewell == "the VM has stopped"
    await eventually(lambda: not line.busy)
