"""How long a virtual machine takes to start: until QEMU runs, against bare libvirt; until its VMA answers.

Ours: from the wish in the database, through the daemon. Inside the time are the wish and the daemon's
waking, the rows that it writes, a fresh overlay, the look at the home disk, the domain and its folders, the
tap, the rules, all checks of who else might use the disks, and libvirtd's own work.

Bare: `virDomainCreateXML` alone, of what `kvm_domain.render` makes for a VM of the same OSF, user and image.
Its overlay, home disk, folders and tap are made before the clock runs, and it has no rules.

Both end with the same event on one connection to the same libvirtd: the domain's processors have been let go
(RESUMED). Between runs everything is ended and removed. Guests are emulated (TCG), as on a machine without
KVM. They take turns within one run, as these machines are shared.

From QEMU on nothing is compared: the rest is the guest's boot. Its stages are told by what appears on the
console and, for what happens quietly, by the guest's own clocks, asked by its console afterwards.
"""

from __future__ import annotations

import asyncio
import os
import re
import select
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import libvirt

from appliance import config
from appliance.config import Settings, read_file
from appliance.model import DiId, Vm, VmState
from appliance.runtime import bridge, kvm_domain, names
from appliance.runtime.backend import GuestSpec
from appliance.runtime.guests import describe
from appliance.storage.paths import Paths
from appliance.storage.qcow2 import Qcow2Disks
from benchmarks.desktops import CarriedOut, Desktops
from benchmarks.probe import Prober
from benchmarks.report import parts, result, result_at_least, spread
from scripts.demo import KINDS, LIBVIRT_URI
from scripts.private_libvirtd import PrivateLibvirtd
from scripts.trial import BIN, IN_NETNS, ROOT, Trial, command

KIND = KINDS["kvm"]
SINGLES = int(os.environ.get("BENCH_SINGLES", "15"))
BOOTS = int(os.environ.get("BENCH_BOOTS", "3"))
MORE_MS = 60.0
NAMED = 0.9
START_S, BOOT_S, ASK_S, ASK_AGAIN_S = 60.0, 300.0, 60.0, 2.0
LOOK_S = 0.02
HOME_MIB = 64
STOP_S = {
    "internal.hkd.lxc.timeout.on_state.stopping.stop": "0.1",
    "internal.hkd.lxc.timeout.on_state.stopping.shutdown": "20",
}
"""A guest that has not booted is told to power off for no longer than it takes to see that it does not."""
LIBVIRTS = "virDomainCreateXML"
BEFORE = ("PrepareRoot", "DefineGuest", "FenceGuest")
STAGES = (
    ("firmware begins", "SeaBIOS"),
    ("boot loader begins", "GRUB|Booting from Hard Disk"),
    ("getty on the console", "login: "),
)
"""What of a boot is seen on the serial line. The kernel is quiet: what it says goes to its own log."""
TIMES = re.compile(r"times=([0-9.]+),(\d+),(\d+),(\d+)\.")
TELL_TIMES = """
systemd-analyze time
show() { systemctl show -P "$@"; }
init=$(show UserspaceTimestampMonotonic) net=$(show ActiveEnterTimestampMonotonic qvd-network)
vma=$(show ActiveEnterTimestampMonotonic qvd-vma)
read up _ </proc/uptime; echo times=$up,$init,$net,$vma.
"""
"""Asks the root shell in a guest: the kernel's clock now, and what it said when init began and so on."""
TOLD = ("kernel begins", "init begins", "network is up", "agent is ready")
BOOTED = re.compile(r"Startup finished in (.*?)\s*(?:\r|\n|$)")


def main() -> int:
    """Lay out a trial with a libvirtd of its own, measure inside its namespace, clean up."""
    if sys.argv[1:2] == ["--inside"]:
        asyncio.run(measure(Path(sys.argv[2])))
        return 0
    command(sys.executable, str(KIND.builder), str(KIND.image), timeout_s=1800)
    report = ROOT / "bench" / "kvm_start.txt"
    report.parent.mkdir(exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix="qvd-bench-"))
    trial = Trial(directory, settings={"database.url": f"sqlite:///{directory}/qvd.db", **STOP_S})
    libvirtd = PrivateLibvirtd(trial.libvirt, trial.netns, environment=trial.environment)
    try:
        with trial, report.open("w") as file:
            trial.settings |= {"vm.hypervisor": "kvm", "vm.kvm.accel": "tcg", LIBVIRT_URI: libvirtd.uri}
            trial.lay_out()
            libvirtd.start()
            trial.start()
            policy = (*KIND.policy, f"user_storage_size={HOME_MIB}")
            trial.furnish(KIND.image, memory=KIND.memory, policy=policy)
            trial.qa("vm", "add", "name=bare", "user=alice", "osf=small")
            inside = [str(IN_NETNS), trial.netns, sys.executable, "-m", "benchmarks.kvm_start", "--inside"]
            told = subprocess.run(
                [*inside, str(directory)],
                env=trial.environment,
                check=True,
                stdout=subprocess.PIPE,
                text=True,
            ).stdout
            print(told, end="", flush=True)
            file.write(told)
    finally:
        if libvirtd.process is not None:  # the trial has ended it, and its parent is us
            with suppress(subprocess.TimeoutExpired):
                libvirtd.process.wait(START_S)
        shutil.rmtree(directory, ignore_errors=True)
    return 0


