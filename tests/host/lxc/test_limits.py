"""What a guest may use, and who it is on the host."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from appliance.config import Settings
from appliance.errors import BackendError
from appliance.runtime import lxc_config
from appliance.runtime.cgroups import Cgroups, tell_weightless
from appliance.runtime.lxc import Lxc
from appliance.storage.paths import Paths
from tests.support.contract import ONE
from tests.support.lxc_guests import processes
from tests.support.lxc_rig import Site
from tests.support.typist import typist

pytestmark = pytest.mark.host


async def test_they_are_in_force(site: Site) -> None:
    await site.connect()
    rig = site.rig()
    guest = await rig.start()
    groups = Cgroups(site.paths.cgroup)
    init = processes(site).init
    assert init is not None
    wanted = lxc_config.limits(guest, groups.layout())
    assert {limit.controller for limit in wanted} == {"memory", "cpu", "pids"}
    assert groups.unmet(init, wanted) == []


async def test_a_guest_without_one_is_not_left_running(site: Site) -> None:
    await site.connect()
    rig = site.rig()
    guest = rig.guest()
    await rig.disks.clone_root(guest.mark, keep=False)
    await rig.disks.ensure_home(guest.mark, size_mib=None)
    await rig.backend.define(guest)
    config = site.paths.lxc / lxc_config.name(site.installation, ONE) / "config"
    lines = config.read_text().splitlines()
    config.write_text("\n".join(line for line in lines if ".pids.max" not in line))
    with pytest.raises(BackendError, match=r"pids\.max is \w+ instead of 500"):
        await rig.backend.launch(ONE)
    await rig.remove(ONE)
    assert await rig.backend.survey() == {}


async def test_a_weight_is_in_force_where_the_kernel_has_one(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    tell_weightless.cache_clear()
    await site.connect()
    rig = site.rig()
    guest = await rig.start(rig.guest(io_weight=1000))
    groups, init = Cgroups(site.paths.cgroup), processes(site).init
    assert init is not None
    file = groups.layout().io_weight
    if file is not None:
        weight = (groups.of(init, file.partition(".")[0]) / file).read_text().split()
        assert weight in (["1000"], ["default", "1000"])
    assert groups.unmet(init, lxc_config.limits(guest, groups.layout())) == []
    assert ("io_weight has no effect" in caplog.text) is (file is None)


async def test_where_the_kernel_has_none_a_guest_starts_without(
    site: Site, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tell_weightless.cache_clear()
    for entry in site.paths.cgroup.iterdir():
        if entry.name not in ("blkio", "cgroup.controllers", "io.cost.qos"):
            (tmp_path / entry.name).symlink_to(entry)
    (tmp_path / "cgroup.controllers").write_text("cpu memory pids\n")
    if (site.paths.cgroup / "memory").is_dir():
        (tmp_path / "cgroup.controllers").unlink()
    blind = Settings({**site.settings.written, "path.cgroup": str(tmp_path)})
    await site.connect()
    rig = replace(site.rig(), backend=Lxc(Paths(blind), site.installation))
    await rig.start(rig.guest(io_weight=300))
    assert processes(site).init is not None
    assert [r.message for r in caplog.records if "io_weight" in r.message] == [
        "io_weight has no effect on this host"
    ]


async def test_a_host_that_hides_its_control_groups_is_refused(site: Site, tmp_path: Path) -> None:
    hidden = Settings({"path.storage.root": str(site.paths.root), "path.cgroup": str(tmp_path)})
    with pytest.raises(BackendError, match=r"no control group for memory .*in-netns"):
        await Lxc(Paths(hidden), site.installation).check()


async def test_the_guest_is_root_of_its_own_range_only(site: Site) -> None:
    await site.connect()
    rig = site.rig()
    guest = await rig.start()
    init = processes(site).init
    assert Path(f"/proc/{init}").stat().st_uid == guest.subid_first
    async with typist(rig.backend, ONE) as desk:
        assert await desk.type("id -u") == "0"
        assert "Operation not permitted" in await desk.type("ifconfig eth0 hw ether 54:52:00:00:00:01")
        assert "permission" in (await desk.type("ping -c1 10.44.0.1")).lower()
