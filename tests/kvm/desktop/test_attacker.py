"""An attacker who is root inside a virtual machine: its kernel is its own, and nothing beyond it is.

Each attempt has its control: the same one succeeds without rules, or where it is the guest's own.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import pytest

from tests.support import ether, netns, raw_sender
from tests.support.arena import BRIDGE, GATEWAY, HOST_OUTSIDE, PORT, VMA_PORT, WORLD, Arena, connected
from tests.support.forgery import HOST, datagram, forged, honest
from tests.support.frames import EVERYBODY, IPV4, Node, frame
from tests.support.kvm_desktop import MachineDesk, Shell, kvm_site, resident_bytes
from tests.support.machines_on_wire import Machine
from tests.support.tiny_vm import tiny_image

pytestmark = [pytest.mark.kvm, pytest.mark.timeout(900)]

RUNS_WITHIN_S = 300
HOME_MIB = 64
NETWORK_CARD, DISK, ENTROPY = "0x0001", "0x0002", "0x0004"
"""The kinds of virtio devices that a guest has; none of them is a way into files of the host."""
VMA = "internal.hkd.vmhandler.vma"
IMPATIENT = {
    f"{VMA}_monitor.delay.after.ok": "1",
    f"{VMA}_monitor.delay.after.error": "1",
    f"{VMA}.failed.max_time.on.running": "10",
}
PATIENT = dict(zip(IMPATIENT, ("120", "10", "320"), strict=True))
ENDLESS = (
    "#!/bin/sh",
    "n=$(($(cat /run/asked) + 1))",
    "echo $n >/run/asked",
    "echo asked for $((n % 3)) >/dev/ttyS0",
    'case $((n % 3)) in 0) exec yes ;; 1) exec yes "HTTP/1.1 200 OK" ;; *) exec cat /dev/urandom ;; esac',
)
"""Answers each caller with something else that has no end."""
GROWN_BYTES = 32 << 20
DATAGRAMS = PORT + 1
"""Where a service for datagrams listens that does not answer."""
SAY = """
import socket, sys
socket.socket(type=socket.SOCK_DGRAM).sendto(sys.argv[3].encode(), (sys.argv[1], int(sys.argv[2])))
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arena]:
    """Two running virtual machines, each with a home disk, and a machine on another link of the host."""
    directory = tmp_path_factory.mktemp("machines") / "trial"
    with kvm_site(directory, pool_size="1G") as site, netns.namespace() as world:
        trial = site.trial
        policy = ("backend=kvm", f"user_storage_size={HOME_MIB}")
        trial.furnish(tiny_image(), memory=96, policy=policy)
        trial.qa("vm", "add", "name=desk2", "user=alice", "osf=small")
        made = Arena(trial, Machine(world), {})
        connected(made.host, made.world)
        trial.qa("vm", "start", "-f", "name=desk*")
        for vm in ("desk1", "desk2"):
            trial.wait_for_state(vm, "running", RUNS_WITHIN_S)
        yield made


def test_a_guest_reaches_the_world_and_nothing_nearer(place: Arena) -> None:
    outward = f"tcp {WORLD} {PORT}"
    near = [knock for knock in place.inward() if knock.startswith("tcp")]
    with everybody_listens(place):
        with root(place) as shell:
            assert reached(shell, [*near, outward]) == {outward}
            frames_are_kept_in(place, shell)
        with place.unruled(), root(place) as shell:
            assert reached(shell, near) == {*near}
            frames_get_out(place, shell)
        with root(place) as shell:
            assert reached(shell, [*near, outward]) == {outward}


def test_a_guest_has_its_own_disks_and_nothing_of_the_host(place: Arena) -> None:
    with root(place) as shell:
        disks = shell.run("cd /sys/block; for d in *; do echo $d $(cat $d/size) $(cat $d/serial); done")
        kinds = shell.run("cat /sys/bus/virtio/devices/*/device").split()
        mounts = shell.run("cut -d ' ' -f 3 /proc/mounts").split()
    found = {name: (int(size) * 512, serial) for name, size, serial in map(str.split, disks.splitlines())}
    assert found == {"vda": (size_of(overlay(place)), "os"), "vdb": (HOME_MIB << 20, "home")}
    assert sorted(kinds) == [NETWORK_CARD, DISK, DISK, ENTROPY]
    assert {*mounts} == {"rootfs", "proc", "sysfs", "devtmpfs"}


