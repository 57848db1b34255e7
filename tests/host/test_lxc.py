"""Containers as they really are: what outlives what, what is limited, what is on disk, what is left."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from appliance.config import Settings
from appliance.errors import BackendError, ImageError
from appliance.model import VmId
from appliance.runtime import bridge, lxc_config, lxc_process
from appliance.runtime.backend import Departure
from appliance.runtime.cgroups import Cgroups, tell_weightless
from appliance.runtime.lxc import Lxc
from appliance.storage.paths import Paths
from tests.support import netns
from tests.support.contract import ONE, Rig
from tests.support.lxc_rig import Site
from tests.support.traces import traces
from tests.support.typist import typist

pytestmark = pytest.mark.host

LONGEST_S = 20.0


@pytest.fixture(autouse=True)
def nothing_is_left(site: Site) -> Iterator[None]:
    """Kill what a test left running, and see that nothing of it stays on the host."""

    async def clear() -> None:
        rig = site.rig()
        for vm_id in await rig.backend.survey():
            await rig.remove(vm_id)

    yield
    asyncio.run(clear())
    assert traces(site.installation) == []


async def departed(rig: Rig) -> VmId:
    async with asyncio.timeout(LONGEST_S):
        departure: Departure = await anext(aiter(rig.backend.departures()))
        return departure.vm_id


def processes(site: Site) -> lxc_process.Found:
    return lxc_process.find_all(site.installation)[ONE]


def is_reached(address: str) -> bool:
    """Whether a machine answers at all: no service listens, so it refuses."""
    with socket.socket() as probe:
        probe.settimeout(2)
        try:
            probe.connect((address, 9))
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
    return True


class TestOutliving:
    def test_a_guest_outlives_the_kill_of_its_launcher_and_is_adopted(self, site: Site) -> None:
        child = os.fork()
        if child == 0:

            async def launch() -> None:
                await site.connect()
                await site.rig().start()
                os.kill(os.getpid(), signal.SIGKILL)

            try:
                asyncio.run(launch())
            finally:
                os._exit(1)
        assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
        before = processes(site)

        async def take_over() -> None:
            rig = site.rig()
            await rig.backend.check()
            sighting = (await rig.backend.survey())[ONE]
            assert sighting.mark == rig.guest().mark
            assert sighting.init_pid == before.init
            assert before.init is not None
            assert sighting.init_started == lxc_process.started(before.init)
            with pytest.raises(BackendError, match="already runs"):
                await rig.start()
            await rig.backend.adopt(rig.guest())
            assert processes(site) == before
            await rig.backend.kill(ONE)
            assert await departed(rig) == ONE

        asyncio.run(take_over())

    def test_a_guest_is_taken_over_from_another_network_namespace(self, site: Site) -> None:
        async def begin() -> None:
            await site.connect()
            await site.rig().start()

        async def take_over() -> None:
            await site.connect()
            rig = site.rig()
            guest = rig.guest()
            sighting = (await rig.backend.survey())[ONE]
            assert (sighting.mark, sighting.init_pid) == (guest.mark, before.init)
            with pytest.raises(BackendError, match="already runs"):
                await rig.start()
            await rig.fences.fence(guest)
            assert not await bridge.exists(guest.interface)
            await rig.backend.adopt(guest)
            assert is_reached(str(guest.address.ip))
            async with typist(rig.backend, ONE) as desk:
                assert await desk.type("hostname") == guest.hostname
            assert processes(site) == before
            await rig.backend.kill(ONE)
            assert await departed(rig) == ONE
            await rig.remove(ONE)

        asyncio.run(begin())
        before = processes(site)
        with netns.namespace() as elsewhere, netns.entered(elsewhere):
            asyncio.run(take_over())

    async def test_an_installation_sees_its_own_guests_only(self, site: Site) -> None:
        await site.connect()
        await site.rig().start()
        stranger = Lxc(site.paths, type(site.installation)("ffffffff"))
        assert await stranger.survey() == {}
        assert set(await site.backend().survey()) == {ONE}


@contextmanager
def imposter(site: Site, name: str, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A program of an ordinary user, root by itself as su is, that calls itself what root's are called."""
    program = folder / "setuid-cat"
    shutil.copy("/bin/cat", program)
    program.chmod(0o4755)
    folder.chmod(0o755)
    words = [name, "-n", lxc_config.name(site.installation, ONE), "lxc-start", "-"]
    with subprocess.Popen(
        words,
        executable=program,
        user=65534,
        group=65534,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("here\n")
        process.stdin.flush()
        assert "here" in process.stdout.readline()
        yield process
        process.kill()


@pytest.mark.parametrize("name", ["lxc-start", "sh"])
async def test_a_user_of_the_host_passes_for_no_guest(site: Site, name: str) -> None:
    # Not below pytest's folders: nobody else may go there.
    with tempfile.TemporaryDirectory(prefix="qvdt-") as folder, imposter(site, name, Path(folder)) as process:
        assert Path(f"/proc/{process.pid}").stat().st_uid == 0
        assert lxc_process.find_all(site.installation) == {}


HIDDEN = """
import ctypes, signal, threading
def hide():
    fields = open("/proc/self/stat").read().rpartition(")")[2].split()
    words = int(fields[45])  # where the command line begins (proc(5), field 48)
    assert ctypes.CDLL(None).munmap(ctypes.c_void_p(words & -4096), 4096) == 0
    print("hidden", flush=True)
    signal.pause()
threading.Thread(target=hide).start()
"""
FAR = ["-"] * 1024
"""So many words that their pointers keep the main thread's frames off the page that HIDDEN takes away."""


async def test_an_init_that_hides_its_command_line_is_found(site: Site) -> None:
    top = Path("/sys/fs/cgroup/pids")
    group = (top if top.is_dir() else top.parent) / f"lxc.payload.{lxc_config.name(site.installation, ONE)}"
    group.mkdir()
    try:
        enter = ["unshare", "--pid", "--fork", "--kill-child"]
        words = ["sh", "-c", 'echo $$ >"$1/cgroup.procs"; shift; exec "$@"', "sh", str(group), *enter]
        with subprocess.Popen(
            [*words, "/usr/bin/python3", "-I", "-c", HIDDEN, *FAR], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "hidden\n"
            found = processes(site)
            assert found.init is not None
            assert lxc_process.command(found.init) == []
            process.kill()
    finally:
        async with asyncio.timeout(LONGEST_S):
            while (group / "cgroup.procs").read_text():
                await asyncio.sleep(0.01)
        group.rmdir()


class TestOneInitPerRoot:
    async def test_of_two_launches_at_once_one_wins(self, site: Site) -> None:
        await site.connect()
        first, second = site.rig(), site.rig()
        guest = first.guest()
        await first.disks.clone_root(guest.mark, keep=False)
        await first.disks.ensure_home(guest.mark, size_mib=None)
        await first.fences.fence(guest)
        for _ in range(5):
            await asyncio.gather(first.backend.define(guest), second.backend.define(guest))
            outcomes = await asyncio.gather(
                first.backend.launch(ONE), second.backend.launch(ONE), return_exceptions=True
            )
            assert [isinstance(outcome, BackendError) for outcome in outcomes].count(True) == 1
            assert outcomes.count(None) == 1
            assert is_reached(str(guest.address.ip))
            await first.backend.kill(ONE)

    async def test_no_guest_process_holds_the_lock(self, site: Site) -> None:
        await site.connect()
        await site.rig().start()
        found, lock = processes(site), site.paths.root_lock(ONE)

        def holds(pid: int | None) -> bool:
            return any(link.readlink() == lock for link in Path(f"/proc/{pid}/fd").iterdir())

        assert holds(found.keeper)
        assert not holds(found.monitor)
        assert not holds(found.init)

    @pytest.mark.parametrize("victim", ["init", "monitor", "keeper"])
    async def test_whatever_dies_the_rest_follows(self, site: Site, victim: str) -> None:
        await site.connect()
        rig = site.rig()
        await rig.start()
        os.kill(getattr(processes(site), victim), signal.SIGKILL)
        assert await departed(rig) == ONE
        assert lxc_process.find_all(site.installation) == {}
        await rig.start()
        assert is_reached(str(rig.guest().address.ip))

    async def test_an_init_that_outlives_its_monitor_is_found_and_blocks_the_root(self, site: Site) -> None:
        await site.connect()
        rig = site.rig()
        guest = rig.guest()
        root = await rig.disks.clone_root(guest.mark, keep=False)
        await rig.disks.ensure_home(guest.mark, size_mib=None)
        (root / "sbin" / "init").unlink()
        (root / "sbin" / "init").write_text("#!/bin/sh\nexec su user -c 'sleep 1000'\n")
        (root / "sbin" / "init").chmod(0o755)
        await rig.backend.define(guest)
        await rig.backend.launch(ONE)
        assert isinstance(rig.backend, Lxc)
        rig.backend.close()
        before = processes(site)
        assert before.init is not None
        async with asyncio.timeout(LONGEST_S):
            while lxc_process.command(before.init) != ["sleep", "1000"]:
                await asyncio.sleep(0.01)
        assert before.monitor is not None
        assert before.keeper is not None
        os.kill(before.monitor, signal.SIGKILL)
        async with asyncio.timeout(LONGEST_S):
            for pid in (before.monitor, before.keeper):
                while lxc_process.started(pid) is not None:
                    await asyncio.sleep(0.01)
        assert lxc_process.started(before.init) is not None

        later = site.rig()
        assert (await later.backend.survey())[ONE].init_pid == before.init
        await later.backend.define(guest)
        with pytest.raises(BackendError, match="processes of an earlier run"):
            await later.backend.launch(ONE)
        await later.backend.kill(ONE)
        await later.start()
        assert processes(site).init != before.init

    async def test_a_reboot_inside_is_not_a_departure(self, site: Site) -> None:
        await site.connect()
        rig = site.rig()
        await rig.start()
        before = processes(site)
        async with typist(rig.backend, ONE) as desk:
            desk.send("reboot\n")
        async with asyncio.timeout(LONGEST_S):
            while (after := processes(site)).init in (before.init, None):
                await asyncio.sleep(0.05)
        assert after.monitor == before.monitor
        await asyncio.sleep(0.3)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await anext(aiter(rig.backend.departures()))
        assert (await rig.backend.survey())[ONE].init_pid == after.init
        assert (await rig.backend.sample(ONE)).memory_bytes > 0
        await rig.backend.kill(ONE)
        assert await departed(rig) == ONE


async def rebooted(rig: Rig, site: Site) -> lxc_process.Found:
    """Reboot the guest from inside, and wait for its new init."""
    before = processes(site)
    async with typist(rig.backend, ONE) as desk:
        desk.send("reboot\n")
    async with asyncio.timeout(LONGEST_S):
        while (after := processes(site)).init in (before.init, None):
            await asyncio.sleep(0.05)
    return after


REBOOTS = """#!/bin/sh
[ -e /home/reboot ] || exec /bin/busybox init
sleep 0.3
/bin/busybox reboot -f
"""


class TestReboots:
    async def test_a_guest_that_does_nothing_else_is_ended(self, site: Site) -> None:
        await site.connect()
        rig = site.rig()
        guest = rig.guest()
        root = await rig.disks.clone_root(guest.mark, keep=False)
        await rig.disks.ensure_home(guest.mark, size_mib=None)
        (root / "sbin" / "init").unlink()
        (root / "sbin" / "init").write_text(REBOOTS)
        (root / "sbin" / "init").chmod(0o755)
        await rig.fences.fence(guest)
        await rig.backend.define(guest)
        await rig.backend.launch(ONE)
        (site.paths.homefs(ONE) / "reboot").touch()
        async with typist(rig.backend, ONE) as desk:
            desk.send("reboot\n")
        assert await departed(rig) == ONE
        assert lxc_process.find_all(site.installation) == {}
        await rig.remove(ONE)

    async def test_a_guest_that_rebooted_is_as_confined_as_before(self, site: Site) -> None:
        await site.connect()
        rig = site.rig()
        guest = await rig.start()
        groups = Cgroups(site.paths.cgroup)
        assert is_isolated(guest.interface)
        async with asyncio.TaskGroup() as tasks:
            following = tasks.create_task(departed(rig))
            after = await rebooted(rig, site)
            assert after.init is not None
            assert groups.unmet(after.init, lxc_config.limits(guest, groups.layout())) == []
            async with asyncio.timeout(LONGEST_S):
                while not is_isolated(guest.interface):
                    await asyncio.sleep(0.01)
            assert is_reached(str(guest.address.ip))
            assert not following.done()
            await rig.backend.kill(ONE)

    async def test_one_that_comes_back_without_a_limit_is_ended(self, site: Site) -> None:
        await site.connect()
        rig = site.rig()
        await rig.start()
        config = site.paths.lxc / lxc_config.name(site.installation, ONE) / "config"
        config.write_text(config.read_text().replace("pids.max = 500", "pids.max = 400"))
        async with asyncio.TaskGroup() as tasks:
            following = tasks.create_task(departed(rig))
            async with typist(rig.backend, ONE) as desk:
                desk.send("reboot\n")
            assert await following == ONE


def is_isolated(link: str) -> bool:
    """Whether there is such a port of a bridge, and it speaks to the bridge alone."""
    shown = subprocess.run(
        ["bridge", "-d", "-j", "link", "show", "dev", link], capture_output=True, text=True, check=False
    )
    return shown.returncode == 0 and all(port["isolated"] for port in json.loads(shown.stdout))


class TestLimits:
    async def test_they_are_in_force(self, site: Site) -> None:
        await site.connect()
        rig = site.rig()
        guest = await rig.start()
        groups = Cgroups(site.paths.cgroup)
        init = processes(site).init
        assert init is not None
        wanted = lxc_config.limits(guest, groups.layout())
        assert {limit.controller for limit in wanted} == {"memory", "cpu", "pids"}
        assert groups.unmet(init, wanted) == []

    async def test_a_guest_without_one_is_not_left_running(self, site: Site) -> None:
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
        self, site: Site, caplog: pytest.LogCaptureFixture
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
        self, site: Site, tmp_path: Path, caplog: pytest.LogCaptureFixture
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

    async def test_a_host_that_hides_its_control_groups_is_refused(self, site: Site, tmp_path: Path) -> None:
        hidden = Settings({"path.storage.root": str(site.paths.root), "path.cgroup": str(tmp_path)})
        with pytest.raises(BackendError, match=r"no control group for memory .*in-netns"):
            await Lxc(Paths(hidden), site.installation).check()

    async def test_the_guest_is_root_of_its_own_range_only(self, site: Site) -> None:
        await site.connect()
        rig = site.rig()
        guest = await rig.start()
        init = processes(site).init
        assert Path(f"/proc/{init}").stat().st_uid == guest.subid_first
        async with typist(rig.backend, ONE) as desk:
            assert await desk.type("id -u") == "0"
            assert "Operation not permitted" in await desk.type("ifconfig eth0 hw ether 54:52:00:00:00:01")
            assert "permission" in (await desk.type("ping -c1 10.44.0.1")).lower()


class TestDisks:
    async def test_a_file_in_the_root_goes_and_one_in_the_home_stays(self, site: Site) -> None:
        await site.connect()
        rig = site.rig()
        await rig.start()
        async with typist(rig.backend, ONE) as desk:
            await desk.type("touch /var/root-file /home/home-file; chown 1000:1000 /home/home-file")
        on_disk = (site.paths.homefs(ONE) / "home-file").stat()
        assert (on_disk.st_uid, on_disk.st_gid) == (1000, 1000)
        assert (site.paths.rootfs(ONE) / "var" / "root-file").stat().st_uid == 0
        await rig.backend.kill(ONE)
        await rig.start()
        async with typist(rig.backend, ONE) as desk:
            assert await desk.type("ls /var /home") == "/home:\nhome-file\n\n/var:"

    async def test_a_kept_root_keeps_its_files(self, site: Site) -> None:
        await site.connect()
        rig = site.rig()
        guest = rig.guest(keep_root=True)
        await rig.start(guest)
        async with typist(rig.backend, ONE) as desk:
            await desk.type("touch /var/root-file")
        await rig.backend.kill(ONE)
        await rig.start(guest)
        async with typist(rig.backend, ONE) as desk:
            assert await desk.type("ls /var") == "root-file"
            hosts = await desk.type("cat /etc/hosts")
        assert hosts.splitlines() == [
            "127.0.0.1\tlocalhost",
            "10.9.8.7\tprinter",
            "10.44.0.101\tdesk1.example.org desk1 # this desktop",
        ]

    async def test_no_link_of_a_guest_leads_the_host_astray(self, site: Site, tmp_path: Path) -> None:
        await site.connect()
        rig = site.rig()
        guest = rig.guest(keep_root=True)
        await rig.start(guest)
        victim = tmp_path / "victim"
        victim.write_text("untouched")
        async with typist(rig.backend, ONE) as desk:
            await desk.type(f"ln -sf {victim} /etc/hostname; ln -sf {victim} /etc/hosts")
            await desk.type(f"rm -f /etc/resolv.conf; ln -s {victim} /etc/resolv.conf")
        await rig.backend.kill(ONE)
        await rig.start(guest)
        assert victim.read_text() == "untouched"
        async with typist(rig.backend, ONE) as desk:
            assert await desk.type("cat /etc/hostname") == "desk1"
            assert await desk.type("cat /etc/resolv.conf") == "search example.org\nnameserver 10.44.0.1"

    async def test_nobody_else_gets_to_the_roots(self, site: Site) -> None:
        for folder in (site.paths.all_rootfs, site.paths.all_homefs, site.paths.all_basefs):
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700


class TestFailures:
    async def test_a_root_without_init_is_the_images_fault(self, site: Site) -> None:
        rig = site.rig()
        guest = rig.guest()
        root = await rig.disks.clone_root(guest.mark, keep=False)
        (root / "sbin" / "init").unlink()
        with pytest.raises(ImageError, match="no /sbin/init"):
            await rig.backend.define(guest)

    async def test_a_start_that_fails_says_why_and_leaves_nothing(self, site: Site) -> None:
        rig = site.rig()
        guest = rig.guest(bridge="nobridge")
        with pytest.raises(BackendError, match=r"did not start: .*(nobridge|network)"):
            await rig.start(guest)
        await rig.remove(ONE)

    async def test_the_boot_log_is_harmless(self, site: Site) -> None:
        await site.connect()
        rig = site.rig()
        await rig.start()
        async with typist(rig.backend, ONE) as desk:
            await desk.type(r"echo -e 'red \033[31mred\033[0m \033]0;title\007bell\007 end' >/dev/console")
        async with asyncio.timeout(LONGEST_S):
            while "end" not in (last := await rig.backend.console_tail(ONE, 1)):
                await asyncio.sleep(0.01)
        assert last == "red red bell end"
        assert "the tiny root has booted" in await rig.backend.console_tail(ONE, 5)

    async def test_the_login_has_one_holder(self, site: Site) -> None:
        await site.connect()
        rig, other = site.rig(), site.rig()
        await rig.start()
        await other.backend.adopt(other.guest())
        async with typist(rig.backend, ONE):
            with pytest.raises(BackendError, match="held by somebody else"):
                await other.backend.console(ONE).open()
        async with typist(other.backend, ONE) as desk:
            assert await desk.type("hostname") == "desk1"

    async def test_an_orderly_stop_lets_init_finish(self, site: Site) -> None:
        await site.connect()
        rig = site.rig()
        await rig.start()
        await rig.backend.stop(ONE)
        assert await departed(rig) == ONE
        assert "The system is going down NOW!" in await rig.backend.console_tail(ONE, 20)


async def test_many_come_and_go_at_once(site: Site) -> None:
    await site.connect()
    rig = site.rig()
    many = [VmId(number) for number in range(1, 13)]
    await asyncio.gather(*(rig.start(rig.guest(vm_id)) for vm_id in many))
    assert set(await rig.backend.survey()) == set(many)
    await asyncio.gather(*(rig.remove(vm_id) for vm_id in many))
    assert sorted([await departed(rig) for _ in many]) == many
    assert await rig.backend.survey() == {}


HOOK = b"#!/bin/sh\ntouch %b\n"
CONFIGURATION = """\
lxc.hook.pre-start = {marker}.sh
lxc.mount.entry = / mnt none bind 0 0
lxc.cap.keep = sys_admin
"""


async def test_nothing_that_an_image_holds_runs_on_the_host(site: Site, tmp_path: Path) -> None:
    """Programs and configurations where LXC, QVD (in extended images) and our own tools have theirs."""
    marker = tmp_path / "ran-on-the-host"
    hook, configuration = HOOK % bytes(marker), CONFIGURATION.format(marker=marker).encode()
    rig = site.rig()
    guest = rig.guest(keep_root=True)
    root = await rig.disks.clone_root(guest.mark, keep=False)
    for name in ("hooks/prestart", "hooks/poststart", "hooks/poststop", "usr/share/lxc/hooks/clonehostname"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(hook)
        (root / name).chmod(0o755)
    for name in ("lxc/config-extra", "lxc/fstab", "config", "etc/lxc/default.conf", "etc/lxc/lxc.conf"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(configuration)
    for program in ("sh", "mount", "nft", "ip", "setpriv", "unshare", "lxc-start"):
        (root / "usr" / "sbin").mkdir(exist_ok=True)
        (root / "usr" / "sbin" / program).write_bytes(hook)
        (root / "usr" / "sbin" / program).chmod(0o755)
    subprocess.run([root / "hooks" / "prestart"], check=True)
    marker.unlink()
    await site.connect()
    await rig.start(guest)
    written = (site.paths.lxc / lxc_config.name(site.installation, ONE) / "config").read_text()
    assert "hook" not in written
    assert "cap.keep" not in written
    async with typist(rig.backend, ONE) as desk:
        assert await desk.type("ls /mnt") == "ls: /mnt: No such file or directory"
    await rig.remove(ONE)
    assert not marker.exists()
