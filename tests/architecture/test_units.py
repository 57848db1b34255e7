"""The units of the service: what systemd says of them, and what they must say."""

from __future__ import annotations

import re
import subprocess
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from appliance.config import Settings
from appliance.errors import ConfigError
from scripts.service import (
    NETWORKS,
    ROOT,
    SERVICE,
    Place,
    destinations,
    first_configuration,
    free_network,
    pool_size_gib,
    render,
    resolver_of,
    write_units,
)

EXPOSURE = re.compile(r"Overall exposure level for \S+: ([\d.]+)")


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    file = tmp_path / "pool.btrfs"
    file.touch()
    return file


@pytest.fixture
def settings(pool: Path) -> Settings:
    return Settings({"storage.pool.file": str(pool)})


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """This check-out, which has a program to start, with a configuration of its own."""
    return Place(checkout=ROOT, config=tmp_path / "node.conf")


def directives(unit: str) -> dict[str, str]:
    """The directives of a unit; of those given more than once, all values."""
    found: dict[str, str] = {}
    for line in unit.splitlines():
        name, assigned, value = line.partition("=")
        if assigned and not line.startswith("#"):
            found[name] = f"{found[name]} {value}" if name in found else value
    return found


class TestSystemd:
    def test_finds_no_fault_with_any_unit(self, place: Place, settings: Settings, tmp_path: Path) -> None:
        units = tmp_path / "system"
        assert sorted(write_units(units, render(place, settings))) == [SERVICE, "var-lib-qvd-storage.mount"]

        said = analyze("verify", *map(str, units.iterdir()))

        assert said == ""

    def test_notices_a_fault(self, place: Place, settings: Settings, tmp_path: Path) -> None:
        units = {name: text.replace("KillMode", "KilMode") for name, text in render(place, settings).items()}
        write_units(tmp_path / "system", units)

        assert "KilMode" in analyze("verify", str(tmp_path / "system" / SERVICE))

    def test_finds_the_service_little_exposed(self, place: Place, settings: Settings, tmp_path: Path) -> None:
        write_units(tmp_path, render(place, settings))

        said = analyze("security", "--offline=true", "--no-pager", str(tmp_path / SERVICE))

        match = EXPOSURE.search(said)
        assert match is not None, said
        assert float(match.group(1)) < 5


class TestService:
    def test_leaves_the_guests_alone_and_waits_for_its_pool(self, place: Place, settings: Settings) -> None:
        unit = directives(render(place, settings)[SERVICE])

        assert unit["Type"] == "notify"
        assert unit["KillMode"] == "process"
        assert unit["RuntimeDirectoryPreserve"] == "yes"
        assert unit["RequiresMountsFor"] == "/var/lib/qvd/storage"
        assert "network-online.target" in unit["After"]

    def test_holds_nothing_that_desktops_would_suffer_from(self, place: Place, settings: Settings) -> None:
        unit = directives(render(place, settings)[SERVICE])

        inherited = ("NoNewPrivileges", "RestrictNamespaces", "RestrictSUIDSGID", "MemoryDenyWriteExecute")
        assert not unit.keys() & {*inherited, "ProtectHostname", "OOMScoreAdjust", "Nice"}
        assert "ptrace" not in unit["SystemCallFilter"]
        assert "@reboot" not in unit["SystemCallFilter"]

    def test_may_write_where_the_settings_say(self, place: Place, tmp_path: Path) -> None:
        moved = Settings(
            {
                "path.storage.root": "/srv/qvd",
                "path.storage.homefs": "/home2/qvd",
                "path.run": "/srv/run",
                "log.filename": "/var/log/qvd/appliance.log",
            }
        )

        unit = directives(render(place, moved)[SERVICE])

        assert unit["ReadWritePaths"].split() == [
            *("/home2/qvd", "/srv/qvd", "/srv/run", "/var/log/qvd"),
            *("/proc/sys/net", "-/sys/fs/btrfs"),
        ]
        assert unit["RuntimeDirectory"] == "lxc"
        assert unit["RequiresMountsFor"] == "/srv/qvd"

    @pytest.mark.parametrize(("key", "value"), [("l7r.port", "443"), ("vm.hypervisor", "kvm")])
    def test_may_open_a_low_port_if_it_has_to(
        self, place: Place, settings: Settings, key: str, value: str
    ) -> None:
        low = Settings({**settings.written, key: value})

        assert "CAP_NET_BIND_SERVICE" in directives(render(place, low)[SERVICE])["CapabilityBoundingSet"]
        usual = directives(render(place, settings)[SERVICE])["CapabilityBoundingSet"]
        assert "CAP_NET_BIND_SERVICE" not in usual

    @pytest.mark.parametrize("usual", [True, False])
    def test_reaches_virtual_machines_if_there_are_any(
        self, place: Place, settings: Settings, tmp_path: Path, usual: bool
    ) -> None:
        chosen = Settings({**settings.written, **({"vm.hypervisor": "kvm"} if usual else {})})
        units = render(place, chosen, machines=not usual)
        unit, without = directives(units[SERVICE]), directives(render(place, settings)[SERVICE])

        assert unit["DeviceAllow"].split() == ["/dev/net/tun", "rw", "/dev/kvm", "rw"]
        assert unit["DevicePolicy"] == "closed"
        assert "libvirtd.service" in unit["Wants"]
        assert {"CAP_CHOWN", "CAP_KILL"} <= {*unit["CapabilityBoundingSet"].split()}
        assert not {"PrivateDevices", "ProtectProc"} & unit.keys()
        assert not {"CAP_CHOWN", "CAP_KILL"} & {*without["CapabilityBoundingSet"].split()}
        assert without["PrivateDevices"] == "yes"
        assert without["ProtectProc"] == "invisible"
        assert "libvirtd.service" not in without["Wants"]
        write_units(tmp_path / "system", units)
        assert analyze("verify", str(tmp_path / "system" / SERVICE)) == ""

    def test_is_the_same_until_the_program_changes(self, tmp_path: Path, settings: Settings) -> None:
        (tmp_path / "appliance").mkdir()
        module = tmp_path / "appliance" / "module.py"
        module.write_text("one = 1\n")
        (tmp_path / "pyproject.toml").touch()
        place = Place(checkout=tmp_path, config=tmp_path / "node.conf")
        before = render(place, settings)

        assert render(place, settings) == before
        module.write_text("one = 2\n")
        assert render(place, settings)[SERVICE] != before[SERVICE]

    def test_is_refused_where_a_path_would_be_misread(self, settings: Settings, tmp_path: Path) -> None:
        (tmp_path / "pyproject.toml").touch()
        odd = Place(checkout=tmp_path, config=Path("/etc/a directory/node.conf"))

        with pytest.raises(ConfigError, match="cannot be written in a unit"):
            render(odd, settings)

    def test_has_no_mount_without_a_pool_file(self, place: Place, pool: Path, settings: Settings) -> None:
        pool.unlink()

        assert list(render(place, settings)) == [SERVICE]

    def test_writes_only_units_that_differ(self, place: Place, settings: Settings, tmp_path: Path) -> None:
        units = render(place, settings)
        write_units(tmp_path, units)

        assert write_units(tmp_path, units) == []
        (tmp_path / SERVICE).write_text("[Service]\n")
        assert write_units(tmp_path, units) == [SERVICE]


