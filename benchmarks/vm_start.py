"""How long a VM takes to start, against the bare tools doing the same.

Ours: from the wish in the database to the VMA's answer, through the daemon, with its home, its
rules, its limits and everything it writes down. Bare: a btrfs snapshot and an idmapped
`lxc-start` of the same image with the same agent and a veth, nothing else. Both one at a time, and
fifty at once with six under way. podman starts the same tree, for the record.

Both sides are watched by the same prober, interleaved in one run, as these machines are shared.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import btrfsutil

from appliance.config import read_file
from appliance.model import VmState
from appliance.storage.paths import Paths
from benchmarks.desktops import Desktops
from benchmarks.probe import Prober, neighbour
from benchmarks.report import parts, result, result_at_least, spread
from scripts.trial import IN_NETNS, ROOT, Trial, command

IMAGE = ROOT / "build" / "desktop.tar.zst"
STORM = int(os.environ.get("BENCH_STORM", "50"))
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3"))
SINGLES = int(os.environ.get("BENCH_SINGLES", "15"))
AT_ONCE = 6
TARGET = 1.25
NAMED = 0.9
MEMORY_MIB = 256
BARE_BRIDGE = "bare0"
BARE_NETWORK = "10.45.0"
BARE_SUBID = 500_000_000
Storm = Callable[[int], Coroutine[None, None, list[float]]]


def main() -> int:
    """Lay out a trial, measure inside its namespace, clean up.

    The log of a single start tells its parts; storms meet the log level that a service has.
    """
    if sys.argv[1:2] == ["--inside"]:
        asyncio.run(measure(Path(sys.argv[2]), sys.argv[3]))
        return 0
    command(sys.executable, str(ROOT / "images" / "build_lxc.py"), str(IMAGE), timeout_s=1800)
    report = ROOT / "bench" / "vm_start.txt"
    report.parent.mkdir(exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix="qvd-bench-"))
    try:
        with Trial(directory, settings=settings(directory)) as trial, report.open("w") as file:
            trial.lay_out(pool_size="16G")
            trial.furnish(IMAGE, memory=MEMORY_MIB)
            for number in range(2, STORM + 1):
                trial.qa("vm", "add", f"name=desk{number}", "user=alice", "osf=small")
            inside = [str(IN_NETNS), trial.netns, sys.executable, "-m", "benchmarks.vm_start", "--inside"]
            for level, what in (("DEBUG", "singles"), ("INFO", "storms")):
                trial.write_config(log__level=level)
                trial.start()
                told = subprocess.run(
                    [*inside, str(directory), what],
                    env=trial.environment,
                    check=True,
                    stdout=subprocess.PIPE,
                    text=True,
                ).stdout
                print(told, end="", flush=True)
                file.write(told)
                trial.stop()
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    return 0


def settings(directory: Path) -> dict[str, str]:
    """Six under way at once, and the database beside the pool, as a service has it."""
    return {"hkd.vm.starting.max": str(AT_ONCE), "database.url": f"sqlite:///{directory}/qvd.db"}


async def measure(directory: Path, what: str) -> None:
    """Measure both sides, turn and turn about, and say what came out."""
    prober = Prober()
    ours, bare = await Ours.open(directory, prober), Bare(directory, prober)
    try:
        for start in (ours.storm, bare.storm):  # what is read for the first time counts for nobody
            await start(1)
        lines = await (singles if what == "singles" else storms)(ours, bare)
        print("\n".join(lines))
    finally:
        await ours.close()
        bare.close()


async def singles(ours: Ours, bare: Bare) -> list[str]:
    """What one start takes while nothing else starts, and where ours spends it."""
    taken: dict[str, list[float]] = {"ours": [], "bare": []}
    for turn in range(SINGLES):
        for name, start in turns(ours, bare, turn):
            taken[name] += await start(1)
    podman = await Podman(bare).singles(5)
    total, named = statistics.median(taken["ours"]), ours.parts()
    return [
        f"One at a time ({SINGLES} each):",
        *(spread(f"  {name}", seconds) for name, seconds in taken.items()),
        spread("  podman, for the record", podman)
        if podman
        else "  podman: not installed, or could not start the tree",
        "Where one of our starts spends its time (medians):",
        *parts(named, total),
        result("vm_start.single", total / statistics.median(taken["bare"]), TARGET),
        result_at_least("vm_start.parts_named", sum(named.values()) / total, NAMED),
    ]


async def storms(ours: Ours, bare: Bare) -> list[str]:
    """What each of many starts takes that were wished at once."""
    taken: dict[str, list[float]] = {"ours": [], "bare": []}
    spent: dict[str, list[float]] = {"ours": [], "bare": []}
    for turn in range(ROUNDS):
        for name, start in turns(ours, bare, turn):
            await bare.settled()
            before = busy_s()
            taken[name] += await start(STORM)
            spent[name].append((busy_s() - before) / STORM)
    return [
        f"A storm of {STORM}, {AT_ONCE} under way ({ROUNDS} each), from the first wish to each answer:",
        *(spread(f"  {name}", seconds) for name, seconds in taken.items()),
        *(
            f"  {name:<26} CPU of the machine per start and stop {statistics.median(seconds):.3f} s"
            for name, seconds in spent.items()
        ),
        result("vm_start.storm", statistics.median(taken["ours"]) / statistics.median(taken["bare"]), TARGET),
    ]


def turns(ours: Ours, bare: Bare, number: int) -> list[tuple[str, Storm]]:
    """Both sides, each first in every other turn."""
    sides: list[tuple[str, Storm]] = [("ours", ours.storm), ("bare", bare.storm)]
    return sides[::-1] if number % 2 else sides


class Ours:
    """Starts through the daemon, by the wish in the row."""

    def __init__(self, desktops: Desktops, prober: Prober) -> None:
        self._prober = prober
        self._desktops = desktops
        self._wished: list[float] = []

    @classmethod
    async def open(cls, directory: Path, prober: Prober) -> Ours:
        """The trial's daemon and its VMs."""
        return cls(await Desktops.open(directory), prober)

    async def storm(self, count: int) -> list[float]:
        """Wish so many started at once; how long each took from then on. Afterwards all are stopped."""
        chosen = self._desktops.all[:count]
        begun = time.monotonic()
        await self._desktops.wish_start(chosen)
        self._wished.append(time.monotonic() - begun)
        taken = await asyncio.gather(
            *(self._prober.answered(str(vm.ip), f"qvd{vm.id}", begun) for vm in chosen)
        )
        await self._desktops.until(chosen, VmState.RUNNING)
        await self._desktops.stop(chosen)
        return taken

    def parts(self) -> dict[str, float]:
        """How long each order of a single start took, by the daemon's own log, and the wish before them."""
        taken: dict[str, list[float]] = {}
        for carried in self._desktops.carried_out():
            taken.setdefault(carried.action, []).append(carried.took)
        starting = ("PrepareRoot", "DefineGuest", "FenceGuest", "LaunchGuest")
        named = {"the wish is written": statistics.median(self._wished)}
        named |= {name: statistics.median(taken[name]) for name in starting if name in taken}
        named["SaveState (two of them)"] = 2 * statistics.median(taken["SaveState"])
        named["the VMA's first answer (WatchVma)"] = statistics.median(taken["WatchVma"])
        return named

    async def close(self) -> None:
        """Let go of the database."""
        await self._desktops.close()


