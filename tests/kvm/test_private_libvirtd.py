"""The libvirtd of trials: it starts guests, they outlive it, and nothing of either is left at the end."""

from __future__ import annotations

import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from scripts.private_libvirtd import PrivateLibvirtd
from scripts.trial import Trial, TrialError
from tests.support import netns

pytestmark = pytest.mark.kvm

HOSTS = ("/etc/libvirt", "/run/libvirt", "/var/lib/libvirt", "/var/log/libvirt")
"""What belongs to the host's own."""
DOMAIN = """
<domain type='qemu'><name>{name}</name><memory unit='MiB'>16</memory><vcpu>1</vcpu>
 <cputune><shares>512</shares></cputune>
 <os><type arch='x86_64' machine='pc'>hvm</type></os><on_poweroff>destroy</on_poweroff>
 <devices><emulator>/usr/bin/qemu-system-x86_64</emulator>
  <interface type='ethernet'><target dev='tap7' managed='no'/><model type='virtio'/>
   <rom enabled='no'/></interface>
  <graphics type='vnc' socket='{screen}'/><memballoon model='none'/></devices></domain>
"""


@pytest.fixture
def directory() -> Iterator[Path]:
    """One with a short name: sockets are below it."""
    made = Path(tempfile.mkdtemp(prefix="qvdt-"))
    yield made / "libvirt"
    shutil.rmtree(made)


@pytest.fixture
def inside() -> Iterator[str]:
    with netns.namespace() as name:
        yield name


def virsh(libvirtd: PrivateLibvirtd, *words: str, stdin: str | None = None) -> str:
    command = ["virsh", "--quiet", "--connect", libvirtd.uri, *words]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, check=True, timeout=60).stdout


def wait_for(condition: Callable[[], object]) -> None:
    until = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_guests_are_in_the_namespace_and_outlive_it_until_the_end(directory: Path, inside: str) -> None:
    make_tap(inside)
    name = f"qvdt-{secrets.token_hex(4)}"
    before = {path for place in HOSTS for path in Path(place).rglob("*")}
    with PrivateLibvirtd(directory, inside) as libvirtd:
        virsh(
            libvirtd, "create", "/dev/stdin", stdin=DOMAIN.format(name=name, screen=directory / "run" / "vnc")
        )
        (guest,) = libvirtd.guests()
        assert Path(f"/proc/{guest}/ns/net").samefile(f"/run/netns/{inside}")
        assert name in Path(f"/proc/{guest}/cgroup").read_text()
        libvirtd.kill()
        assert [*libvirtd.guests()] == [guest]
        libvirtd.start()
        assert virsh(libvirtd, "list", "--name").split() == [name]
    wait_for(lambda: not Path(f"/proc/{guest}").exists())
    assert not directory.exists()
    assert not groups(name)
    assert {path for place in HOSTS for path in Path(place).rglob("*")} == before


def test_a_trial_that_comes_after_one_that_was_killed_ends_its_libvirtd_and_guests(directory: Path) -> None:
    trial = Trial(directory)
    try:
        trial.lay_out(pool_size="256M")
        name = f"qvd-{trial.marker.read_text()}-1"
        libvirtd = PrivateLibvirtd(trial.libvirt, trial.netns, environment=trial.environment)
        libvirtd.start()
        make_tap(trial.netns)
        virsh(libvirtd, "create", "/dev/stdin", stdin=DOMAIN.format(name=name, screen=trial.run / "vnc"))
        (guest,) = libvirtd.guests()
    finally:
        Trial(directory).tear_down()
    assert libvirtd.process is not None
    libvirtd.process.wait(10)
    wait_for(lambda: not Path(f"/proc/{guest}").exists())
    assert not groups(name)
    assert not trial.libvirt.exists()
    assert not trial.claimed.exists()


def make_tap(inside: str) -> None:
    """The port of a guest."""
    subprocess.run(
        ["ip", "-n", inside, "tuntap", "add", "dev", "tap7", "mode", "tap", "vnet_hdr"], check=True
    )


def groups(name: str) -> list[Path]:
    """The control groups of a guest."""
    return [*Path("/sys/fs/cgroup").rglob(f"*{name}*")]


def test_what_it_says_when_it_cannot_start_is_told(directory: Path, inside: str) -> None:
    (directory / "etc").mkdir(parents=True)
    libvirtd = PrivateLibvirtd(directory, f"{inside}-which-is-not-there")
    with pytest.raises(TrialError, match="there is no network namespace"):
        libvirtd.start()
    libvirtd.remove()


def test_a_name_that_no_socket_can_have_is_refused(inside: str) -> None:
    with pytest.raises(TrialError, match="too long for a socket"):
        PrivateLibvirtd(Path("/tmp") / ("x" * 100), inside)
