"""Bad images and full disks: each ends with the reason on the VM, and blocks no other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.trial import Trial
from tests.support.boot_sector import BOOTED, sector_image
from tests.support.disks import HOSTILE
from tests.support.failing import GRACE, full_pool
from tests.support.kvm_desktop import MachineDesk, Site, kvm_site
from tests.support.tiny_vm import tiny_image

pytestmark = [pytest.mark.kvm, pytest.mark.timeout(600)]

REFUSED = {"backing=/etc/shadow", "data-file", "corrupt", "cut in its data"}
GRACE_S = 6
RUNS_WITHIN_S = 240


@pytest.fixture
def hasty(quick: Site) -> Iterator[Trial]:
    """Agents must answer soon."""
    quick.trial.qa("config", "set", "--yes", f"{GRACE}={GRACE_S}")
    yield quick.trial
    quick.trial.qa("config", "set", "--yes", f"{GRACE}=180")


def test_a_guest_that_neither_answers_nor_obeys_is_blamed_on_its_image(hasty: Trial, tmp_path: Path) -> None:
    desk = MachineDesk(hasty, "deaf")
    hasty.qa("osf", "add", "name=deaf", "memory=64", "backend=kvm")
    hasty.qa("di", "add", f"path={sector_image(tmp_path, 'deaf')}", "osf=deaf")
    hasty.qa("vm", "add", "name=deaf", "user=alice", "osf=deaf")
    for failures in (1, 2):
        assert hasty.listed("alarm") == []
        hasty.qa("vm", "start", "-f", "name=deaf")
        hasty.wait_for(
            "the failure",
            lambda: (desk.row()["failures"], desk.row()["vm_state"]) == (failures, "stopped"),  # noqa: B023
            RUNS_WITHIN_S,
        )
        row = hasty.vm("deaf")
        assert f"the VMA gave no answer within {GRACE_S} s" in row["failure"]
        assert row["failure_console"].endswith(BOOTED)
        assert (row["failure_cause"], row["blocked"]) == ("image", failures == 2)
        assert desk.inits() == []
    (alarm,) = hasty.listed("alarm")
    assert (alarm["kind"], alarm["object"]) == ("image", f"di {hasty.vm('deaf')['next_di_id']}")
    hasty.qa("vm", "unblock", "-f", "name=deaf")
    hasty.qa("alarm", "clear", "--yes")


def test_what_would_read_files_of_the_host_or_is_broken_is_never_registered(
    quick: Site, tmp_path: Path
) -> None:
    before = quick.trial.listed("di")
    hostile = [each for each in HOSTILE if each.name in REFUSED]
    assert len(hostile) == len(REFUSED)
    for each in hostile:
        file = tmp_path / f"{HOSTILE.index(each)}.qcow2"
        each.make(file)
        said = quick.trial.qa("di", "add", f"path={file}", "osf=small", check=False)
        assert (said.returncode, each.said in said.stderr) == (1, True), said.stderr
    assert quick.trial.listed("di") == before


def test_an_image_that_was_damaged_on_this_host_is_told_by_name(quick: Site, tmp_path: Path) -> None:
    trial, desk = quick.trial, MachineDesk(quick.trial, "rotten")
    trial.qa("osf", "add", "name=rotten", "memory=64", "backend=kvm")
    trial.qa("di", "add", f"path={sector_image(tmp_path, 'quick')}", "osf=rotten")
    trial.qa("vm", "add", "name=rotten", "user=alice", "osf=rotten")
    (image,) = (trial.storage / "images").glob(f"{trial.vm('rotten')['next_di_id']}-*")
    with image.open("r+b") as stream:
        stream.seek(40)  # where the table of clusters is said to be
        stream.write(b"\xff" * 8)
    trial.qa("vm", "start", "-f", "name=rotten")
    trial.wait_for("the failure", lambda: desk.row()["failure"], RUNS_WITHIN_S)
    assert image.name in str(desk.row()["failure"])
    assert desk.inits() == []
    trial.qa("vm", "stop", "--force", "-f", "name=rotten")
    trial.wait_for_state("rotten", "stopped", RUNS_WITHIN_S)
    trial.qa("alarm", "clear", "--yes")


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Site]:
    """An installation on a small pool, impatient to try again."""
    settings = {"internal__hkd__start__delay__first": "0.5", "internal__hkd__start__delay__max": "2"}
    with kvm_site(tmp_path / "trial", pool_size="512M", **settings) as made:
        yield made


def test_a_full_pool_pauses_who_writes_and_blocks_nobody(small: Site) -> None:
    trial = small.trial
    trial.furnish(tiny_image(), vm="desk", memory=96, policy=("backend=kvm", "user_storage_size=64"))
    trial.qa("vm", "start", "-f", "name=desk")
    trial.wait_for_state("desk", "running", RUNS_WITHIN_S)
    with MachineDesk(trial, "desk").shell() as shell:
        with full_pool(trial, trial.storage / "homes", more=1):
            writes = shell.begin("dd if=/dev/urandom of=/dev/vdb bs=64k count=200 conv=fsync")
            trial.wait_for("the pause", lambda: "guest waits because its disk" in trial.log.read_text())
            assert trial.vm("desk")["vm_state"] == "running"
        assert shell.end(writes)[0] == 0