class Bare:
    """A snapshot and an idmapped `lxc-start`, and nothing else."""

    def __init__(self, directory: Path, prober: Prober) -> None:
        self.prober = prober
        self.base = Paths(read_file(directory / "node.conf")).all_basefs / "1"
        self.folder = directory / "storage" / "bare"
        self.folder.mkdir(mode=0o711, exist_ok=True)
        for parent in (directory, directory / "storage", self.base.parent):
            parent.chmod(0o711)  # the guest's mapped root must get to its root
        command("ip", "link", "add", BARE_BRIDGE, "type", "bridge")
        command("ip", "address", "add", f"{BARE_NETWORK}.1/24", "dev", BARE_BRIDGE)
        command("ip", "link", "set", BARE_BRIDGE, "up")
        for number in range(1, STORM + 1):
            neighbour(*self._node(number), BARE_BRIDGE)

    async def storm(self, count: int) -> list[float]:
        """Start so many, six under way; how long each took since the first. Afterwards all are gone."""
        slots = asyncio.Semaphore(AT_ONCE)
        begun = time.monotonic()

        async def one(number: int) -> float:
            async with slots:
                snapshot = self.folder / str(number)
                btrfsutil.create_snapshot(str(self.base), str(snapshot))
                config = self._config(number, snapshot)
                words = ("lxc-start", "-n", f"bare{number}", "-P", str(self.folder), "-f", str(config))
                started = await asyncio.create_subprocess_exec(*words, stdin=asyncio.subprocess.DEVNULL)
                assert await started.wait() == 0, "bare lxc-start failed"
                return await self.prober.answered(f"{BARE_NETWORK}.{number + 9}", f"bare{number}", begun)

        numbers = range(1, count + 1)
        try:
            return list(await asyncio.gather(*(one(number) for number in numbers)))
        finally:
            for number in numbers:
                words = ("lxc-stop", "-k", "-n", f"bare{number}", "-P", str(self.folder))
                subprocess.run(words, check=False, capture_output=True, timeout=60)
                with suppress(OSError):
                    btrfsutil.delete_subvolume(str(self.folder / str(number)), recursive=True)

    async def settled(self) -> None:
        """Return when the kernel has taken apart what was deleted before: that is nobody's start."""
        words = ("btrfs", "subvolume", "sync", str(self.folder))
        waiting = await asyncio.create_subprocess_exec(*words, stdout=asyncio.subprocess.DEVNULL)
        await waiting.wait()

    def close(self) -> None:
        """Remove the bridge."""
        command("ip", "link", "del", BARE_BRIDGE)

    @staticmethod
    def _node(number: int) -> tuple[str, str]:
        """The addresses of a guest."""
        return f"{BARE_NETWORK}.{number + 9}", f"54:52:01:00:00:{number + 9:02x}"

    def _config(self, number: int, snapshot: Path) -> Path:
        address, mac = self._node(number)
        ids = f"0 {BARE_SUBID + 65_536 * number} 65536"
        lines = (
            f"lxc.uts.name = bare{number}",
            f"lxc.rootfs.path = dir:{snapshot}",
            "lxc.rootfs.options = idmap=container",
            f"lxc.idmap = u {ids}",
            f"lxc.idmap = g {ids}",
            "lxc.net.0.type = veth",
            f"lxc.net.0.link = {BARE_BRIDGE}",
            f"lxc.net.0.veth.pair = bare{number}",
            f"lxc.net.0.hwaddr = {mac}",
            "lxc.net.0.name = eth0",
            "lxc.net.0.flags = up",
            f"lxc.net.0.ipv4.address = {address}/24",
            f"lxc.net.0.ipv4.gateway = {BARE_NETWORK}.1",
            "lxc.autodev = 1",
            "lxc.tty.max = 1",
            "lxc.mount.auto = proc:mixed sys:ro",
            *(
                f"lxc.mount.entry = tmpfs {where} tmpfs rw,nosuid,nodev,mode={mode},create=dir 0 0"
                for where, mode in (("dev/shm", 1777), ("tmp", 1777), ("run", 755))
            ),
            f"lxc.cgroup.memory.limit_in_bytes = {MEMORY_MIB << 20}",
            f"lxc.cgroup2.memory.max = {MEMORY_MIB << 20}",
        )
        config = self.folder / f"{number}.conf"
        config.write_text("\n".join(lines) + "\n")
        return config


