"""An installation that is put through faults: a real daemon, quick guests, a network namespace of its own.

Wishes are written as `qa` writes them, by the same operations in this process, which saves a second for
each. The test runs inside the namespace, so that it can be a client and ask the guests' VMAs.
"""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

from appliance.clock import SystemClock
from appliance.config import DATABASE_URL, read_file
from appliance.model import Limit, StartedBy, VmId
from appliance.ops import images, vms
from appliance.signals import ring
from appliance.storage.store import Store
from scripts.trial import LOGIN, PORT, ROOT, Trial
from tests.support import netns
from tests.support.broker import Client, Reply, request
from tests.support.faults import LIMIT, PLAN, Plan
from tests.support.invariants import Baseline, Grounds, Row, until_clean, violations
from tests.support.quick_guest import mute_image, quick_image

SETTINGS = {
    "internal.hkd.lxc.timeout.on_state.stopping.stop": "1",
    "internal.hkd.lxc.timeout.on_state.zombie.delay": "0.2",
    "internal.hkd.poll_time": "0.5",
    "internal.hkd.start.delay.first": "0.2",
    "internal.hkd.start.delay.max": "1",
    "internal.l7r.poll_time.vm": "0.2",
    "internal.l7r.poll_time.x": "0.2",
    "storage.roots.kept.days": "0",
}
"""Waits that only cost time; none of them decides whether a run succeeds."""
PATIENCE_S = 60.0
STAGE_S = 30.0


