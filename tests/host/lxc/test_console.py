"""Consoles of real containers, through everything: guest, monitor, hub, control socket, `qa`'s end."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from appliance.clock import SystemClock
from appliance.control import ControlServer, Stream, open_stream
from appliance.control_frames import FrameKind
from appliance.errors import AdminError, ConflictError
from appliance.qa.console import run_console
from appliance.runtime.consoles import HISTORY_BYTES, Consoles
from tests.support.contract import ONE, Rig
from tests.support.lxc_rig import Site

pytestmark = pytest.mark.host


class Desk:
    """A script at the console of VM 1."""

    def __init__(self, site: Site, folder: Path) -> None:
        self._control = site.paths.control
        self._folder = folder

    async def run(self, *commands: str, quiet_s: float = 1.0) -> str:
        """Send lines, and give back what the console showed until it was quiet."""
        given, shown = self._folder / "in", self._folder / "out"
        given.write_text("".join(f"{command}\n" for command in commands))
        with given.open("rb") as stdin, shown.open("wb") as stdout, Path(os.devnull).open("wb") as stderr:
            status = await run_console(
                self._control,
                ONE,
                stdin=stdin.fileno(),
                stdout=stdout.fileno(),
                stderr=stderr.fileno(),
                quiet_s=quiet_s,
            )
        assert status == 0
        return shown.read_text()


@contextlib.asynccontextmanager
async def daemon(site: Site, rig: Rig, folder: Path) -> AsyncIterator[tuple[Consoles, Desk]]:
    """The part of a daemon that serves consoles, with VM 1 running."""
    async with asyncio.TaskGroup() as tasks:
        consoles = Consoles(rig.backend.console, site.paths.console_capture, tasks, SystemClock())
        consoles.guest_runs(ONE)
        async with ControlServer(site.paths.control, {"console": consoles.view}, tasks):
            yield consoles, Desk(site, folder)
        consoles.guest_gone(ONE)


async def until_shown(stream: Stream, expected: bytes, limit_s: float = 10) -> None:
    """Receive until the console shows `expected`."""
    shown = b""
    async with asyncio.timeout(limit_s):
        while expected not in shown:
            frame = await stream.receive()
            assert frame is not None, stream.farewell
            if frame.kind is FrameKind.DATA:
                shown += frame.payload


async def test_the_guest_answers_and_knows_the_writers_size(site: Site, tmp_path: Path) -> None:
    await site.connect()
    rig = site.rig()
    await rig.start()
    async with daemon(site, rig, tmp_path) as (_, desk):
        assert "on desk1." in await desk.run("echo on $(cat /proc/sys/kernel/hostname).")
        request = {"want": "console", "vm": ONE, "rows": 41, "columns": 123}
        async with await open_stream(site.paths.control, request) as stream:
            await stream.send(FrameKind.DATA, b"stty size\n")
            await until_shown(stream, b"41 123")


async def test_a_shell_outlives_the_daemon_and_its_screen_is_shown_again(site: Site, tmp_path: Path) -> None:
    await site.connect()
    rig = site.rig()
    await rig.start()
    async with daemon(site, rig, tmp_path) as (_, desk):
        await desk.run("kept=treasure")
    another = site.rig()
    await another.backend.adopt(another.guest())
    async with daemon(site, another, tmp_path) as (_, desk):
        shown = await desk.run('echo "<$kept>"')
    assert "kept=treasure" in shown
    assert "<treasure>" in shown


async def test_a_reboot_inside_keeps_the_viewer(site: Site, tmp_path: Path) -> None:
    await site.connect()
    rig = site.rig()
    await rig.start()
    async with (
        daemon(site, rig, tmp_path),
        await open_stream(site.paths.control, {"want": "console", "vm": ONE}) as stream,
    ):
        await stream.send(FrameKind.DATA, b"before=1; reboot\n")
        async with asyncio.timeout(20):
            while True:
                await stream.send(FrameKind.DATA, b'echo "again$((40+2))<$before>"\n')
                with contextlib.suppress(TimeoutError):
                    await until_shown(stream, b"again42<>", limit_s=1)
                    break


async def test_a_flood_and_a_viewer_that_never_reads_wedge_nothing(site: Site, tmp_path: Path) -> None:
    await site.connect()
    rig = site.rig()
    await rig.start()
    capture = site.paths.console_capture(ONE)
    flood = b"i=0; while [ $i -lt 100000 ]; do echo line-$i; i=$((i+1)); done\n"
    async with daemon(site, rig, tmp_path) as (_, desk):
        async with await open_stream(site.paths.control, {"want": "console", "vm": ONE}) as idle:
            await idle.send(FrameKind.DATA, flood)
            async with asyncio.timeout(60):
                while not capture.exists() or b"line-99999" not in capture.read_bytes()[-200:]:
                    await asyncio.sleep(0.1)
            with pytest.raises(AdminError, match="did not keep up"):
                await until_shown(idle, b"line-99999")
        assert "line-99999" in await desk.run("echo still here")
        assert set(await rig.backend.survey()) == {ONE}
        await rig.backend.stop(ONE)
        async with asyncio.timeout(20):
            while await rig.backend.survey():
                await asyncio.sleep(0.05)


async def test_what_a_guest_prints_cannot_ask_the_terminal(site: Site, tmp_path: Path) -> None:
    await site.connect()
    rig = site.rig()
    await rig.start()
    async with daemon(site, rig, tmp_path) as (_, desk):
        shown = await desk.run(r"echo -e 'a\033[6nb\033]52;c;cHduZWQ=\007c\033[cd\033]0;title\007e'")
    assert "abcde" in shown
    assert "\x1b[6n" not in shown
    assert "\x1b]" not in shown


async def test_after_the_guest_there_is_no_console_but_its_capture(site: Site, tmp_path: Path) -> None:
    await site.connect()
    rig = site.rig()
    await rig.start()
    async with daemon(site, rig, tmp_path) as (consoles, desk):
        await desk.run("echo last words")
        await rig.backend.kill(ONE)
        consoles.guest_gone(ONE)
        with pytest.raises(ConflictError, match="VM 1 does not run here"):
            await desk.run("echo more")
    assert b"last words" in site.paths.console_capture(ONE).read_bytes()[-HISTORY_BYTES:]
