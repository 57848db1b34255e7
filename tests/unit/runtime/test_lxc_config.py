"""What LXC is told, compared with the expected text."""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path

import pytest

from appliance.config import Settings
from appliance.model import InstallationId, VmId
from appliance.runtime import lxc_config
from appliance.runtime.lxc_config import CgroupLayout, Init
from appliance.storage.paths import Paths
from tests.support.machines import GUEST

GOLDEN = Path(__file__).parents[2] / "golden"
PATHS = Paths(Settings({"path.storage.root": "/pool", "path.run": "/run/qvd"}))
OLD = CgroupLayout(memory=1, cpu=1, pids=1, devices=1, swap=True, io_weight="blkio.bfq.weight")
NEW = CgroupLayout(memory=2, cpu=2, pids=2, devices=2, swap=True, io_weight="io.bfq.weight")
HALF = replace(GUEST, cpus=0.5, io_weight=300)


@pytest.mark.parametrize(
    ("name", "init", "layout"),
    [("lxc-busybox-cgroup1", Init.BUSYBOX, OLD), ("lxc-systemd-cgroup2", Init.SYSTEMD, NEW)],
)
def test_the_configuration_is_the_expected_one(name: str, init: Init, layout: CgroupLayout) -> None:
    assert lxc_config.render(HALF, PATHS, init, layout) == (GOLDEN / f"{name}.conf").read_text()


def test_every_limit_is_in_the_configuration() -> None:
    for layout in (OLD, NEW):
        text = lxc_config.render(HALF, PATHS, Init.OTHER, layout)
        for limit in lxc_config.limits(HALF, layout):
            assert f".{limit.file} = {limit.value}\n" in text


def test_the_limits_can_be_read_back_from_the_configuration() -> None:
    for layout in (OLD, NEW):
        text = lxc_config.render(HALF, PATHS, Init.OTHER, layout)
        assert lxc_config.written_limits(text) == lxc_config.limits(HALF, layout)


def test_without_swap_accounting_and_without_a_share_of_processors_less_is_limited() -> None:
    layout = replace(OLD, swap=False)
    files = [limit.file for limit in lxc_config.limits(GUEST, layout)]
    assert files == ["memory.limit_in_bytes", "pids.max"]


def test_where_nothing_is_weighed_no_weight_is_written() -> None:
    unweighed = replace(HALF, io_weight=None)
    for layout in (OLD, NEW):
        assert lxc_config.limits(HALF, replace(layout, io_weight=None)) == lxc_config.limits(
            unweighed, layout
        )


@pytest.mark.parametrize(
    ("program", "number"),
    [("busybox", signal.SIGUSR2), ("systemd", signal.SIGRTMIN + 3), ("tini", signal.SIGPWR)],
)
def test_each_init_is_asked_in_its_own_way(program: str, number: int) -> None:
    assert Init.of(program).halt == number


def test_a_name_belongs_to_one_installation_and_vm() -> None:
    ours = InstallationId("0a1b2c3d")
    assert lxc_config.vm_of(ours, lxc_config.name(ours, VmId(12))) == 12
    for other in ("qvd-ffffffff-12", "qvd-0a1b2c3d-12-1", "qvd-0a1b2c3d-", "qvd-0a1b2c3d-012", "web"):
        assert lxc_config.vm_of(ours, other) is None


def test_no_value_can_add_a_line() -> None:
    with pytest.raises(ValueError, match="one line"):
        lxc_config.render(replace(GUEST, hostname="a\nlxc.cap.drop ="), PATHS, Init.OTHER, OLD)


def test_a_guest_knows_its_name_and_keeps_the_images_other_hosts() -> None:
    guest = replace(GUEST, resolver="10.44.0.1", domain="example.org")
    files = lxc_config.host_files(guest, "127.0.0.1\tlocalhost\n10.9.8.7\tprinter\n")
    assert files["hostname"] == "desk7\n"
    assert files["resolv.conf"] == "search example.org\nnameserver 10.44.0.1\n"
    assert files["hosts"].splitlines()[:2] == ["127.0.0.1\tlocalhost", "10.9.8.7\tprinter"]
    assert files["hosts"].splitlines()[2].startswith("10.44.0.7\tdesk7.example.org desk7")
    again = lxc_config.host_files(replace(guest, hostname="other"), files["hosts"])
    assert "desk7" not in again["hosts"]


def test_without_a_resolver_the_images_own_stays() -> None:
    files = lxc_config.host_files(GUEST, "")
    assert set(files) == {"hostname", "hosts"}
    assert files["hosts"].startswith("127.0.0.1\tlocalhost\n")