class TestFirstConfiguration:
    def test_says_what_must_be_decided(self) -> None:
        text = first_configuration(
            node="qvd1", network=IPv4Network("10.3.0.0/20"), resolver="192.0.2.53", pool_gib=40
        )

        assert [line for line in text.splitlines() if line and not line.startswith("#")] == [
            "nodename = qvd1",
            "vm.network.gateway = 10.3.0.1",
            "vm.network.netmask = 255.255.240.0",
            "vm.network.ip.start = 10.3.0.10",
            "database.url = sqlite:////var/lib/qvd/qvd.db",
            "vm.network.dns_server = 192.0.2.53",
            "storage.pool.size = 40G",
        ]

    @pytest.mark.parametrize(
        ("reached", "free"),
        [
            ([], "10.3.0.0/20"),
            (["10.3.15.0/24"], "10.44.0.0/20"),
            (["10.0.0.0/8"], "172.29.0.0/20"),
            (["10.0.0.0/8", "172.16.0.0/12"], "192.168.208.0/20"),
        ],
    )
    def test_takes_a_network_that_nobody_reaches(self, reached: list[str], free: str) -> None:
        assert free_network(map(IPv4Network, reached)) == IPv4Network(free)

    def test_says_that_none_is_free(self) -> None:
        with pytest.raises(ConfigError, match="no range is free"):
            free_network(NETWORKS)

    def test_reads_routes(self) -> None:
        routes = [{"dst": "default"}, {"dst": "10.1.0.0/16"}, {"dst": "192.0.2.7"}, {}]

        assert list(destinations(routes)) == [IPv4Network("10.1.0.0/16"), IPv4Network("192.0.2.7/32")]

    def test_takes_a_resolver_that_desktops_reach(self) -> None:
        conf = "search example.org\nnameserver 127.0.0.53\nnameserver fe80::1%eth0\nnameserver 192.0.2.1\n"

        assert resolver_of(conf) == "192.0.2.1"
        assert resolver_of("nameserver 127.0.0.1\n") is None

    @pytest.mark.parametrize(("free_gib", "size"), [(1, 2), (30, 20), (90, 60), (9000, 1024)])
    def test_leaves_the_system_some_of_the_disk(self, free_gib: int, size: int) -> None:
        assert pool_size_gib(free_gib * 2**30) == size


def analyze(*words: str) -> str:
    """All that systemd-analyze says."""
    said = subprocess.run(
        ["systemd-analyze", *words], capture_output=True, text=True, check=False, timeout=60
    )
    return said.stdout + said.stderr
