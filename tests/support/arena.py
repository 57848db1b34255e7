"""A guest that attacks, its neighbour, their host, and a third machine, all of them real."""

from __future__ import annotations

import itertools
import json
import os
import secrets
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scripts.trial import NETWORK, ROOT, Trial, loop_devices
from tests.support import netns
from tests.support.desktop import Desk
from tests.support.frames import Node
from tests.support.images import Variants
from tests.support.inside import inside, root
from tests.support.machines_on_wire import Machine

GATEWAY = f"{NETWORK}.1"
HOST_OUTSIDE, WORLD = "192.0.2.1", "192.0.2.2"
HOST_LINK_LOCAL = "fe80::1"
BRIDGE = "qvdnet"
PORT, VMA_PORT, L7R_PORT = 4711, 3030, 8443
"""Where the arena's own services listen, and where an appliance's do."""
ATTACK = ROOT / "tests" / "support" / "attack.py"
PLACE = "opt/attack.py"
MEMORY_MIB, PROCESSES = 256, 300
VICTIMS = {"processes": 2 * PROCESSES, "memory_mib": 2 * MEMORY_MIB}
GROUPS = Path("/sys/fs/cgroup")
PLENTY = 4 << 30
UNCONFINED = """
set -e
root=$1; shift
for group in $GROUPS_OF_ITS_OWN; do echo $$ >"$group/cgroup.procs"; done
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
mount -t tmpfs tmpfs "$root/run"
exec chroot "$root" "$@"
"""

Results = dict[str, dict[str, Any]]


@dataclass(slots=True)
class Arena:
    """desk1 attacks, desk2 is the neighbour; `world` is a machine on another link of the host."""

    trial: Trial
    world: Machine
    victims: Mapping[str, Any]
    numbers: Iterator[int] = field(default_factory=itertools.count)

    @property
    def desk(self) -> Desk:
        """The two desktops, by name."""
        return Desk(self.trial, "desk1")

    @property
    def host(self) -> Machine:
        """The machine on which the guests are."""
        return Machine(self.trial.netns)

    def guest(self, vm: str) -> Machine:
        """What is behind a guest's link, for whom nothing is forbidden there."""
        return Machine(f"/proc/{self.desk.init(vm).pid}/ns/net")

    def node(self, vm: str) -> Node:
        """By what the wire knows a guest."""
        address = str(self.trial.vm(vm)["vm_address"])
        octets = [int(octet) for octet in address.split(".")[1:]]
        return Node(":".join(["54:52:00", *(f"{octet:02x}" for octet in octets)]), address)

    def order(self, probes: Iterable[str], *, until: str = "", vm: str = "desk1") -> Path:
        """Have a guest's own root try probes; the file in which the results will be."""
        init, number = self.desk.init(vm), next(self.numbers)
        text = json.dumps({"probes": list(probes), "victims": dict(self.victims), "until": until})
        place = 'cd /run/attack && printf %s "$1" >new && mv new "$2.order"'
        self.trial.wait_for("the attacker", (root(init) / "run" / "attack").is_dir)
        inside(init, "sh", "-c", place, "sh", text, str(number))
        return root(init) / "run" / "attack" / f"{number}.results"

    def attacked(self, probes: Iterable[str]) -> Results:
        """What came of probes that a guest's own root has tried."""
        return self.results(self.order(probes))

    def results(self, file: Path) -> Results:
        """What came of an order, when it has been carried out."""
        self.trial.wait_for("the results of the attack", file.exists, 100)
        return read(file)

    def unconfined(self, probes: Iterable[str]) -> Results:
        """What comes of the same probes on the same root for a process that nobody confines."""
        image = next((self.trial.storage / "basefs").iterdir())
        bare = self.trial.storage / "bare"
        _tool("btrfs", "subvolume", "snapshot", str(image), str(bare))
        order = {"probes": list(probes), "victims": dict(self.victims), "until": ""}
        (bare / "opt" / "order").write_text(json.dumps(order))
        with netns.namespace() as name, groups() as own:
            machine = Machine(name)
            machine.configure("link", "add", "eth0", "type", "veth", "peer", "name", "eth1")
            command = ["python3", f"/{PLACE}", "once", "/opt/order", "/opt/results"]
            enter = ["unshare", "--mount", "sh", "-c", UNCONFINED, "sh", str(bare)]
            subprocess.run(
                [*machine.there(), *enter, *command],
                env={"PATH": os.environ["PATH"], "GROUPS_OF_ITS_OWN": " ".join(map(str, own))},
                check=True,
                timeout=100,
            )
        return read(bare / "opt" / "results")

    def inward(self) -> list[str]:
        """Knocks of desk1 on its neighbour and on this host, by every address that they have."""
        neighbour = self.node("desk2")
        return [
            f"tcp {neighbour.address} {VMA_PORT}",
            f"tcp {neighbour.address} {PORT}",
            f"udp {neighbour.address} {PORT}",
            f"tcp {neighbour.link_local}%eth0 {PORT}",
            f"tcp {GATEWAY} {L7R_PORT}",
            f"tcp {HOST_OUTSIDE} {L7R_PORT}",
            f"tcp {HOST_LINK_LOCAL}%eth0 {PORT}",
            *(f"{kind} {address} {PORT}" for kind in ("tcp", "udp") for address in (GATEWAY, HOST_OUTSIDE)),
        ]

    @contextmanager
    def unruled(self) -> Iterator[None]:
        """The same guests and the same daemon without rules, without isolated ports, and with IPv6."""
        self._restart(firewall="0")
        try:
            for vm in ("desk1", "desk2"):
                self._configure(
                    "bridge", "link", "set", "dev", f"qvd{self.trial.vm(vm)['id']}", "isolated", "off"
                )
            self._configure("sysctl", "-qw", f"net.ipv6.conf.{BRIDGE}.disable_ipv6=0")
            self.host.configure("-6", "address", "add", f"{HOST_LINK_LOCAL}/64", "dev", BRIDGE, "nodad")
            yield
        finally:
            self._restart(firewall="1")

    def flush(self) -> None:
        """Remove every rule of the host, as another program does that sets its own."""
        self._configure("nft", "flush", "ruleset")

    def _restart(self, *, firewall: str) -> None:
        self.trial.stop()
        self.trial.write_config(internal__vm__network__firewall__enable=firewall)
        before = len(self.trial.log.read_text())
        self.trial.start()
        running = [vm["id"] for vm in self.trial.listed("vm", "state=running")]

        def taken_up() -> bool:
            since = self.trial.log.read_text()[before:]
            return all(f"vm={vm} action=AdoptGuest event=Done" in since for vm in running)

        # Until then a guest's port may still be isolated again.
        self.trial.wait_for("guests taken up", taken_up)

    def _configure(self, *words: str) -> None:
        _tool(*self.host.there(), *words)

    def beat(self, vm: str = "desk2") -> int:
        """How often a guest has written into its home, as the disk has it."""
        return int((self.trial.storage / "homefs" / f"{self.trial.vm(vm)['id']}-fs" / "beat").read_text())


