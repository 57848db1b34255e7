"""Sets an installation up: pool, directories, database, identity, certificate, the host's row.

Each step looks first and does only what is missing, so a second run changes nothing, and a run that
failed half-way is finished by the next.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

from appliance import config
from appliance.clock import Calendar
from appliance.config import Key, Settings
from appliance.errors import ConfigError, ConflictError, HostError, StoreError
from appliance.filters import Filter
from appliance.model import BackendKind, InstallationId
from appliance.ops import certificate, migration, pool, reset, vms
from appliance.storage.paths import Paths
from appliance.storage.settings import SSL_CERT, SSL_KEY
from appliance.storage.store import Store, Tx
from appliance.values import EVERY

TOOLS = {
    "lxc-start": "lxc",
    "btrfs": "btrfs-progs",
    "mkfs.btrfs": "btrfs-progs",
    "nft": "nftables",
    "tar": "tar",
    "mount": "mount",
}
"""What containers need, and the Debian package that brings it."""

MANDATORY: tuple[Key[Any], ...] = (config.NETWORK_IP_START, config.NETWORK_NETMASK, config.NETWORK_GATEWAY)

Consent = Callable[[str], bool]


async def install(settings: Settings, calendar: Calendar, *, by: str, consent: Consent) -> list[str]:
    """Do what is missing; returns a sentence for each thing done.

    :raises ApplianceError: something is missing or refused; all that is missing is named at once
    """
    settings = await _with_database(settings, calendar)
    reset.check_finished(Paths(settings))
    preflight(settings)
    done: list[str] = []
    if with_containers(settings) and pool.is_needed(settings):
        what = pool.describe(settings)
        if not consent(what):
            raise HostError("the storage is on no btrfs file system", hint="mount one at path.storage.root")
        await pool.make(settings)
        done.append(f"Pool: {what}.")
    done += make_directories(Paths(settings))
    url = settings[config.DATABASE_URL]
    done += migration.bring_up_to_date(settings)
    store = await Store.open(url, calendar)
    try:
        async with store.write() as tx:
            done += await _fill(tx, settings, by=by)
    finally:
        await store.close()
    return done


def with_containers(settings: Settings) -> bool:
    """Whether this host is to run containers: `nothing` needs neither pool nor tools."""
    return settings[config.VM_HYPERVISOR] != BackendKind.NOTHING


def preflight(settings: Settings) -> None:
    """Look for all that is missing.

    :raises HostError: naming everything, each with its remedy
    """
    missing = [*_wrong_settings(settings)]
    if with_containers(settings):
        missing += _missing_tools()
    if missing:
        raise HostError("this host is not ready: " + "; ".join(missing))


def make_directories(paths: Paths) -> list[str]:
    """Make the directories, and close the storage to everybody else."""
    made = []
    for directory in (paths.root, *paths.storage, paths.run, paths.lxc, paths.consoles):
        try:
            if not directory.is_dir():
                directory.mkdir(mode=0o755 if directory == paths.run else 0o700, parents=True)
                made.append(directory)
            elif directory == paths.root and directory.stat().st_mode & 0o067:
                # A setuid file that a guest's root makes is setuid root on the host as well.
                directory.chmod(0o700)
                made.append(directory)
        except OSError as exc:
            raise HostError(f"{directory} cannot be made: {exc.strerror}") from exc
    return [f"Directories: {', '.join(map(str, made))}."] if made else []


async def _fill(tx: Tx, settings: Settings, *, by: str) -> list[str]:
    done = []
    identity = InstallationId(secrets.token_hex(4))
    if await tx.settings.found_installation(identity, tx.at):
        await tx.log.append(by=by, what="admin init", object="installation", now=identity)
        done.append(f"Installation {identity} founded.")
    if await tx.settings.ssl(SSL_CERT) is None or await tx.settings.ssl(SSL_KEY) is None:
        names = server_names(settings)
        key, cert = certificate.self_signed(names, tx.at)
        await tx.settings.set_ssl({SSL_KEY: key.reveal(), SSL_CERT: cert})
        await tx.log.append(by=by, what="admin init", object="certificate", now=" ".join(names))
        done.append(f"Self-signed certificate made for {', '.join(names)}.")
    name = settings[config.NODENAME]
    if await tx.hosts.by_name(name) is None:
        address = own_address(settings)
        for other in await tx.hosts.find(Filter.where(address=address)):
            raise ConflictError(
                f"nodename = {name}, but the host with the address {address} is called {other.name}",
                hint=f"put nodename = {other.name} back into {settings.source}",
            )
        host_id = await tx.hosts.add(name, address)
        await tx.log.append(by=by, what="host add", object=f"host {host_id}", now=name)
        done.append(f"Host {name} registered.")
    return done


def server_names(settings: Settings) -> list[str]:
    """Every name and address under which clients may know this server, the node's name first."""
    names = [settings[config.NODENAME], socket.gethostname(), "localhost", "127.0.0.1", "::1"]
    names.append(str(settings[config.NETWORK_GATEWAY]))
    names += [address for address in settings[config.L7R_ADDRESS] if address not in EVERY]
    return list(dict.fromkeys(name for name in names if name))


def own_address(settings: Settings) -> str:
    """The address of this host in the table of nodes: that of the L7R, or of its way to the world."""
    with contextlib.suppress(ValueError):
        listening = ip_address(settings[config.L7R_ADDRESS][0])
        if not listening.is_unspecified:
            return str(listening)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, contextlib.suppress(OSError):
        # Connecting a datagram socket sends nothing; it only asks the routing table.
        probe.connect(("192.0.2.1", 9))
        return str(probe.getsockname()[0])
    return "127.0.0.1"


async def _with_database(settings: Settings, calendar: Calendar) -> Settings:
    """The settings under those of the database, if there is one already."""
    try:
        store = await Store.open(settings[config.DATABASE_URL], calendar)
    except StoreError:
        return settings
    try:
        async with store.read() as tx:
            return settings.with_database(await tx.settings.all())
    finally:
        await store.close()


def _wrong_settings(settings: Settings) -> list[str]:
    wrong = []
    for key in MANDATORY:
        try:
            _ = settings[key]
        except ConfigError as exc:
            wrong.append(str(exc))
    if not wrong:
        try:
            vms.check_network(settings)
            pool.size_bytes(settings)
        except ConfigError as exc:
            wrong.append(str(exc))
    return wrong


def _missing_tools() -> list[str]:
    missing = []
    if os.geteuid() != 0:
        missing.append("only root can set up containers")
    for tool, package in TOOLS.items():
        if shutil.which(tool) is None:
            missing.append(f"the program {tool} is missing (apt-get install {package})")
    return missing