class Ordeal:
    """The installation, its daemon, and the hands that wish, connect, arm and kill."""

    def __init__(self, trial: Trial, grounds: Grounds, store: Store, quick: Path) -> None:
        self.trial, self.grounds, self.store, self.quick = trial, grounds, store, quick
        self.plan = Plan(trial.directory.with_name("faults") / "plan")
        self.plan.file.parent.mkdir()
        self.patience_s, self.stage_s = PATIENCE_S, STAGE_S
        """How long anything may take to come true, and a stage to reach a failpoint."""
        self.limit_s: float | None = None
        """How long an action may go on at most in the daemons started from now on, if not its own limit."""
        self._base: Baseline | None = None
        self._trust = ssl.create_default_context()
        self._trust.check_hostname = False
        self._trust.verify_mode = ssl.CERT_NONE
        self._password = trial.password_file.read_text().strip()

    # -- the daemon

    def spawn(self) -> subprocess.Popen[bytes]:
        """Start the daemon, with failpoints, without waiting for anything."""
        limit = {} if self.limit_s is None else {LIMIT: str(self.limit_s)}
        with self.trial.log.open("ab") as log:
            self.trial.daemon = subprocess.Popen(
                [sys.executable, "-m", "tests.support.faulty_daemon", str(self.trial.config)],
                cwd=ROOT,
                env={**self.trial.environment, PLAN: str(self.plan.file), **limit},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.grounds.daemon = self.trial.daemon.pid
        return self.trial.daemon

    async def start_daemon(self) -> None:
        """Start the daemon and wait until it serves."""
        self.spawn()
        await self.until_serving()

    async def until_serving(self) -> None:
        """Wait until the daemon has taken up what it found."""
        daemon = self.trial.daemon
        assert daemon is not None
        await self.eventually("the daemon", lambda: self._serves(daemon))

    async def died(self) -> bool:
        """Whether the plan has killed the daemon; waits as long as a stage may take to get there."""
        daemon = self.trial.daemon
        assert daemon is not None
        until = time.monotonic() + self.stage_s
        while not self.plan.struck():
            if time.monotonic() > until:
                return False
            await asyncio.sleep(0.01)
        daemon.wait(self.patience_s)
        assert daemon.returncode == -9, f"the daemon ended with {daemon.returncode}\n{self.last_words()}"
        self.trial.daemon = self.grounds.daemon = None
        return True

    def kill(self) -> None:
        """kill -9 the daemon."""
        self.trial.kill()
        self.grounds.daemon = None

    def _serves(self, daemon: subprocess.Popen[bytes]) -> bool:
        assert daemon.poll() is None, f"the daemon ended with {daemon.returncode}: {self.trial.log_tail()}"
        (host,) = self.grounds.rows("SELECT state, pid FROM host_runtimes")
        return (host["state"], host["pid"]) == ("running", daemon.pid)

    # -- the rows

    async def wish(self, verb: str, vm_id: int) -> bool:
        """Wish a VM started, stopped or restarted; whether anybody took that as news."""
        async with self.store.write() as tx:
            if verb == "start":
                taken = await vms.start(tx, [VmId(vm_id)], by="test", started_by=StartedBy.COMMAND)
            else:
                taken = await vms.stop(tx, [VmId(vm_id)], by="test", restart=verb == "restart")
        ring(self.grounds.paths.doorbell)
        return bool(taken)

    async def age(self, vm_id: int) -> None:
        """Let the images go on, so that a VM which runs is due to be asked, from now on."""
        async with self.store.write() as tx:
            vm = await tx.vms.get(VmId(vm_id))
            others = [di for di in await tx.images.find() if di.id != vm.runtime.current_di_id]
            newer = next(di for di in others if di.osf_id == vm.osf_id)
            await images.tag(tx, newer, vm.di_tag, by="test", limits={Limit.SOFT: tx.at})
        ring(self.grounds.paths.doorbell)

    def row(self, vm_id: int) -> Row:
        """A VM with its runtime row, as it is now."""
        (row,) = (row for row in self.grounds.vms() if row["id"] == vm_id)
        return row

    async def until_state(self, vm_id: int, *states: str) -> Row:
        """Wait until a VM is in one of these states; its row."""
        await self.eventually(f"VM {vm_id} {'/'.join(states)}", lambda: self.row(vm_id)["vm_state"] in states)
        return self.row(vm_id)

    async def until_phase(self, vm_id: int, phase: str) -> None:
        """Wait until the row of a VM shows a phase."""
        await self.eventually(f"VM {vm_id} {phase}", lambda: self.row(vm_id)["vm_phase"] == phase)

    async def bring(self, vm_id: int, state: str) -> None:
        """Have a VM running or stopped, wherever it is now."""
        until = time.monotonic() + self.patience_s
        while (self.row(vm_id)["vm_state"], self.row(vm_id)["vm_cmd"]) != (state, None):
            await self.wish("start" if state == "running" else "stop", vm_id)
            with suppress(TimeoutError):
                async with asyncio.timeout(2):
                    await self.until_state(vm_id, state)
            assert time.monotonic() < until, f"VM {vm_id} cannot be {state}: {dict(self.row(vm_id))}"

    async def eventually(self, what: str, condition: Callable[[], bool]) -> None:
        """Look again and again until `condition` holds."""
        until = time.monotonic() + self.patience_s
        while not condition():
            assert time.monotonic() < until, f"no sign of {what}\n{self.last_words()}"
            await asyncio.sleep(0.01)

    # -- judgement

    async def calm(self) -> None:
        """Wait until nothing is under way, then have everything checked.

        :raises AssertionError: something is doubled, lost, stuck or leaked
        """
        assert self._base is not None
        try:
            await asyncio.to_thread(until_clean, self.grounds, self._base, self.patience_s)
        except AssertionError as exc:
            raise AssertionError(f"{exc}\n{self.last_words()}") from exc

    def violations(self) -> list[str]:
        """What is wrong now."""
        assert self._base is not None
        return violations(self.grounds, self._base)

    def last_words(self) -> str:
        """What the daemon said last, in lines that can be read."""
        return "\n".join(
            ["the daemon said last:", *(line[:300] for line in self.trial.log_tail(40).splitlines())]
        )

    def remember_the_host(self) -> None:
        """Take the host as it is for what it must be again."""
        self._base = self.grounds.baseline()

    # -- clients

    @asynccontextmanager
    async def connected(self, vm_id: int) -> AsyncIterator[tuple[Client, Reply]]:
        """A client that has asked for a desktop and got its final reply; it leaves at the end."""
        client = Client(*await asyncio.open_connection("127.0.0.1", PORT, ssl=self._trust))
        try:
            path = f"/qvd/connect_to_vm?id={vm_id}&qvd.client.os=linux&qvd.client.geometry=1024x768"
            await client.send(request(path, LOGIN, self._password, "Connection: Upgrade", "Upgrade: QVD/1.0"))
            yield client, (await client.final())[0]
        finally:
            await client.close()

    async def prove_desktop(self, vm_id: int) -> None:
        """Show that a running VM can be used: connect, have something echoed by its session, and leave."""
        async with self.connected(vm_id) as (client, reply):
            assert reply.status == 101, f"VM {vm_id}: {reply.status} {reply.body.decode(errors='replace')}"
            await client.send(b"echo\n")
            assert await client.reader.readexactly(5) == b"echo\n"
        await self.eventually(
            "the end of the session", lambda: self.row(vm_id)["user_state"] == "disconnected"
        )


@contextmanager
def grounds_of(directory: Path, desktops: int) -> Iterator[tuple[Trial, Grounds, Path]]:
    """An installation laid out with VMs 1, 2, …; the last has an image whose guest is mute and stubborn."""
    with Trial(directory, settings=SETTINGS) as trial:
        trial.lay_out(pool_size="2G")
        quick = quick_image(directory / "quick.tar.gz")
        trial.furnish(quick, vm="desk1", memory=64)
        for number in range(2, desktops):
            trial.qa("vm", "add", f"name=desk{number}", f"user={LOGIN}", "osf=small")
        mute = mute_image(directory / "mute.tar.gz")
        trial.qa("osf", "add", "name=mute", "memory=64")
        trial.qa("di", "add", f"path={mute}", "osf=mute")
        trial.qa("di", "duplicate", "di_id=1")
        trial.qa("vm", "add", f"name=desk{desktops}", f"user={LOGIN}", "osf=mute")
        with netns.entered(trial.netns):
            yield trial, Grounds(trial.directory, read_file(trial.config), trial.marker.read_text()), quick


@asynccontextmanager
async def ordeal(directory: Path, desktops: int) -> AsyncIterator[Ordeal]:
    """The installation with its daemon at work; every VM has run once, and has a canary in its home."""
    with grounds_of(directory, desktops) as (trial, grounds, quick):
        async with at_work(trial, grounds, quick, answering=range(1, desktops), mute=desktops) as made:
            yield made


@asynccontextmanager
async def at_work(
    trial: Trial, grounds: Grounds, quick: Path, *, answering: Collection[int], mute: int, slower: float = 1
) -> AsyncIterator[Ordeal]:
    """The same on grounds that are laid out, where these VMs are run once and boot `slower` than others."""
    store = await Store.open(grounds.settings[DATABASE_URL], SystemClock())
    try:
        made = Ordeal(trial, grounds, store, quick)
        made.patience_s, made.stage_s = slower * PATIENCE_S, slower * STAGE_S
        made.plan.arm()
        made.plan.disarm()
        await made.start_daemon()
        for vm_id in answering:
            await made.bring(vm_id, "running")
        for vm_id in answering:
            await made.bring(vm_id, "stopped")
        await made.wish("start", mute)
        await made.until_phase(mute, "starting/awaiting-vma")
        await made.bring(mute, "stopped")
        for vm_id in (*answering, mute):
            grounds.plant_canary(vm_id, json.dumps({"owner": vm_id, "word": os.urandom(8).hex()}).encode())
        made.remember_the_host()
        await made.calm()
        yield made
    finally:
        await store.close()
