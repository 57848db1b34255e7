"""Hooks that fail, hang, fork or never stop talking: what the host is answered, and what is kept of them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.errors import VmaRefusedError
from appliance.vma.wire import XState
from tests.support.loopback_vma import LoopbackVma, loopback_vma, wait_for

pytestmark = pytest.mark.host


@pytest.fixture
def vma(tmp_path: Path) -> Iterator[LoopbackVma]:
    with loopback_vma(tmp_path) as found:
        yield found


def boot(vma: LoopbackVma, stop_hook: str, **settings: str) -> None:
    vma.settings(**{"vma.on_action.stop": vma.script("hook", stop_hook), **settings})
    vma.boot()


def hook_log(vma: LoopbackVma) -> str:
    path = vma.work / "log/qvd-hooks.log"
    return path.read_text() if path.exists() else ""


@pytest.mark.parametrize(
    ("hook", "reason"),
    [
        ("exit 3", "refused with status 3"),
        ("kill -SEGV $$", "was ended by signal 11"),
        ("exec sleep 60", "took longer than its time limit and was ended"),
        ("trap '' TERM INT HUP; while :; do sleep 1; done", "took longer than its time limit and was ended"),
    ],
)
async def test_a_hook_that_fails_aborts_its_action(vma: LoopbackVma, hook: str, reason: str) -> None:
    boot(vma, f"echo before; {hook}", vma__hook__timeout="1")
    with pytest.raises(VmaRefusedError, match="the hook of action stop failed"):
        await vma.client.x_stop()
    assert reason in vma.logs()
    wait_for(lambda: hook_log(vma) == "before\n", vma.logs)


async def test_what_is_no_program_aborts_its_action(vma: LoopbackVma) -> None:
    vma.settings(**{"vma.on_action.poweroff": "/nonexistent/hook", "command.poweroff": "false"})
    vma.boot()
    await vma.client.poweroff()  # a refusal looks like a real VMA's success: only the departure tells
    assert "/nonexistent/hook: No such file or directory" in vma.logs()
    assert "could not be run" in vma.logs()
    assert "power off" not in vma.logs().replace("poweroff", "")


@pytest.mark.parametrize("away", ["setsid $WORK/stay &", "$WORK/stay &", "(setsid $WORK/stay &) &"])
async def test_a_hook_that_leaves_something_running_has_ended(vma: LoopbackVma, away: str) -> None:
    vma.script("stay", "echo $$ > $WORK/pid; until test -e $WORK/go; do sleep 0.05; done; echo late")
    boot(vma, f"{away}\necho done")
    assert await vma.client.x_stop() is XState.STOPPED
    wait_for(lambda: hook_log(vma) == "done\n" and (vma.work / "pid").exists(), vma.logs)
    vma.kill()
    vma.boot()
    (vma.work / "go").touch()
    wait_for(lambda: hook_log(vma) == "done\nlate\n", vma.logs)


async def test_the_end_of_time_takes_what_the_hook_has_started_with_it(vma: LoopbackVma) -> None:
    vma.script("stay", "echo $$ > $WORK/pid; while :; do sleep 0.2; done")
    boot(vma, "$WORK/stay & wait", vma__hook__timeout="1")
    with pytest.raises(VmaRefusedError):
        await vma.client.x_stop()
    pid = (vma.work / "pid").read_text().strip()
    wait_for(lambda: not Path(f"/proc/{pid}").exists() or _is_zombie(pid), vma.logs)


async def test_a_hook_that_never_stops_talking_fills_nothing_and_delays_nobody(vma: LoopbackVma) -> None:
    boot(vma, "exec yes 'and so on'", vma__hook__timeout="2", vma__log__limit="100000")
    stopping = asyncio.create_task(vma.client.x_stop())
    for _ in range(20):
        await vma.client.ping()
    with pytest.raises(VmaRefusedError):
        await stopping
    logs = [path.stat().st_size for path in (vma.work / "log").glob("qvd-hooks.log*")]
    assert len(logs) == 2, "it was turned over"
    assert max(logs) <= 100_000 + 64 * 1024


async def test_the_host_is_told_the_last_lines(vma: LoopbackVma) -> None:
    boot(
        vma, "seq 1 1000; printf 'tab\\t, \\033[31mred, \\377 and Ünï\\n'",
        log__filename=str(vma.work / "log/vma.log"),
    )  # fmt: skip
    assert await vma.client.x_stop() is XState.STOPPED
    wait_for(lambda: "red" in (vma.work / "log/qvd-hooks.log").read_text("utf-8", "replace"), vma.logs)
    logs = await vma.client.hook_log(3)
    assert logs.hooks == ("999", "1000", "tab?, ?[31mred, ? and Ünï")
    assert f"qvd-vma: listening on port {vma.port}" in logs.vma[0]
    whole = await vma.client.hook_log(500)
    assert len(whole.hooks) == 500


async def test_logs_in_the_worst_of_letters_still_fit_the_answer(vma: LoopbackVma) -> None:
    boot(vma, "true")
    for name in ("log/qvd-hooks.log", "log/qvd-hooks.log.1"):
        (vma.work / name).parent.mkdir(exist_ok=True)
        (vma.work / name).write_bytes(("\u00fc" * 50 + "\n").encode() * 1000)
    logs = await vma.client.hook_log(500)
    assert 90 < len(logs.hooks) < 110
    assert logs.vma == ()


def _is_zombie(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True
