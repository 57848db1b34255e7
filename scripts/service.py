"""Renders what the service consists of besides the program: systemd units, and a first node.conf.

`scripts/setup --service` calls it; `render DIR` shows the units without installing anything.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv4Network
from pathlib import Path
from string import Template

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from appliance import config  # noqa: E402, the check-out is put on the path above
from appliance.clock import SystemClock  # noqa: E402
from appliance.config import Settings  # noqa: E402
from appliance.errors import ApplianceError, ConfigError  # noqa: E402
from appliance.model import BackendKind  # noqa: E402
from appliance.storage.db import database_file  # noqa: E402
from appliance.storage.paths import Paths  # noqa: E402
from appliance.storage.store import Store  # noqa: E402

TEMPLATES = ROOT / "packaging"
SERVICE = "qvd-appliance.service"
RUN = Path("/run")
PRIVILEGED_PORTS = 1024
LXC_RUN = "lxc"
"""The folder of LXC's own locks below /run."""
PROCESSES = "ProtectProc=invisible"
DEVICES = "PrivateDevices=yes"
MACHINES_PROCESSES = "# Not ProtectProc=: libvirtd starts QEMU, as another user, and the daemon looks for it."
MACHINES_DEVICES = """\
# For virtual machines, taps; and a trial guest tells whether KVM works.
DevicePolicy=closed
DeviceAllow=/dev/net/tun rw
DeviceAllow=/dev/kvm rw"""

NETWORKS = tuple(
    IPv4Network(network)
    for network in ("10.3.0.0/20", "10.44.0.0/20", "10.97.0.0/20", "172.29.0.0/20", "192.168.208.0/20")
)
"""Ranges for guests, in the order tried: private ones that few choose."""
FIRST_GUEST = 10
GIB = 2**30
LARGEST_POOL_GIB = 1024
BESIDE_THE_POOL = "/var/lib/qvd/qvd.db"
SMALLEST_POOL_GIB = 2


@dataclass(frozen=True, slots=True)
class Place:
    """Where the service runs from: the check-out with its environment, and its configuration."""

    checkout: Path
    config: Path

    @property
    def program(self) -> Path:
        """The daemon."""
        return self.checkout / ".venv" / "bin" / "qvd-appliance"


def render(place: Place, settings: Settings, *, machines: bool = False) -> dict[str, str]:
    """The units by name: the service, and the mount of its pool if there is one.

    With `machines` the service can run virtual machines, as it can if they are what new OSFs get.

    :raises ConfigError: a path cannot stand in a unit
    """
    paths = Paths(settings)
    build = fingerprint(place.checkout)
    runtime, writable = runtime_directories(paths.run), writable_paths(settings, paths)
    machines = machines or settings[config.VM_HYPERVISOR] is BackendKind.KVM
    capabilities = []
    if machines or settings[config.L7R_PORT] < PRIVILEGED_PORTS:
        capabilities.append("CAP_NET_BIND_SERVICE")
    if machines:
        capabilities += ["CAP_CHOWN", "CAP_KILL"]
    for path in (place.checkout, place.config, paths.root, settings[config.POOL_FILE], *writable):
        check_writable_in_unit(path)
    units = {
        SERVICE: filled(
            "qvd-appliance.service.in",
            checkout=place.checkout,
            program=place.program,
            config=place.config,
            mounts=paths.root,
            build=build,
            runtime_directories=" ".join(runtime),
            writable=" ".join(map(str, writable)),
            capabilities="".join(f" {capability}" for capability in capabilities),
            wanted=" libvirtd.service" if machines else "",
            processes=MACHINES_PROCESSES if machines else PROCESSES,
            devices=MACHINES_DEVICES if machines else DEVICES,
        )
    }
    if settings[config.POOL_FILE].exists():
        units[mount_unit(paths.root)] = filled(
            "pool.mount.in",
            checkout=place.checkout,
            pool=settings[config.POOL_FILE],
            mounts=paths.root,
            build=build,
        )
    return units


