"""Virtual machines beyond the contract: whatever dies under them, whatever is wrong with their disks."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from xml.etree import ElementTree as Xml

import pytest

from appliance.clock import SystemClock
from appliance.config import KVM_URI, Settings
from appliance.errors import BackendError, ImageError, VolumeError
from appliance.model import VmId
from appliance.runtime import bridge, kvm, kvm_domain, kvm_process, names, processes
from appliance.runtime.backend import Departure, GuestSpec
from appliance.runtime.cgroups import Cgroups, tell_weightless
from appliance.runtime.consoles import Consoles
from appliance.runtime.kvm import LOG_BYTES, Kvm
from appliance.runtime.kvm_domain import Limits
from appliance.runtime.libvirt_link import AwayError, Link, RefusedForNowError
from tests.support import kvm_rig
from tests.support.boot_sector import BOOTED
from tests.support.contract import ONE, Rig
from tests.support.kvm_rig import Site
from tests.support.libvirtd import Libvirtd
from tests.support.tiny_vm import PROMPT
from tests.support.traces import traces

pytestmark = pytest.mark.kvm
LONGEST_S, LINUX_S = 60.0, 120.0
BEGUN = "starting up libvirt"
"""The first line of the log of a QEMU."""


@dataclass
class Bench:
    """A backend at work, and what it has told."""

    site: Site
    rig: Rig
    backend: Kvm
    departed: list[VmId]

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(LONGEST_S):
            while not condition():
                await asyncio.sleep(0.02)

    async def until_departed(self) -> None:
        await self.until(lambda: bool(self.departed))

    async def until_begun(self) -> None:
        """Until there is a QEMU, of which libvirtd does not speak yet."""
        async with asyncio.timeout(LONGEST_S):
            while not kvm_process.find_all(self.site.paths, self.site.installation):
                await asyncio.sleep(0.001)

    async def qemu(self) -> int:
        pid = (await self.backend.survey())[ONE].init_pid
        assert pid is not None
        return pid

    async def until_said(self, text: str, limit_s: float = LONGEST_S) -> None:
        async with asyncio.timeout(limit_s):
            while text not in await self.backend.console_tail(ONE, 50):
                await asyncio.sleep(0.05)


@asynccontextmanager
async def at_work(site: Site) -> AsyncIterator[Bench]:
    rig = site.rig()
    assert isinstance(rig.backend, Kvm)
    bench = Bench(site, rig, rig.backend, [])

    async def follow() -> None:
        async for departure in bench.backend.departures():
            assert isinstance(departure, Departure)
            bench.departed.append(departure.vm_id)

    follower = asyncio.ensure_future(follow())
    try:
        await bench.backend.check()
        yield bench
    finally:
        follower.cancel()
        bench.backend.close()


@pytest.fixture
def alive(site: Site) -> Iterator[Libvirtd]:
    """A libvirtd that a test may stop or kill: it is there again for the next one."""
    yield site.libvirtd
    site.libvirtd.signal(signal.SIGCONT)
    site.libvirtd.start()


@pytest.fixture
def clean(site: Site, alive: Libvirtd) -> Iterator[None]:
    """Nothing is left of a guest that was removed, whoever was away meanwhile."""
    yield
    asyncio.run(kvm_rig.clear(site))
    assert traces(site.installation) == []


@pytest.fixture
async def bench(site: Site, clean: None) -> AsyncIterator[Bench]:
    await site.connect()
    async with at_work(site) as bench:
        yield bench


@contextmanager
def hasty(site: Site) -> Iterator[Site]:
    """The same installation for a backend that does not wait long for libvirtd."""
    limits = {"internal.hkd.kvm.timeout.libvirt": "1", "internal.hkd.kvm.timeout.start": "1"}
    yield replace(site, settings=Settings({**site.settings.written, **limits}))


async def test_a_guest_outlives_libvirtd_and_is_found_again(bench: Bench, alive: Libvirtd) -> None:
    guest = await bench.rig.start()
    before = (await bench.backend.survey())[ONE]
    alive.kill()
    assert (await bench.backend.survey())[ONE] == before
    assert (await bench.backend.sample(ONE)).memory_bytes > 0
    with pytest.raises(AwayError):
        await bench.backend.stop(ONE)
    alive.start()
    async with at_work(bench.site) as later:
        assert (await later.backend.survey())[ONE].mark == guest.mark
        await later.backend.adopt(guest)
        await later.until_said(BOOTED)
        await later.backend.stop(ONE)
        await later.until_departed()
        await bench.until_departed()
    assert bench.departed == later.departed == [ONE]


async def test_the_same_daemon_orders_again_when_libvirtd_is_back(bench: Bench, alive: Libvirtd) -> None:
    await bench.rig.start()
    await bench.until_said(BOOTED)
    alive.kill()
    alive.start()
    async with asyncio.timeout(LONGEST_S):
        while True:
            try:
                await bench.backend.stop(ONE)
                break
            except AwayError:
                await asyncio.sleep(0.05)
    await bench.until_departed()
    await bench.rig.start()
    assert set(await bench.backend.survey()) == {ONE}


async def test_a_name_that_libvirtd_does_not_give_yet_is_asked_for_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As libvirtd refuses it is seen with a domain of that name that is another's."""
    await bench.rig.start()
    xml = bench.site.paths.domain(ONE).read_text()
    other = re.sub("<uuid>[^<]*</uuid>", f"<uuid>{uuid.uuid4()}</uuid>", xml)
    link, refusals = bench.backend._link, 0
    with pytest.raises(RefusedForNowError, match="already exists"):
        await link.create(other)
    await bench.rig.remove(ONE)
    create = link.create

    async def create_later(xml: str) -> None:
        nonlocal refusals
        refusals += 1
        if refusals < 4:
            raise RefusedForNowError("libvirtd does not start a domain: it is already being removed")
        await create(xml)

    monkeypatch.setattr(link, "create", create_later)
    await bench.rig.start()
    assert refusals == 4
    await bench.rig.remove(ONE)
    refusals = -1_000_000
    monkeypatch.setattr(kvm, "FORGET_S", 0.1)
    with pytest.raises(BackendError, match="already being removed"):
        await bench.rig.start()