async def measure(directory: Path) -> None:
    """Measure both sides, turn and turn about, then a few whole boots, and say what came out."""
    settings, desktops = read_file(directory / "node.conf"), await Desktops.open(directory)
    rows = {vm.name: vm for vm in desktops.all}
    async with desktops.store.read() as tx:
        identity, osf = await tx.settings.installation(), await tx.osfs.get(rows["bare"].osf_id)
    guest = describe(rows["bare"], osf, DiId(1), settings, identity)
    observer = Observer(settings[config.KVM_URI])
    ours = Ours(directory, desktops, rows["desk1"], names.name(identity, rows["desk1"].id), observer)
    bare = Bare(settings, guest, observer)
    try:
        print("\n".join([*await singles(ours, bare), *await boots(ours)]))
    finally:
        await desktops.close()
        await bare.close()
        observer.close()


async def singles(ours: Ours, bare: Bare) -> list[str]:
    """What a start takes until QEMU runs, and where ours spends it."""
    runs, alone = [], []
    await ours.start()  # what is read for the first time counts for nobody
    await bare.start()
    for turn in range(SINGLES):
        if turn % 2:
            alone.append(await bare.start())
            runs.append(await ours.start())
        else:
            runs.append(await ours.start())
            alone.append(await bare.start())
    taken = [run.total for run in runs]
    total, named = statistics.median(taken), medians([run.parts for run in runs])
    more_ms = (total - statistics.median(alone)) * 1000
    return [
        f"Until QEMU runs ({SINGLES} each):",
        spread("  ours", taken),
        spread("  bare virDomainCreateXML", alone),
        spread("  ours but for libvirt's part", [run.total - run.parts[LIBVIRTS] for run in runs]),
        "Where one of our starts spends its time (medians):",
        *parts(named, total),
        result("kvm_start.until_qemu_runs_more_ms", more_ms, MORE_MS),
        result_at_least("kvm_start.parts_named", sum(named.values()) / total, NAMED),
    ]


async def boots(ours: Ours) -> list[str]:
    """What a start takes until the VMA answers, and what of it can be told."""
    seen = [await ours.boot() for _ in range(BOOTS)]
    if not seen:
        return []
    taken = [boot.total for boot in seen]
    return [
        f"Until the VMA answers ({BOOTS}, {KIND.image.name}, emulated):",
        spread("  ours", taken),
        "Where it goes (medians):",
        *parts(medians([boot.parts for boot in seen]), statistics.median(taken)),
        "When, since the wish (medians):",
        *(f"  {what:<40} {at:6.1f} s" for what, at in medians([boot.stages for boot in seen]).items()),
        "What systemd says of each boot, counted from the kernel's begin:",
        *(f"  {boot.said}" for boot in seen),
    ]


