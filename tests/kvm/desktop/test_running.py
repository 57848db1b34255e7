"""The built image at work: what its desktop outlives, what stays over a restart, and what it cannot reach."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from scripts.trial import LOGIN, NETWORK, PORT, Trial, command
from tests.support.kvm_desktop import MachineDesk, Shell, Site, kvm_site
from tests.support.survival import outlives
from tests.support.tiny_vm import tiny_image

pytestmark = [pytest.mark.kvm, pytest.mark.timeout(900)]

RUNS_WITHIN_S = 400
GATEWAY = f"{NETWORK}.1"
VMA_PORT, DNS_PORT = 3030, 53
HOME_MIB = 64


@pytest.fixture(scope="module")
def site(kvm_image: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """An appliance where the same image is registered twice, and has a desktop."""
    names = {"vm__network__dns_server": GATEWAY}
    with kvm_site(tmp_path_factory.mktemp("kvm") / "trial", **names) as made:
        policy = ("backend=kvm", "cpus=2", f"user_storage_size={HOME_MIB}")
        made.trial.furnish(kvm_image, memory=768, policy=policy)
        made.trial.qa("di", "add", f"path={kvm_image}", "osf=small")
        made.trial.save_certificate()
        yield made


@pytest.fixture
def desk(site: Site) -> MachineDesk:
    """The desktop, running."""
    if site.trial.vm("desk1")["vm_state"] == "stopped":
        site.trial.qa("vm", "start", "-f", "name=desk1")
    site.trial.wait_for_state("desk1", "running", RUNS_WITHIN_S)
    return MachineDesk(site.trial, "desk1")


def test_a_desktop_outlives_the_daemon(desk: MachineDesk) -> None:
    outlives(desk, Trial.kill)


def test_a_desktop_outlives_libvirtd_and_its_home_outlives_a_restart(desk: MachineDesk, site: Site) -> None:
    trial = site.trial
    screen = desk.open_and_see()
    screen.remember("tenacity")
    init, programs = desk.init(), desk.programs()
    begun = trial.log.stat().st_size
    site.libvirtd.kill()
    screen.recalls("tenacity")
    assert (desk.init(), desk.programs()) == (init, programs)
    assert desk.row()["vm_state"] == "running"
    site.libvirtd.start()
    trial.wait_for("libvirtd", lambda: b"libvirtd is back" in trial.log.read_bytes()[begun:])
    screen.leave()

    old, new = trial.vm("desk1")["current_di_id"], 2 if trial.vm("desk1")["current_di_id"] == 1 else 1
    with desk.shell() as shell:
        was = identity(shell)
        shell.run(f"touch /opt/of-the-root; su {LOGIN} -c 'echo kept >~/of-the-home'")
    assert was.host_name == "desk1"
    assert was.uid == 20_000 + trial.listed("user", f"login={LOGIN}")[0]["id"]
    assert backing(trial, old).name.startswith(f"{old}-")

    trial.qa("di", "tag", f"di_id={new}", "tag=default")
    row = trial.vm("desk1")
    assert (row["current_di_id"], row["next_di_id"], row["outdated"]) == (old, new, True)
    trial.qa("vm", "stop", "-f", "name=desk1")
    trial.wait_for_state("desk1", "stopped", RUNS_WITHIN_S)
    assert desk.inits() == []
    trial.qa("vm", "start", "-f", "name=desk1")
    row = trial.wait_for_state("desk1", "running", RUNS_WITHIN_S)
    assert (row["current_di_id"], row["next_di_id"], row["outdated"]) == (new, new, False)
    assert backing(trial, new).name.startswith(f"{new}-")
    assert [path.name for path in overlays(trial)] == [f"{new}-{row['id']}-overlay.qcow2"]

    desk.open_and_see().leave()
    with desk.shell() as shell:
        assert identity(shell) == was
        assert shell.run(f"ls -A /opt; su {LOGIN} -c 'cat ~/of-the-home; stat -c %u ~'").split() == [
            "kept",
            str(was.uid),
        ]
        assert shell.run("findmnt -n -o SOURCE /home") == "/dev/vdb1"


def test_a_guest_reaches_no_neighbour_and_nothing_of_the_host_but_its_name_server(
    desk: MachineDesk, site: Site
) -> None:
    """With the positive control: without rules and isolated ports the same attempts succeed."""
    trial = site.trial
    trial.qa("osf", "add", "name=tiny", "memory=96", "backend=kvm")
    trial.qa("di", "add", f"path={tiny_image()}", "osf=tiny")
    trial.qa("vm", "add", "name=desk2", f"user={LOGIN}", "osf=tiny")
    trial.qa("vm", "start", "-f", "name=desk2")
    neighbour = trial.wait_for_state("desk2", "running", RUNS_WITHIN_S)["vm_address"]
    forbidden = {(neighbour, VMA_PORT), (GATEWAY, PORT)}
    wanted = forbidden | {(GATEWAY, DNS_PORT)}
    own = trial.vm("desk1")["vm_address"]

    with desk.shell() as shell:
        assert reached(shell, wanted | {(own, VMA_PORT)}) == {(GATEWAY, DNS_PORT), (own, VMA_PORT)}
        _, answer = shell.attempt(
            f"busybox nslookup desk1 {GATEWAY}"
        )  # it complains: there is no IPv6 address
        assert f"Address: {own}" in answer
    restart(trial, firewall="0")
    for vm in ("desk1", "desk2"):
        port = f"qvd{trial.vm(vm)['id']}"
        command("ip", "netns", "exec", trial.netns, "bridge", "link", "set", "dev", port, "isolated", "off")
    with desk.shell() as shell:
        assert reached(shell, wanted) == wanted
    restart(trial, firewall="1")
    with desk.shell() as shell:
        assert reached(shell, wanted) == {(GATEWAY, DNS_PORT)}


@dataclass(frozen=True, slots=True)
class Identity:
    """By what network and disks know a guest and its user, as the guest tells it."""

    host_name: str
    address: str
    mac: str
    uid: int


def identity(shell: Shell) -> Identity:
    """Ask the guest."""
    link = "ip -o -4 addr show eth0 | tr -s ' ' | cut -d ' ' -f 4; cat /sys/class/net/eth0/address"
    name, address, mac, uid = shell.run(f"hostname; {link}; id -u {LOGIN}").split()
    return Identity(name, address, mac, int(uid))


def reached(shell: Shell, wanted: set[tuple[str, int]]) -> set[tuple[str, int]]:
    """To which of these the guest can connect."""
    there = set()
    for address, port in sorted(wanted):
        status, _ = shell.attempt(f"timeout 5 bash -c '</dev/tcp/{address}/{port}' 2>/dev/null")
        if status == 0:
            there.add((address, port))
    return there


def overlays(trial: Trial) -> list[Path]:
    """The roots of the one desktop."""
    return sorted((trial.storage / "overlays").glob(f"*-{trial.vm('desk1')['id']}-overlay.qcow2"))


def backing(trial: Trial, di_id: int) -> Path:
    """The image under the root of the desktop, as the root itself says."""
    root = trial.storage / "overlays" / f"{di_id}-{trial.vm('desk1')['id']}-overlay.qcow2"
    words = ["qemu-img", "info", "-U", "--output=json", str(root)]
    told = subprocess.run(words, capture_output=True, check=True, timeout=60)
    return Path(json.loads(told.stdout)["backing-filename"])


def restart(trial: Trial, *, firewall: str) -> None:
    """Another daemon over the same guests, with rules for them or without."""
    trial.stop()
    trial.write_config(internal__vm__network__firewall__enable=firewall)
    trial.start()
