"""The broker between the real client and the real nxagent: connect, take over, vanish, come back."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from appliance.model import UserState, VmState
from appliance.vma.wire import XState
from appliance.vma_client import VmaClient
from tests.support.broker import PASSWORD, Installation, installation
from tests.support.vma_guest import DISPLAY, GUEST, PORT, SCREENS, Guest, guest, screen

pytestmark = [pytest.mark.host, pytest.mark.timeout(180)]

VM = 7
CLIENT = Path(sys.executable).with_name("qvd-client")
USUAL = {
    "internal.l7r.poll_time.x": "1",
    "internal.l7r.retry.x_start": "20",
    "internal.l7r.timeout.x_start": "60",
    "internal.l7r.timeout.vma": "4",
}


@pytest.fixture
def vm() -> Iterator[Guest]:
    with guest() as found:
        found.boot()
        yield found


def qvd_client(vm: Guest, node: Installation, display: int) -> subprocess.Popen[bytes]:
    """Our own client at the host's end, showing the desktop on that display."""
    secret, home = vm.work / "password", vm.work / f"home{display}"
    secret.write_text(PASSWORD)
    home.mkdir(exist_ok=True)
    return vm.host(
        str(CLIENT), "-h", "127.0.0.1", "-p", str(node.port), "-u", "alice", "--vm", str(VM),
        "--password-file", str(secret), "--ca", str(vm.work / "cert.pem"),
        DISPLAY=f":{display}", HOME=str(home),
    )  # fmt: skip


async def until(true: Callable[[], bool], what: str, vm: Guest, within_s: float = 30) -> None:
    deadline = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < deadline, f"no {what}\n{vm.logs()}"
        await asyncio.sleep(0.05)


async def shown(vm: Guest, node: Installation) -> None:
    """Wait until the row and nxagent agree that a client is connected."""
    await node.until_user_state(VM, UserState.CONNECTED)
    async with asyncio.timeout(30):
        while await VmaClient(GUEST, PORT).x_state() is not XState.CONNECTED:
            await asyncio.sleep(0.05)


async def scene(vm: Guest) -> None:
    async with installation(vm.work, **USUAL) as node:
        await node.set_row(
            VM,
            vm_state=VmState.RUNNING,
            host_id=1,
            current_di_id=1,
            vm_address=GUEST,
            vm_vma_port=PORT,
            vm_x_port=4000 + DISPLAY,
        )
        first = qvd_client(vm, node, SCREENS)
        await shown(vm, node)
        await until(lambda: bool(vm.processes("xterm")), "xterm", vm)
        agent, xterm = vm.processes("nxagent"), vm.processes("xterm")

        owner = (await node.row(VM)).l7r_session
        second = qvd_client(vm, node, SCREENS + 1)
        await until(lambda: first.poll() is not None, "end of the first client", vm)
        async with asyncio.timeout(30):
            while (
                row := await node.row(VM)
            ).l7r_session == owner or row.user_state is not UserState.CONNECTED:
                await asyncio.sleep(0.05)
        await shown(vm, node)
        assert second.poll() is None

        second.send_signal(signal.SIGKILL)
        await node.until_user_state(VM, UserState.DISCONNECTED)
        third = qvd_client(vm, node, SCREENS)
        await shown(vm, node)
        assert (vm.processes("nxagent"), vm.processes("xterm")) == (agent, xterm), "the same programs"
        log = vm.nx_log()
        assert log.count("Session: Session resumed at") == 2
        assert "Aborting session" not in log
        third.terminate()
        await until(lambda: third.poll() is not None, "end of the third client", vm)
        await node.until_user_state(VM, UserState.DISCONNECTED)


def test_a_desktop_goes_from_client_to_client_and_keeps_its_programs(vm: Guest) -> None:
    with screen(vm, SCREENS), screen(vm, SCREENS + 1):
        vm.run(lambda: scene(vm))