def medians(runs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The median of each value, in the order in which the runs name them; those that only some have, too."""
    found: dict[str, list[float]] = {}
    for run in runs:
        for name, value in run.items():
            found.setdefault(name, []).append(value)
    return {name: statistics.median(values) for name, values in found.items()}


@dataclass(frozen=True, slots=True)
class Run:
    """One of our starts: seconds from the wish on, and what of them each part took."""

    total: float
    parts: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Boot(Run):
    """One until the VMA's answer."""

    stages: Mapping[str, float]
    """What was seen when, in seconds since the wish."""
    said: str
    """How systemd sums it up."""


class Ours:
    """Starts through the daemon, by the wish in the row."""

    def __init__(self, directory: Path, desktops: Desktops, vm: Vm, name: str, observer: Observer) -> None:
        self._directory = directory
        self._desktops = desktops
        self._vm = vm
        self._name = name
        self._log = Paths(read_file(directory / "node.conf")).console_log(vm.id)
        self._observer = observer
        self._prober = Prober(within_s=BOOT_S)

    async def start(self) -> Run:
        """Start until QEMU runs; afterwards it is stopped."""
        begun, wished, runs = await self._until_qemu_runs()
        await self._logged("LaunchGuest", begun)
        run = Run(runs - begun, self._parts(begun, wished, runs))
        await self._desktops.stop([self._vm])
        return run

    async def boot(self) -> Boot:
        """Start until the VMA answers; afterwards it is stopped."""
        seen = asyncio.create_task(self._stages())
        try:
            begun, wished, runs = await self._until_qemu_runs()
            answered = begun + await self._prober.answered(str(self._vm.ip), f"qvd{self._vm.id}", begun)
            watched = await self._logged("WatchVma", begun)
            await self._desktops.until([self._vm], VmState.RUNNING)
            told, said = await asyncio.to_thread(asked, self._directory, self._vm.name)
        finally:
            seen.cancel()
            with suppress(asyncio.CancelledError):
                await seen
        instants = {"QEMU runs": runs, **self._seen, **told, "VMA answers a ping": answered}
        stages = dict(sorted(((what, at - begun) for what, at in instants.items()), key=lambda pair: pair[1]))
        before = self._parts(begun, wished, runs)
        boot = Boot(
            answered - begun,
            {
                "until QEMU runs, as above": sum(before.values()),
                "until the VMA is asked first": watched.ended - watched.took - wall(runs),
                "the VMA's first answer (WatchVma)": watched.took,
            },
            stages,
            said,
        )
        await self._desktops.stop([self._vm])
        return boot

    async def _until_qemu_runs(self) -> tuple[float, float, float]:
        """Since when it was wished, when that was written, when QEMU ran."""
        runs = self._observer.runs(self._name)
        begun = time.monotonic()
        await self._desktops.wish_start([self._vm])
        wished = time.monotonic()
        async with asyncio.timeout(START_S):
            return begun, wished, await runs

    def _parts(self, begun: float, wished: float, runs: float) -> dict[str, float]:
        """By the daemon's log; the launch goes on after QEMU runs, and counts until then only."""
        orders = [order for order in self._orders(begun) if order.ended - order.took < wall(runs)]
        taken_up = orders[0].ended - orders[0].took
        named = {"the wish is written": wished - begun, "the daemon hears of it": taken_up - wall(wished)}
        for name in BEFORE:
            named[name] = sum(order.took for order in orders if order.action == name)
        saved = [order.took for order in orders if order.action == "SaveState"]
        named[f"SaveState ({len(saved)} of them)"] = sum(saved)
        launch = next(order for order in orders if order.action == "LaunchGuest")
        given = self._desktops.given(self._vm.id)
        named["LaunchGuest, until libvirtd is asked"] = given - (launch.ended - launch.took)
        named[LIBVIRTS] = wall(runs) - given
        return named

    async def _logged(self, action: str, begun: float) -> CarriedOut:
        async with asyncio.timeout(START_S):
            while True:
                found = [order for order in self._orders(begun) if order.action == action]
                if found:
                    return found[0]
                await asyncio.sleep(LOOK_S)

    def _orders(self, begun: float) -> list[CarriedOut]:
        """What the daemon did for this VM since then."""
        since = wall(begun)
        return [
            order
            for order in self._desktops.carried_out()
            if order.vm_id == self._vm.id and order.ended - order.took >= since - 0.001
        ]

    async def _stages(self) -> None:
        """Note when the console shows each stage first."""
        self._seen: dict[str, float] = {}
        self._log.unlink(missing_ok=True)
        while True:
            with suppress(OSError):
                text = self._log.read_text(errors="replace")
                for what, sign in STAGES:
                    if what not in self._seen and re.search(sign, text):
                        self._seen[what] = time.monotonic()
            await asyncio.sleep(LOOK_S)


class Bare:
    """`virDomainCreateXML` of what we would give it, with everything that it needs made beforehand."""

    def __init__(self, settings: Settings, guest: GuestSpec, observer: Observer) -> None:
        self._paths = Paths(settings)
        self._disks = Qcow2Disks(self._paths, guest.mark.installation)
        self._guest = guest
        self._observer = observer
        self._connection = libvirt.open(settings[config.KVM_URI])
        owner = kvm_domain.qemu_owner(self._connection.getCapabilities())
        self._platform = kvm_domain.Platform("tcg", settings[config.KVM_CPUS], owner)

    async def start(self) -> float:
        """Seconds until QEMU runs; afterwards it is gone, with what was made for it."""
        guest, paths = self._guest, self._paths
        await self._disks.clone_root(guest.mark, keep=False, limit_mib=guest.root_mib)
        await self._disks.ensure_home(guest.mark, size_mib=guest.home_mib)
        paths.sockets(guest.vm_id).mkdir(mode=0o700, parents=True, exist_ok=True)
        await bridge.tap(guest.interface, guest.bridge)
        xml = kvm_domain.render(guest, self._disks.files(guest.mark), paths, self._platform)
        runs = self._observer.runs(names.name(guest.mark.installation, guest.vm_id))
        try:
            begun = time.monotonic()
            domain, ran = await asyncio.gather(asyncio.to_thread(self._connection.createXML, xml), runs)
            await asyncio.to_thread(domain.destroy)
        finally:
            await self._remove()
        return ran - begun

    async def close(self) -> None:
        """Let go of libvirtd."""
        self._connection.close()

    async def _remove(self) -> None:
        vm_id = self._guest.vm_id
        await bridge.remove(self._guest.interface)
        await self._disks.erase_root(vm_id)
        shutil.rmtree(self._paths.sockets(vm_id), ignore_errors=True)
        self._paths.console_log(vm_id).unlink(missing_ok=True)


class Observer:
    """Hears from libvirtd when a domain's processors are let go, whoever started it."""

    def __init__(self, uri: str) -> None:
        libvirt.virEventRegisterDefaultImpl()
        self._loop = asyncio.get_running_loop()
        self._awaited: dict[str, asyncio.Future[float]] = {}
        threading.Thread(target=self._run, daemon=True).start()
        self._connection = libvirt.open(uri)
        kind = libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE
        self._number = self._connection.domainEventRegisterAny(None, kind, self._told, None)

    def runs(self, name: str) -> asyncio.Future[float]:
        """When the domain of that name runs, from now on."""
        self._awaited[name] = self._loop.create_future()
        return self._awaited[name]

    def close(self) -> None:
        """Let go of libvirtd."""
        self._connection.domainEventDeregisterAny(self._number)
        self._connection.close()

    @staticmethod
    def _run() -> None:
        while True:
            libvirt.virEventRunDefaultImpl()

    def _told(self, _connection: Any, domain: Any, event: int, _detail: int, _opaque: object) -> None:
        if event == libvirt.VIR_DOMAIN_EVENT_RESUMED:
            self._loop.call_soon_threadsafe(self._noted, str(domain.name()), time.monotonic())

    def _noted(self, name: str, at: float) -> None:
        awaited = self._awaited.pop(name, None)
        if awaited is not None and not awaited.done():
            awaited.set_result(at)


def wall(monotonic: float) -> float:
    """An instant of the monotonic clock as seconds since the epoch, as the daemon's log tells them."""
    return time.time() - time.monotonic() + monotonic


def asked(directory: Path, vm: str) -> tuple[dict[str, float], str]:
    """What a guest says of its boot: when each stage was, by our clock, and how systemd sums it up.

    There is no sum before the boot has ended, so it is asked until then.
    """
    words = [str(BIN / "qa"), "--config", str(directory / "node.conf"), "vm", "console", "-f", f"name={vm}"]
    until = time.monotonic() + ASK_S
    pipe, nothing = subprocess.PIPE, subprocess.DEVNULL
    with subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=nothing) as console:
        try:
            while time.monotonic() < until:
                told, now = answer(console)
                times, booted = TIMES.search(told), BOOTED.search(told)
                if times and booted:
                    up, *since_us = (float(word) for word in times.groups())
                    since = [0.0, *(us / 1e6 for us in since_us)]
                    return {name: now - up + s for name, s in zip(TOLD, since, strict=True)}, booted[1]
                time.sleep(ASK_AGAIN_S)
        finally:
            console.kill()
    return {}, f"nothing within {ASK_S:g} s"


def answer(console: subprocess.Popen[bytes]) -> tuple[str, float]:
    """What the shell on a console says of its times, and when; perhaps nothing, if there is none yet."""
    assert console.stdin is not None
    assert console.stdout is not None
    console.stdin.write(TELL_TIMES.encode())
    console.stdin.flush()
    told = ""
    while not TIMES.search(told) and select.select([console.stdout], [], [], ASK_AGAIN_S)[0]:
        if not (data := os.read(console.stdout.fileno(), 65536)):
            break
        told += data.decode(errors="replace")
    return told, time.monotonic()


if __name__ == "__main__":
    sys.exit(main())
