"""Control groups of both kinds, as directories."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.errors import BackendError
from appliance.runtime.cgroups import Cgroups, tell_weightless
from appliance.runtime.lxc_config import CgroupLayout

NAME = "qvd-0a1b2c3d-1"


def hybrid(mount: Path) -> Cgroups:
    for controller in ("memory", "cpu", "cpuacct", "pids", "devices", "unified"):
        (mount / controller).mkdir()
    (mount / "unified" / "cgroup.controllers").write_text("\n")
    (mount / "memory" / "memory.memsw.limit_in_bytes").touch()
    return Cgroups(mount)


def pure(mount: Path, controllers: str = "cpuset cpu io memory pids") -> Cgroups:
    (mount / "cgroup.controllers").write_text(f"{controllers}\n")
    return Cgroups(mount)


def test_a_hybrid_host_limits_by_version_1(tmp_path: Path) -> None:
    assert hybrid(tmp_path).layout() == CgroupLayout(memory=1, cpu=1, pids=1, devices=1, swap=True)


def test_a_new_host_limits_by_version_2(tmp_path: Path) -> None:
    groups = pure(tmp_path)
    assert groups.layout() == CgroupLayout(memory=2, cpu=2, pids=2, devices=2, swap=False)
    (tmp_path / "init.scope").mkdir()
    (tmp_path / "init.scope" / "memory.swap.max").touch()
    assert groups.layout().swap


@pytest.mark.parametrize(
    ("sign", "file"),
    [
        ("blkio/blkio.bfq.io_serviced", "blkio.bfq.weight"),
        ("blkio/blkio.throttle.io_serviced", None),
        ("unified/io.cost.qos", None),
    ],
)
def test_a_hybrid_host_weighs_by_bfq_or_not_at_all(tmp_path: Path, sign: str, file: str | None) -> None:
    groups = hybrid(tmp_path)
    (tmp_path / "blkio").mkdir()
    (tmp_path / sign).touch()
    assert groups.layout().io_weight == file


@pytest.mark.parametrize(
    ("signs", "file"),
    [
        (["io.cost.qos"], "io.weight"),
        (["init.scope/io.weight"], "io.weight"),
        (["init.scope/io.bfq.weight", "io.cost.qos"], "io.bfq.weight"),
        (["io.stat"], None),
    ],
)
def test_a_new_host_weighs_by_what_it_has(tmp_path: Path, signs: list[str], file: str | None) -> None:
    groups = pure(tmp_path)
    (tmp_path / "init.scope").mkdir()
    for sign in signs:
        (tmp_path / sign).touch()
    assert groups.layout().io_weight == file


def test_without_its_controller_nothing_is_weighed(tmp_path: Path) -> None:
    groups = pure(tmp_path, "cpu memory pids")
    (tmp_path / "io.cost.qos").touch()
    assert groups.layout().io_weight is None


def test_that_weights_are_in_vain_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    tell_weightless.cache_clear()
    for _ in range(3):
        tell_weightless("no reason")
    assert [record.message for record in caplog.records] == ["io_weight has no effect on this host"]


def test_a_missing_controller_is_named(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="no control group for pids"):
        pure(tmp_path, "cpu memory").layout()


def test_what_an_earlier_run_left_is_removed_to_the_last_group(tmp_path: Path) -> None:
    groups = hybrid(tmp_path)
    ours = [f"lxc.payload.{NAME}", f"lxc.payload.{NAME}-2", f"lxc.monitor.{NAME}"]
    others = [f"lxc.payload.{NAME}0", "lxc.payload.qvd-ffffffff-1", f"lxc.payload.{NAME}-web", "lxc.pivot"]
    for name in (*ours, *others):
        (tmp_path / "memory" / name / "inner" / "most").mkdir(parents=True)
        (tmp_path / "unified" / name).mkdir()
    groups.sweep(NAME)
    for hierarchy in ("memory", "unified"):
        assert sorted(path.name for path in (tmp_path / hierarchy).iterdir() if path.is_dir()) == sorted(
            others
        )
    groups.sweep(NAME)


def test_a_group_that_is_in_use_is_an_error(tmp_path: Path) -> None:
    groups = pure(tmp_path)
    used = tmp_path / f"lxc.payload.{NAME}"
    used.mkdir()
    (used / "cgroup.procs").write_text("4711\n")
    with pytest.raises(BackendError, match=f"processes of an earlier run of {NAME} still live in"):
        groups.sweep(NAME)