async def test_the_end_of_qemu_is_noticed_without_libvirtd(bench: Bench, alive: Libvirtd) -> None:
    await bench.rig.start()
    alive.kill()
    os.kill(await bench.qemu(), signal.SIGKILL)
    await bench.until_departed()
    assert await bench.backend.survey() == {}
    await bench.backend.erase(ONE)
    assert traces(bench.site.installation) == []
    with pytest.raises(AwayError, match="not reached"):
        await bench.rig.start()
    alive.start()
    await bench.rig.start()
    assert set(await bench.backend.survey()) == {ONE}


async def test_a_guest_is_killed_without_libvirtd(bench: Bench, alive: Libvirtd) -> None:
    await bench.rig.start()
    pid = await bench.qemu()
    alive.kill()
    await bench.rig.remove(ONE)
    assert processes.started(pid) is None
    await bench.until_departed()
    alive.start()
    await bench.rig.start()


async def test_a_hung_libvirtd_hangs_nobody(bench: Bench, alive: Libvirtd) -> None:
    await bench.rig.start()
    with hasty(bench.site) as site:
        async with at_work(site) as other:
            await other.backend.adopt(bench.rig.guest())
            alive.signal(signal.SIGSTOP)
            with pytest.raises(AwayError, match="no answer within 1 s"):
                await other.backend.stop(ONE)
            assert set(await other.backend.survey()) == {ONE}
            await other.backend.kill(ONE)
            await other.until_departed()


async def test_what_starts_when_nobody_waits_any_longer_is_ended(bench: Bench) -> None:
    guest = await _prepared(bench)
    await bridge.tap(guest.interface, guest.bridge)
    link = Link(bench.site.settings[KVM_URI], limit_s=10, start_limit_s=0.05)
    try:
        await link.version()
        # libvirtd has the order, and its answer comes too late.
        with pytest.raises(AwayError):
            await link.create(bench.site.paths.domain(ONE).read_text())
        async with asyncio.timeout(LONGEST_S):
            while BEGUN not in bench.site.libvirtd.log_of(_name(bench.site)):
                await asyncio.sleep(0.02)
            while await bench.backend.survey() or await link.find(_name(bench.site)) is not None:
                await asyncio.sleep(0.02)
    finally:
        link.close()


async def test_a_libvirtd_that_dies_while_it_starts_a_guest_leaves_none(
    bench: Bench, alive: Libvirtd
) -> None:
    await _prepared(bench)
    launching = asyncio.ensure_future(bench.backend.launch(ONE))
    await bench.until_begun()
    alive.kill()
    with pytest.raises(BackendError):
        await launching
    assert await bench.backend.survey() == {}
    alive.start()
    await bench.rig.start()


async def test_a_cancelled_launch_leaves_no_guest(bench: Bench) -> None:
    await _prepared(bench)
    launching = asyncio.ensure_future(bench.backend.launch(ONE))
    await bench.until_begun()
    launching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await launching
    assert await bench.backend.survey() == {}
    await bench.rig.start()


async def test_a_guest_that_ignores_its_button_is_killed(bench: Bench, images: dict[str, Path]) -> None:
    bench.site.disks.image = images["deaf"]
    await bench.rig.start()
    await bench.until_said(BOOTED)
    await bench.backend.stop(ONE)
    assert set(await bench.backend.survey()) == {ONE}
    await bench.rig.remove(ONE)
    await bench.until_departed()