def read(results: Path) -> Results:
    """What a file of results says about each probe; the last time, if it was tried more than once."""
    lines = [json.loads(line) for line in results.read_text().splitlines()]
    return {line["probe"]: line for line in lines}


def succeeded(results: Results) -> dict[str, str]:
    """The probes that did, and how."""
    return {name: result["how"] for name, result in results.items() if result["open"]}


@contextmanager
def arena(directory: Path, variants: Variants, *, pool: str = "6G") -> Iterator[Arena]:
    """Everybody in place, the guests running."""
    service = f"::respawn:/usr/bin/python3 -I -S /{PLACE} serve\n"
    image = variants.make(
        "attacker",
        {"etc/inittab": variants.content("etc/inittab") + service, PLACE: ATTACK.read_text()},
    )
    with ExitStack() as stack:
        trial = stack.enter_context(Trial(directory))
        trial.lay_out(pool_size=pool)
        world = Machine(stack.enter_context(netns.namespace()))
        trial.start()
        trial.furnish(image, memory=MEMORY_MIB)
        trial.qa("osf", "edit", f"processes={PROCESSES}", "-f", "name=small")
        trial.qa("vm", "add", "name=desk2", "user=alice", "osf=small")
        victim = stack.enter_context(subprocess.Popen(["sleep", "infinity"]))
        stack.callback(victim.kill)
        (loop,) = loop_devices(trial.pool)
        number = Path(loop).stat().st_rdev
        victims = {
            **VICTIMS,
            "pid": victim.pid,
            "file": str(trial.config),
            "disk": (os.major(number), os.minor(number)),
        }
        made = Arena(trial, world, victims)
        connected(made.host, world)
        for vm in ("desk1", "desk2"):
            trial.qa("vm", "start", "-f", f"name={vm}")
        for vm in ("desk1", "desk2"):
            trial.wait_for_state(vm, "running")
        yield made


@contextmanager
def groups() -> Iterator[list[Path]]:
    """Control groups with hardly a limit, for a process that is to raise its own."""
    name = f"qvdt-{secrets.token_hex(4)}"
    made = [GROUPS / controller / name for controller in ("memory", "devices")]
    for group in made:
        group.mkdir()
    try:
        (made[0] / "memory.limit_in_bytes").write_text(str(PLENTY))
        yield made
    finally:
        for group in made:
            group.rmdir()


def connected(host: Machine, world: Machine) -> None:
    """A link between the host and a third machine, which knows the way to the guests."""
    peer = ("peer", "name", "eth0", "netns", str(world.namespace))
    host.configure("link", "add", "uplink", "type", "veth", *peer)
    host.configure("address", "add", f"{HOST_OUTSIDE}/24", "dev", "uplink")
    host.configure("link", "set", "uplink", "up")
    world.configure("address", "add", f"{WORLD}/24", "dev", "eth0")
    world.configure("link", "set", "eth0", "up")
    world.configure("route", "add", f"{NETWORK}.0/24", "via", HOST_OUTSIDE)


def _tool(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True)
