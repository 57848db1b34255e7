"""What goes into a bootable image beyond the desktop."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from images import build_kvm, build_lxc, debian
from images.build_kvm import ENABLED, PACKAGES, add_initrd, clamp, finish

OVERLAY = debian.HERE / "overlay-kvm"


def test_it_is_the_same_desktop_with_what_a_machine_needs() -> None:
    assert set(debian.DESKTOP) < set(PACKAGES)
    assert {"linux-image-cloud-amd64", "systemd-sysv", "e2fsprogs", "fdisk"} <= set(PACKAGES)


def test_every_unit_that_is_enabled_is_there() -> None:
    assert all((OVERLAY / "etc/systemd/system" / unit).is_file() for unit in ENABLED)
    shell = finish()
    assert all(unit in shell for unit in ENABLED)
    assert "serial-getty@ttyS0.service" in shell


def test_the_agent_waits_for_nothing() -> None:
    unit = (OVERLAY / "etc/systemd/system/qvd-vma.service").read_text()
    assert "DefaultDependencies=no" in unit
    after = [line for line in unit.splitlines() if line.startswith(("After=", "Requires=", "Wants="))]
    assert after == ["After=home.mount"]


def test_programs_of_the_overlay_can_be_run() -> None:
    for script in [*(OVERLAY / "usr/lib/qvd").iterdir(), OVERLAY / "etc/acpi/PWRF/00000080"]:
        assert os.access(script, os.X_OK), script


@pytest.mark.parametrize(("kernels", "count"), [([], 0), (["vmlinuz-1", "vmlinuz-2"], 2)])
def test_a_root_must_have_one_kernel(tmp_path: Path, kernels: list[str], count: int) -> None:
    (tmp_path / "boot").mkdir()
    for name in kernels:
        (tmp_path / "boot" / name).touch()
    with pytest.raises(debian.BuildError, match=f"{count} kernels"):
        add_initrd(tmp_path)


def test_nothing_is_younger_than_the_archive(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/new").touch()
    (tmp_path / "a/dangling").symlink_to("/nowhere")
    old = tmp_path / "old"
    old.touch()
    os.utime(old, (5, 5))
    clamp(tmp_path, 1000)
    assert {int(path.lstat().st_mtime) for path in (tmp_path, *tmp_path.rglob("*"))} == {5, 1000}


@pytest.mark.parametrize("builder", [build_kvm.main, build_lxc.main])
def test_a_name_that_tells_another_format_is_refused(
    builder: Callable[[list[str]], int], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        builder(["image.iso"])
    assert "must end in" in capsys.readouterr().err
