"""Whether root may use the guests' ids, and AppArmor knows them."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.errors import BackendError
from appliance.runtime.lxc import APPARMOR_PROFILE, check_apparmor, check_range


@pytest.mark.parametrize(
    "line", ["root:1000000:65536", "0:100000:4000000", "other:1:5\nroot:1000000:4293900000\n"]
)
def test_a_range_that_holds_the_first_guest_is_enough(tmp_path: Path, line: str) -> None:
    (tmp_path / "subuid").write_text(line)
    check_range(tmp_path / "subuid")


@pytest.mark.parametrize(
    "line",
    ["", "alice:1000000:65536", "root:100000:65536", "root:1000000:100", "root:nothing", "root:1000000"],
)
def test_less_is_refused_with_the_remedy(tmp_path: Path, line: str) -> None:
    (tmp_path / "subuid").write_text(line)
    with pytest.raises(BackendError, match=r"no range from 1000000 \(run scripts/setup\)"):
        check_range(tmp_path / "subuid")


def test_a_missing_file_is_refused_too(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="run scripts/setup"):
        check_range(tmp_path / "subuid")


def sys_with(directory: Path, enabled: str, profiles: str) -> Path:
    for file, text in (
        ("module/apparmor/parameters/enabled", enabled),
        ("kernel/security/apparmor/profiles", profiles),
    ):
        (directory / file).parent.mkdir(parents=True)
        (directory / file).write_text(text)
    return directory


@pytest.mark.parametrize(
    ("enabled", "profiles"),
    [("N\n", ""), ("Y\n", f"man_filter (enforce)\n{APPARMOR_PROFILE} (enforce)\n")],
)
def test_apparmor_is_off_or_knows_containers(tmp_path: Path, enabled: str, profiles: str) -> None:
    check_apparmor(sys_with(tmp_path, enabled, profiles))


def test_a_kernel_without_apparmor_needs_no_profile(tmp_path: Path) -> None:
    check_apparmor(tmp_path)


def test_apparmor_without_the_profile_is_refused_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="apt-get install apparmor"):
        check_apparmor(sys_with(tmp_path, "Y\n", f"{APPARMOR_PROFILE}-with-nesting (enforce)\n"))