def test_what_a_guest_writes_stays_in_its_own_disks(place: Arena) -> None:
    (image,) = (place.trial.storage / "images").glob("*.qcow2")
    before, sizes = sha256(image.read_bytes()).digest(), {path: size_of(path) for path in written(place)}
    last = {"/dev/vda": (size_of(overlay(place)) >> 20) - 1, "/dev/vdb": HOME_MIB - 1}
    with root(place) as shell:
        for disk, mib in last.items():
            write = f"dd if=/dev/urandom of={disk} bs=1M count=1 conv=notrunc,fsync seek="
            assert shell.attempt(f"{write}{mib} 2>&1")[0] == 0
            status, said = shell.attempt(f"{write}{mib + 1} 2>&1")
            assert (status, "No space left" in said) == (1, True), said
    assert {path: size_of(path) for path in written(place)} == sizes
    assert sha256(image.read_bytes()).digest() == before


def test_a_vma_that_answers_without_end_counts_as_silent(place: Arena) -> None:
    trial = place.trial
    trial.stop()
    trial.write_config(**IMPATIENT)
    trial.start()
    before = resident_bytes(trial)
    with MachineDesk(trial, "desk2").shell() as shell:
        lines = " ".join(f"'{line}'" for line in ENDLESS)
        shell.run(f"printf '%s\\n' {lines} >/bin/endless; chmod 755 /bin/endless; echo 0 >/run/asked")
        hang_up(shell, VMA_PORT)
        shell.run(f"(setsid nc -ll -p {VMA_PORT} -e /bin/endless &)")
    trial.wait_for_state("desk2", "stopped", RUNS_WITHIN_S)
    row = trial.vm("desk2")
    assert row["failure"].startswith("the VMA has been silent for")
    assert {f"asked for {number}" in row["failure_console"] for number in range(3)} == {True}
    assert resident_bytes(trial) - before < GROWN_BYTES
    assert trial.vm("desk1")["vm_state"] == "running"
    trial.stop()
    trial.write_config(**PATIENT)
    trial.start()
    trial.qa("vm", "start", "-f", "name=desk2")
    trial.wait_for_state("desk2", "running", RUNS_WITHIN_S)


@dataclass(frozen=True, slots=True)
class Heard:
    """What came where of the attacker's frames."""

    link: set[str]
    """To this host's end of the bridge, whatever became of it there."""
    host: set[str]
    """To a service of this host."""
    neighbour: set[str]


def frames_are_kept_in(place: Arena, shell: Shell) -> None:
    """No neighbour and no service hears a datagram, and nobody a forged frame."""
    datagrams, to_neighbour, to_host = knocks(place), lies(place, place.node("desk2")), lies(place, HOST)
    told = {
        "to-all": [*datagrams.values(), *to_neighbour.values()],
        "to-host": to_host.values(),
        "end": [honest("end", place.node("desk1"))],
    }
    raw_sender.install(shell, told)
    with ether.serving(place.world, DATAGRAMS, "to-world") as by_world:
        passed = {*datagrams} - {"to-neighbour"}
        assert heard(place, shell, "to-all") == Heard(link=passed, host=set(), neighbour=set())
        assert by_world() == set()
    assert heard(place, shell, "to-host") == Heard(link=set(), host=set(), neighbour=set())


def frames_get_out(place: Arena, shell: Shell) -> None:
    """The same frames are heard by whom they are meant for."""
    try:
        everybody = heard(place, shell, "to-all")
        assert everybody.host == {"to-host", "to-outside"}
        assert everybody.neighbour == {"to-neighbour", *lies(place, place.node("desk2"))}
        assert heard(place, shell, "to-host").link == {*lies(place, HOST)}
    finally:
        disabuse(place)