async def has_machines(settings: Settings) -> bool:
    """Whether the database asks for virtual machines; false if there is none yet.

    :raises ApplianceError: it cannot be read
    """
    url = settings[config.DATABASE_URL]
    if not database_file(url).exists():
        return False
    store = await Store.open(url, SystemClock())
    try:
        async with store.read() as tx:
            usual = settings.with_database(await tx.settings.all())[config.VM_HYPERVISOR]
            kinds = {usual, *(osf.backend for osf in await tx.osfs.find())}
    finally:
        await store.close()
    return BackendKind.KVM in kinds


def filled(template: str, **values: object) -> str:
    """A template of packaging/ with its blanks filled."""
    return Template((TEMPLATES / template).read_text()).substitute(values)


def mount_unit(where: Path) -> str:
    """The name that systemd demands of the unit that mounts something at `where`."""
    named = subprocess.run(
        ["systemd-escape", "--path", "--suffix=mount", str(where)], check=True, capture_output=True, text=True
    )
    return named.stdout.strip()


def runtime_directories(run: Path) -> list[str]:
    """What systemd is to make below /run: our directory, if it is to be there, and LXC's."""
    resolved = run.resolve()
    ours = [str(resolved.relative_to(RUN))] if resolved.is_relative_to(RUN) and resolved != RUN else []
    return [*ours, LXC_RUN]


def writable_paths(settings: Settings, paths: Paths) -> list[Path]:
    """What the daemon writes to besides its runtime directory: the topmost directories."""
    wanted = {paths.root, *paths.storage, database_file(settings[config.DATABASE_URL]).parent}
    if file := settings[config.LOG_FILENAME]:
        wanted.add(file.parent)
    for folder in (paths.run, paths.lxc, paths.kvm, paths.control.parent, paths.ssl.parent):
        if not folder.resolve().is_relative_to(RUN):
            wanted.add(folder)
    return sorted(path for path in wanted if not any(parent in wanted for parent in path.parents))


def check_writable_in_unit(path: Path) -> None:
    """:raises ConfigError: systemd would read the path as something else."""
    if any(letter in str(path) for letter in " \t\n\"'\\%$:"):
        raise ConfigError(
            f"{path} cannot be written in a unit of systemd",
            hint="choose a path without blanks, quotes, colons, % and $",
        )


def fingerprint(checkout: Path) -> str:
    """A name for the program as it is now: another one means that the service must be restarted."""
    digest = hashlib.sha256()
    files = [checkout / "pyproject.toml", *sorted((checkout / "appliance").rglob("*.py"))]
    for file in files:
        digest.update(f"{file.relative_to(checkout)}\0".encode())
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:16]


# --- the first node.conf --------------------------------------------------------------------------


def first_configuration(
    *, node: str, network: IPv4Network, resolver: str | None, pool_gib: int | None
) -> str:
    """A node.conf for one server, with what every installation must decide."""
    lines = [
        "# QVD appliance: settings of this node, written by scripts/setup --service. Yours from now on.",
        "# `qa config get` shows all of them; those in the database win over this file.",
        "",
        "# The name of this node, as in `qa host list`: it stays, whatever the machine is called.",
        f"nodename = {node}",
        "",
        "# The network of the desktops: private to this machine, and free here when this was written.",
        f"vm.network.gateway = {network.network_address + 1}",
        f"vm.network.netmask = {network.netmask}",
        f"vm.network.ip.start = {network.network_address + FIRST_GUEST}",
        "",
        "# Beside the pool and not on it: a pool that desktops have filled does not stop the appliance.",
        f"database.url = sqlite:///{BESIDE_THE_POOL}",
    ]
    if resolver:
        lines += [
            "",
            "# Who tells the desktops the addresses of names.",
            f"vm.network.dns_server = {resolver}",
        ]
    if pool_gib is not None:
        lines += [
            "",
            "# How large the pool of images, roots and homes may grow. Taken from the disk as it is filled.",
            f"storage.pool.size = {pool_gib}G",
        ]
    return "\n".join((*lines, ""))