async def test_a_corrupt_overlay_is_the_storages_fault(bench: Bench) -> None:
    guest = await _prepared(bench)
    with bench.site.disks.files(guest.mark).overlay.open("r+b") as overlay:
        overlay.write(b"no qcow2 at all")
    with pytest.raises(VolumeError, match="overlay"):
        await bench.backend.launch(ONE)
    assert await bench.backend.survey() == {}
    await bench.rig.remove(ONE)
    await bench.rig.start()


async def test_a_corrupt_image_is_its_own_fault(bench: Bench, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.qcow2"
    damaged.write_bytes(bench.site.disks.image.read_bytes())
    bench.site.disks.image = damaged
    await _prepared(bench)
    with damaged.open("r+b") as image:
        image.write(b"no qcow2 at all")
    with pytest.raises(ImageError, match=r"damaged\.qcow2"):
        await bench.backend.launch(ONE)
    assert await bench.backend.survey() == {}


async def test_a_disk_that_somebody_has_open_is_not_started_from(bench: Bench) -> None:
    guest = await _prepared(bench)
    overlay = bench.site.disks.files(guest.mark).overlay
    holder = subprocess.Popen(
        ["qemu-io", "-f", "qcow2", overlay], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert holder.stdin is not None
        assert holder.stdout is not None
        holder.stdin.write(b"length\n")
        holder.stdin.flush()
        assert b"MiB" in holder.stdout.readline()
        with pytest.raises(BackendError, match="another program has the disk"):
            await bench.backend.launch(ONE)
    finally:
        holder.kill()
        holder.communicate()
    await bench.backend.launch(ONE)


async def test_a_missing_image_is_told(bench: Bench) -> None:
    await _prepared(bench)
    bench.site.disks.image = Path("/nowhere/image.qcow2")
    with pytest.raises(ImageError, match="not there"):
        await bench.backend.launch(ONE)


async def test_a_foreign_domain_is_never_touched(bench: Bench) -> None:
    guest = await _prepared(bench)
    text = bench.site.paths.domain(ONE).read_text()
    root = Xml.fromstring(text)
    mark = root.find(f"metadata/{{{kvm_domain.METADATA}}}vm")
    assert mark is not None
    mark.attrib["installation"] = "ffffffff"
    devices = root.find("devices")
    assert devices is not None
    for device in (*devices.findall("interface"), *devices.findall("disk")):
        devices.remove(device)
    link = Link(bench.site.settings[KVM_URI], limit_s=10, start_limit_s=30)
    try:
        await link.create(Xml.tostring(root, encoding="unicode"))
        assert await bench.backend.survey() == {}
        for act in (bench.backend.kill, bench.backend.launch):
            with pytest.raises(BackendError):
                await act(guest.vm_id)
        assert await link.find(_name(bench.site)) is not None
        await link.destroy(_name(bench.site))
    finally:
        link.close()


async def test_the_console_has_one_holder_and_carries_both_ways(bench: Bench) -> None:
    await bench.rig.start()
    await bench.until_said(BOOTED)
    line, other = bench.backend.console(ONE), bench.site.backend()
    descriptor = await line.open()
    try:
        with pytest.raises(BackendError, match="held by somebody else"):
            await other.console(ONE).open()
        os.write(descriptor, b"typed")
        heard = bytearray()
        async with asyncio.timeout(LONGEST_S):
            while b"typed" not in heard:
                try:
                    heard += os.read(descriptor, 100)
                except BlockingIOError:
                    await asyncio.sleep(0.02)
    finally:
        os.close(descriptor)
        line.close()
    os.close(await other.console(ONE).open())
    other.close()


async def test_a_flood_is_drained_and_its_log_stays_small(bench: Bench, images: dict[str, Path]) -> None:
    bench.site.disks.image = images["flood"]
    log = bench.site.paths.console_log(ONE)
    async with asyncio.TaskGroup() as tasks:
        await bench.rig.start(bench.rig.guest(cpus=None))
        await bench.until(log.with_name(f"{log.name}.0").exists)
        assert log.stat().st_blocks * 512 <= LOG_BYTES
        assert "xxxxxxxx" in await bench.backend.console_tail(ONE, 1)
        consoles = Consoles(bench.backend.console, bench.site.paths.console_capture, tasks, SystemClock())
        consoles.guest_runs(ONE)
        capture = bench.site.paths.console_capture(ONE)
        await bench.until(lambda: capture.exists() and capture.read_bytes().count(b"x") > 10_000)
        await bench.rig.remove(ONE)
        consoles.guest_gone(ONE)
    assert list(log.parent.glob(f"{log.name}*")) == []


async def test_a_guest_has_what_it_was_given_and_it_goes_with_the_guest(bench: Bench) -> None:
    guest = await bench.rig.start(bench.rig.guest(cpus=1.5, memory_mib=80, io_weight=1))
    port = Path("/sys/class/net") / guest.interface / "brport"
    await _has_its_limits(bench)
    await _has_its_screen_on_a_socket_and_nowhere_else(bench)
    assert (port / "isolated").read_text().strip() == "1"
    assert (port / "bridge").resolve().name == guest.bridge
    await bench.backend.kill(ONE)
    assert port.exists()
    await bench.rig.remove(ONE)
    assert not port.parent.exists()


async def _has_its_limits(bench: Bench) -> None:
    groups = Cgroups(bench.site.paths.cgroup)
    file, qemu = groups.io_weight(), await bench.qemu()
    link = Link(bench.site.settings[KVM_URI], limit_s=10, start_limit_s=30)
    try:
        weight = None if file is None else 1
        in_force = await link.limits(_name(bench.site), weighed=file is not None)
        assert in_force == Limits(80, 2, 75_000, weight)
    finally:
        link.close()
    if file is not None:
        assert (groups.of(qemu, file.partition(".")[0]) / file).read_text().split()[-1] == "1"


async def test_a_libvirtd_that_cannot_weigh_starts_a_guest_without(
    bench: Bench, alive: Libvirtd, caplog: pytest.LogCaptureFixture
) -> None:
    tell_weightless.cache_clear()
    with unweighing(alive):
        await bench.rig.start(bench.rig.guest(io_weight=300))
        assert set(await bench.backend.survey()) == {ONE}
        await bench.rig.remove(ONE)
        await bench.rig.start(bench.rig.guest(io_weight=300))
        told = [record.message for record in caplog.records if "io_weight" in record.message]
        assert told == ["io_weight has no effect on this host"]
        await bench.rig.remove(ONE)


@contextmanager
def unweighing(libvirtd: Libvirtd) -> Iterator[None]:
    """Take the control group of disk access from a libvirtd for a while."""
    usual = libvirtd.qemu_conf
    libvirtd.kill()
    libvirtd.qemu_conf = f'{usual}cgroup_controllers = [ "cpu", "cpuacct", "cpuset", "devices", "memory" ]\n'
    try:
        libvirtd.start()
        yield
    finally:
        libvirtd.kill()
        libvirtd.qemu_conf = usual
        libvirtd.start()


async def _has_its_screen_on_a_socket_and_nowhere_else(bench: Bench) -> None:
    with socket.socket(socket.AF_UNIX) as screen:
        screen.settimeout(LONGEST_S)
        await asyncio.to_thread(screen.connect, str(bench.site.paths.vnc(ONE)))
        assert (await asyncio.to_thread(screen.recv, 12)).startswith(b"RFB 003.008")
    listening = subprocess.run(["ss", "-Hltn"], capture_output=True, text=True, check=True).stdout
    assert listening == ""


@pytest.mark.timeout(600)  # the first who asks for a tiny guest waits until its kernel is there
async def test_linux_boots_finds_its_disks_and_its_gateway_and_obeys(tiny: Path, bench: Bench) -> None:
    bench.site.disks.image = tiny
    await bench.rig.start(bench.rig.guest(memory_mib=128, cpus=None))
    await bench.until_said(PROMPT.strip(), LINUX_S)
    descriptor = await bench.backend.console(ONE).open()
    try:
        await _typed(descriptor, "cat /sys/block/vda/serial; echo; cat /sys/block/vdb/serial", "os\r\nhome")
        await _typed(descriptor, "ip addr add 10.44.0.101/24 dev eth0; ip link set eth0 up", PROMPT)
        await _typed(descriptor, "arping -c 1 -w 20 -I eth0 10.44.0.1", "Received 1 resp")
    finally:
        os.close(descriptor)
    await bench.backend.stop(ONE)
    await bench.until_departed()


async def _typed(descriptor: int, line: str, answer: str) -> None:
    heard = bytearray()
    os.write(descriptor, line.encode() + b"\n")
    async with asyncio.timeout(LONGEST_S):
        while answer.encode() not in heard.partition(line.encode())[2]:
            try:
                heard += os.read(descriptor, 1000)
            except BlockingIOError:
                await asyncio.sleep(0.02)


async def _prepared(bench: Bench) -> GuestSpec:
    guest = bench.rig.guest()
    await bench.rig.disks.clone_root(guest.mark, keep=False)
    await bench.rig.disks.ensure_home(guest.mark, size_mib=None)
    await bench.backend.define(guest)
    return guest


def _name(site: Site) -> str:
    return names.name(site.installation, ONE)