def knocks(place: Arena) -> dict[str, bytes]:
    """Datagrams of the attacker's own to everybody, by name."""
    me, neighbour = place.node("desk1"), place.node("desk2")
    told = {
        "to-host": (HOST.mac, GATEWAY),
        "to-outside": (HOST.mac, HOST_OUTSIDE),
        "to-neighbour": (neighbour.mac, neighbour.address),
        "to-world": (HOST.mac, WORLD),
    }

    def packet(name: str, address: str) -> bytes:
        return datagram(me.address, address, ether.mark(name), ports=(PORT, DATAGRAMS))

    return {name: frame(me.mac, mac, IPV4, packet(name, address)) for name, (mac, address) in told.items()}


def lies(place: Arena, to: Node) -> dict[str, bytes]:
    """What is not true of the attacker, told to somebody."""
    return forged(to, place.node("desk1"), place.node("desk2"))


def heard(place: Arena, shell: Shell, told: str) -> Heard:
    """Who hears which frames when the attacker has sent them."""
    host, neighbour = place.host, place.node("desk2")
    with (
        ether.listening(host, BRIDGE, "end") as on_link,
        ether.listening(host, link_of(place, "desk2"), "end", outgoing=True) as by_neighbour,
        ether.serving(host, DATAGRAMS, "end") as by_host,
    ):
        raw_sender.send(shell, told, "end")
        link = on_link()
        end = datagram(GATEWAY, neighbour.address, ether.mark("end"))
        ether.send(host, BRIDGE, [frame(HOST.mac, EVERYBODY, IPV4, end)])
        host.python(SAY, "127.0.0.1", str(DATAGRAMS), ether.mark("end").decode())
        return Heard(link, by_host(), by_neighbour())


def disabuse(place: Arena) -> None:
    """Have host, bridge and neighbour find out anew who is where."""
    place.host.configure("neigh", "flush", "dev", BRIDGE)
    with MachineDesk(place.trial, "desk2").shell() as neighbour:
        neighbour.run(f"ip neigh flush dev eth0; arping -f -w 60 -I eth0 {GATEWAY}")


def link_of(place: Arena, vm: str) -> str:
    """A guest's end of its link at this host."""
    return f"qvd{place.trial.vm(vm)['id']}"


@contextmanager
def everybody_listens(place: Arena) -> Iterator[None]:
    """Services at the neighbour, at this host and in the world."""
    with ExitStack() as stack:
        for machine in (place.host, place.world):
            stack.enter_context(machine.echoing(PORT))
        with MachineDesk(place.trial, "desk2").shell() as neighbour:
            neighbour.run(f"(setsid nc -ll -p {PORT} -e true &)")
        yield
        with MachineDesk(place.trial, "desk2").shell() as neighbour:  # the daemon is another one by now
            hang_up(neighbour, PORT)


def hang_up(shell: Shell, port: int) -> None:
    """End what listens on a guest's port."""
    shell.run(f"kill $(ps | grep '[n]c -ll -p {port}' | awk '{{print $1}}')")


def root(place: Arena) -> Shell:
    """The shell of the attacker."""
    return MachineDesk(place.trial, "desk1").shell()


def reached(shell: Shell, knocks: Iterable[str]) -> set[str]:
    """The knocks, each `tcp ADDRESS PORT`, that came to a connection; all at once."""
    words = {knock.removeprefix("tcp "): knock for knock in knocks}
    trying = " ".join(f'"{word}"' for word in words)
    each = '(nc -w 5 $k -e true 2>/dev/null && echo "reached $k") &'
    told = shell.run(f"sh -c 'for k in {trying}; do {each} done; wait'")
    return {words[line.removeprefix("reached ")] for line in told.splitlines() if line.startswith("reached ")}


def overlay(place: Arena) -> Path:
    """The root of the attacker."""
    (found,) = (place.trial.storage / "overlays").glob(f"*-{place.trial.vm('desk1')['id']}-overlay.qcow2")
    return found


def written(place: Arena) -> list[Path]:
    """Everybody's disks."""
    found = [path for kind in ("overlays", "homes") for path in (place.trial.storage / kind).glob("*.qcow2")]
    assert len(found) == 4
    return found


def size_of(disk: Path) -> int:
    """What a guest sees as the size of a disk."""
    words = ["qemu-img", "info", "-U", "--output=json", str(disk)]
    told = subprocess.run(words, capture_output=True, check=True, timeout=60)
    return int(json.loads(told.stdout)["virtual-size"])