def free_network(taken: Iterable[IPv4Network]) -> IPv4Network:
    """The first of our ranges that overlaps nothing that is reached from here.

    :raises ConfigError: there is none
    """
    used = list(taken)
    for network in NETWORKS:
        if not any(network.overlaps(other) for other in used):
            return network
    raise ConfigError(
        "no range is free for the desktops: this machine reaches all that were tried",
        hint="write vm.network.gateway, .netmask and .ip.start into /etc/qvd/node.conf yourself",
    )


def destinations(routes: Iterable[Mapping[str, object]]) -> Iterator[IPv4Network]:
    """Where the routes of `ip -json route` lead, but for the one that leads everywhere."""
    for route in routes:
        try:
            network = IPv4Network(str(route.get("dst")), strict=False)
        except (AddressValueError, ValueError):
            continue
        if network.prefixlen > 0:
            yield network


def resolver_of(resolv_conf: str) -> str | None:
    """The first resolver that desktops can reach as well: not one of this machine's loopback."""
    for line in resolv_conf.splitlines():
        words = line.split()
        if len(words) > 1 and words[0] == "nameserver":
            try:
                address = IPv4Address(words[1])
            except AddressValueError:
                continue
            if not address.is_loopback:
                return str(address)
    return None


def pool_size_gib(free_bytes: int) -> int:
    """How large a pool file may become: what leaves the system a third of the free space."""
    return max(SMALLEST_POOL_GIB, min(LARGEST_POOL_GIB, free_bytes * 2 // 3 // GIB))


def observed_configuration() -> str:
    """A first node.conf for this machine as it is."""
    asked = ["ip", "-4", "-json", "route", "show", "table", "all"]
    routes = json.loads(subprocess.run(asked, check=True, capture_output=True).stdout or b"[]")
    resolv_conf = Path("/etc/resolv.conf")
    storage = config.PATH_STORAGE_ROOT.default
    assert storage is not None
    return first_configuration(
        node=socket.gethostname(),
        network=free_network(destinations(routes)),
        resolver=resolver_of(resolv_conf.read_text(errors="replace") if resolv_conf.exists() else ""),
        pool_gib=None if Path(storage).is_mount() else pool_size_gib(shutil.disk_usage("/var/lib").free),
    )


def write_configuration(file: Path) -> str | None:
    """Write a first node.conf unless there is one; what was chosen, as a sentence, or None.

    :raises ConfigError: no range is free
    """
    if file.exists():
        return None
    text = observed_configuration()
    file.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    fresh = file.with_name(f".{file.name}.new")
    fresh.write_text(text)
    fresh.chmod(0o600)
    fresh.rename(file)
    chosen = [line for line in text.splitlines() if line and not line.startswith("#")]
    return f"{file}: {', '.join(chosen)}"


def write_units(directory: Path, units: Mapping[str, str]) -> list[str]:
    """Write the units that differ from what is there; their names."""
    directory.mkdir(parents=True, exist_ok=True)
    changed = []
    for name, text in units.items():
        file = directory / name
        if file.is_file() and file.read_text() == text:
            continue
        fresh = directory / f".{name}.new"
        fresh.write_text(text)
        fresh.chmod(0o644)
        fresh.rename(file)
        changed.append(name)
    return changed


def main() -> int:
    """`service.py render DIR | node-conf [--config FILE]`; prints what it wrote, one to a line."""
    parser = argparse.ArgumentParser(prog="scripts/service.py", description=__doc__)
    parser.add_argument("--config", type=Path, default=Path("/etc/qvd/node.conf"), metavar="FILE")
    verbs = parser.add_subparsers(dest="verb", required=True)
    rendering = verbs.add_parser("render", help="write the units into DIR; print those that changed")
    rendering.add_argument("directory", type=Path, metavar="DIR")
    verbs.add_parser("node-conf", help="write a first node.conf unless there is one")
    words = parser.parse_args()
    try:
        if words.verb == "render":
            place = Place(checkout=ROOT, config=words.config.absolute())
            settings = config.read_file(words.config)
            units = render(place, settings, machines=asyncio.run(has_machines(settings)))
            for name in write_units(words.directory, units):
                print(name)
        elif chosen := write_configuration(words.config):
            print(chosen)
    except (ApplianceError, OSError) as failure:
        print(f"service: {failure}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