class Podman:
    """The same tree under podman, one at a time; not a target, as it prepares more and less than we do."""

    def __init__(self, bare: Bare) -> None:
        self._prober = bare.prober
        self._folder = bare.folder.parent / "podman"
        self._base = bare.base

    async def singles(self, count: int) -> list[float]:
        """How long each of so many starts took; none if podman is not there or cannot start the tree."""
        if shutil.which("podman") is None:
            return []
        tree = self._base.parent.parent / "bare" / "podman"
        btrfsutil.create_snapshot(str(self._base), str(tree))
        taken = []
        try:
            for number in range(200, 200 + count):
                with self._network(number) as network:
                    begun = time.monotonic()
                    name = f"qvd-bench-{number}"
                    started = await asyncio.create_subprocess_exec(
                        *self._podman("run", "-d", "--name", name, "--network", f"ns:{network}"),
                        *(
                            "--ulimit",
                            "nofile=1024:1024",
                            "--systemd=false",
                            "--rootfs",
                            f"{tree}:O",
                            "/sbin/init",
                        ),
                        stdin=asyncio.subprocess.DEVNULL,
                        stdout=asyncio.subprocess.DEVNULL,
                    )
                    if await started.wait() != 0:
                        return []
                    taken.append(
                        await self._prober.answered(f"{BARE_NETWORK}.{number}", f"bare{number}", begun)
                    )
                    gone = self._podman("rm", "-f", "-t", "0", name)
                    subprocess.run(gone, check=False, capture_output=True, timeout=60)
        except TimeoutError:
            return []
        finally:
            gone = self._podman("rm", "-f", "-a", "-t", "0")
            subprocess.run(gone, check=False, capture_output=True, timeout=60)
            btrfsutil.delete_subvolume(str(tree), recursive=True)
        return taken

    def _podman(self, *words: str) -> tuple[str, ...]:
        where = ("--root", str(self._folder / "root"), "--runroot", str(self._folder / "run"))
        return ("podman", *where, "--cgroup-manager=cgroupfs", "--events-backend=none", *words)

    @contextmanager
    def _network(self, number: int) -> Iterator[str]:
        name, link = f"qvd-bench-{os.getpid()}-{number}", f"bare{number}"
        mac = f"54:52:01:00:00:{number:02x}"
        command("ip", "netns", "add", name)
        try:
            command("ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", name)
            command("ip", "link", "set", link, "master", BARE_BRIDGE, "up")
            command("ip", "-n", name, "link", "set", "eth0", "address", mac, "up")
            command("ip", "-n", name, "address", "add", f"{BARE_NETWORK}.{number}/24", "dev", "eth0")
            command("ip", "-n", name, "route", "add", "default", "via", f"{BARE_NETWORK}.1")
            neighbour(f"{BARE_NETWORK}.{number}", mac, BARE_BRIDGE)
            yield f"/run/netns/{name}"
        finally:
            command("ip", "netns", "del", name)


def busy_s() -> float:
    """CPU seconds that this machine has spent since it booted."""
    fields = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    user, nice, system, _idle, _wait, irq, soft, steal = fields
    return (user + nice + system + irq + soft + steal) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    sys.exit(main())
