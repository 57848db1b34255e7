"""Settings: a typed registry of dotted keys, the reader of node.conf, and the look-up order.

A key is declared once with its parser, its default and a sentence; `qa config` and the manual page
come from these declarations. Look-up: database > file > default, except that `nodename`,
`database.*`, `log.*` and `path.*` are the file's alone (protocol.md 6). Defaults and values may
refer to other keys as `${other.key}`.
"""

from __future__ import annotations

import difflib
import os
import re
import socket
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Generic, TypeVar

import javaproperties

from appliance.errors import ConfigError
from appliance.model import HookEvent
from appliance.qvd_keys import QVD_KEYS, WITHOUT_EFFECT
from appliance.scalars import (
    backend,
    boolean,
    count,
    days,
    limit_mib,
    log_level,
    natural,
    optional,
    optional_path,
    path,
    port,
    prefix_length,
    seconds,
)
from appliance.values import (
    addresses,
    choice,
    ciphers,
    hook,
    link_name,
    mac_prefix,
    one_of,
    portion,
    size_bytes,
    tls_versions,
    without_passwords,
)

T = TypeVar("T")

REGISTRY: dict[str, Key[object]] = {}
FILE_ONLY = ("nodename", "database.", "log.", "path.")
NEAR = 0.85
"""How alike (difflib's ratio) an unknown name is to a declared one to be taken for a slip."""
SECRET_NAME = re.compile(r"passw(or)?d|secret|salt", re.IGNORECASE)
REFERENCE = re.compile(r"\$\{([^}]*)\}")


@dataclass(frozen=True, slots=True)
class Key(Generic[T]):
    """One setting: how its text is read, what holds when nobody sets it, and what it is for."""

    name: str
    parse: Callable[[str], T]
    default: str | None
    doc: str

    @property
    def file_only(self) -> bool:
        """Whether only node.conf may set it: it is needed before the database can be read."""
        return is_file_only(self.name)


def is_file_only(name: str) -> bool:
    """Whether the database may not set the key `name`."""
    return name.startswith(FILE_ONLY)


def is_hidden(name: str) -> bool:
    """Whether a key is for experts: shown only when asked for by name."""
    return name.startswith("internal.")


def is_secret(name: str) -> bool:
    """Whether the value of a key must not be shown (trap T38)."""
    return SECRET_NAME.search(name) is not None


def is_without_effect(name: str) -> bool:
    """Whether a key is one of QVD's that is accepted and ignored."""
    return name.startswith(WITHOUT_EFFECT) or name in QVD_KEYS


def vetted(names: Iterable[str], source: str) -> list[str]:
    """Warnings about names that are set but not declared here.

    :raises ConfigError: a name looks like a slip of a declared one
    """
    warnings = []
    for name in names:
        if name in REGISTRY or name.startswith(SSH_OPTION):
            continue
        if is_without_effect(name):
            warnings.append(f"{name} (in {source}) has no effect in this version")
        elif near := difflib.get_close_matches(name.lower(), REGISTRY, n=1, cutoff=NEAR):
            raise ConfigError(f"there is no setting {name} (in {source})", hint=f"did you mean {near[0]}?")
        else:
            warnings.append(f"{name} (in {source}) is not a setting of this version: kept, but not used")
    return warnings


def declare(name: str, parse: Callable[[str], T], default: str | None, doc: str) -> Key[T]:
    """Add a key to the registry. Without a default, it must be set before it is read."""
    key = Key(name, parse, default, doc)
    REGISTRY[name] = key  # type: ignore[assignment]
    return key


@dataclass(frozen=True, slots=True)
class Said:
    """What the sources say about a key, as written, the strongest first."""

    database: str | None
    file: str | None
    default: str | None

    @property
    def winner(self) -> str | None:
        """The strongest source that says anything."""
        sources = (("database", self.database), ("file", self.file), ("default", self.default))
        return next((source for source, text in sources if text is not None), None)


class Settings:
    """The values in force: `settings[KEY]` is typed, `settings.text(name)` is what was written."""

    def __init__(
        self, file: Mapping[str, str], database: Mapping[str, str] | None = None, *, source: str = "node.conf"
    ) -> None:
        self._file = dict(file)
        self._database = dict(database or {})
        self._source = source

    def with_database(self, database: Mapping[str, str]) -> Settings:
        """The same file under other rows of `configs`."""
        return Settings(self._file, database, source=self._source)

    def __getitem__(self, key: Key[T]) -> T:
        """The value of a declared key.

        :raises ConfigError: it is not set, or what is set cannot be read
        """
        written, where = self._look_up(key.name)
        if written is None:
            raise ConfigError(
                f"{key.name} is not set", hint=f"set it in {self._source} or with qa config set"
            )
        text = self._expanded(written, (key.name,))
        try:
            return key.parse(text)
        except ValueError as exc:
            raise ConfigError(
                f"{key.name} = {without_passwords(text)!r} (from {where}) is wrong: {exc}"
            ) from exc

    def text(self, name: str) -> str | None:
        """The text in force for any key, references resolved; None if it is set nowhere."""
        written, _ = self._look_up(name)
        return None if written is None else self._expanded(written, (name,))

    def checked(self) -> Settings:
        """These settings, if all that is written in them can be read.

        :raises ConfigError: the first that cannot
        """
        for name in (*self._file, *self._database):
            if declared := REGISTRY.get(name):
                _ = self[declared]
        return self

    @property
    def written(self) -> Mapping[str, str]:
        """What the file says, with `source` as its name."""
        return self._file

    @property
    def source(self) -> str:
        """The name of the file."""
        return self._source

    def names(self) -> list[str]:
        """Every key that is declared or set, sorted."""
        return sorted({*REGISTRY, *self._file, *self._database})

    def said(self, name: str) -> Said:
        """What each source says about a key, as it is written there."""
        declared = REGISTRY.get(name)
        return Said(
            None if is_file_only(name) else self._database.get(name),
            self._file.get(name),
            declared.default if declared else None,
        )

    def _look_up(self, name: str) -> tuple[str | None, str]:
        if name in self._database and not is_file_only(name):
            return self._database[name], "the database"
        if name in self._file:
            return self._file[name], self._source
        declared = REGISTRY.get(name)
        return (declared.default if declared else None), "the defaults"

    def _expanded(self, text: str, chain: tuple[str, ...]) -> str:
        def value(match: re.Match[str]) -> str:
            name = match.group(1)
            if name in chain:
                raise ConfigError(f"{chain[0]} refers to itself through {' -> '.join((*chain, name))}")
            written, _ = self._look_up(name)
            if written is None:
                raise ConfigError(f"{chain[-1]} refers to {name}, which is not set")
            return self._expanded(written, (*chain, name))

        return REFERENCE.sub(value, text)


def find_file(given: Path | None) -> Path:
    """The node.conf to read: the one given, else `$QVD_CONFIG`, else the usual place (interfaces.md)."""
    return given or Path(os.environ.get("QVD_CONFIG") or "/etc/qvd/node.conf")


def read_file(file: Path) -> Settings:
    """The settings of a node.conf, before the database is known.

    :raises ConfigError: it is missing or not in the properties syntax
    """
    try:
        with file.open(encoding="utf-8") as stream:
            values = javaproperties.load(stream)
    except FileNotFoundError as exc:
        raise ConfigError(
            f"there is no configuration file {file}", hint="give --config FILE or set QVD_CONFIG"
        ) from exc
    except (OSError, ValueError) as exc:
        raise ConfigError(f"the configuration file {file} cannot be read: {exc}") from exc
    return Settings(values, source=str(file))


NODENAME = declare("nodename", str, socket.gethostname(), "Name of this node, as in the table hosts.")
DATABASE_URL = declare("database.url", str, "sqlite:///${path.storage.root}/qvd.db", "Where the database is.")
LOG_LEVEL = declare("log.level", log_level, "INFO", "ALL, DEBUG, INFO, WARN, ERROR, FATAL or OFF.")
LOG_FILENAME = declare(
    "log.filename", optional_path, "", "A file that receives the log besides stderr; empty for none."
)

PATH_RUN = declare("path.run", path, "/var/run/qvd", "Sockets, locks and pid files.")
PATH_LOG = declare("path.log", path, "/var/log", "Directory of log files.")
PATH_CONTROL = declare("path.control", path, "${path.run}/appliance.sock", "The control socket.")
PATH_STORAGE_ROOT = declare("path.storage.root", path, "/var/lib/qvd/storage", "Root of everything stored.")
PATH_STORAGE_STAGING = declare(
    "path.storage.staging", path, "${path.storage.root}/staging", "Uploaded images."
)
PATH_STORAGE_IMAGES = declare(
    "path.storage.images", path, "${path.storage.root}/images", "Registered images."
)
PATH_STORAGE_BASEFS = declare("path.storage.basefs", path, "${path.storage.root}/basefs", "Unpacked images.")
PATH_STORAGE_ROOTFS = declare("path.storage.rootfs", path, "${path.storage.root}/rootfs", "Running roots.")
PATH_STORAGE_HOMEFS = declare("path.storage.homefs", path, "${path.storage.root}/homefs", "Homes.")
PATH_STORAGE_OVERLAYS = declare(
    "path.storage.overlays", path, "${path.storage.root}/overlays", "Running roots of virtual machines."
)
PATH_STORAGE_HOMES = declare(
    "path.storage.homes", path, "${path.storage.root}/homes", "Homes of virtual machines' users."
)
PATH_STORAGE_KEPT = declare("path.storage.kept", path, "${path.storage.root}/kept", "Roots put aside.")
PATH_STORAGE_TRASH = declare(
    "path.storage.trash", path, "${path.storage.root}/trash", "Deleted things, for a while."
)
PATH_SERIAL_CAPTURES = declare(
    "path.serial.captures",
    path,
    "${path.storage.root}/captures",
    "What consoles have shown, with vm.serial.capture.",
)
PATH_RUN_LXC = declare("path.run.lxc", path, "${path.run}/lxc", "Configurations of containers.")
PATH_RUN_KVM = declare(
    "path.run.kvm", path, "${path.run}/kvm", "Sockets and domains of virtual machines; at most 80 characters."
)
PATH_SSL = declare(
    "path.l7r.ssl", path, "${path.run}/l7r/ssl", "Where the TLS files are written (mode 0700)."
)
PATH_CGROUP = declare("path.cgroup", path, "/sys/fs/cgroup", "Mount point of the control groups.")

POOL_FILE = declare(
    "storage.pool.file", path, "/var/lib/qvd/pool.btrfs", "File of the btrfs pool, if one is made."
)
POOL_SIZE = declare("storage.pool.size", str, "20G", "Size of that file.")
POOL_QUOTA = declare(
    "storage.pool.quota",
    choice("auto", "qgroup", "simple", "none"),
    "auto",
    "How the pool counts what guests use: simple for simple quotas, which cost next to nothing, but Linux"
    " before 6.7 cannot read such a pool; qgroup for full qgroups; auto for simple on a new pool where the"
    " kernel has them, else qgroup; none for no limits.",
)
POOL_RESERVE = declare(
    "storage.pool.reserve",
    portion,
    "5%",
    "What guests leave of the pool for the host; a share is 256 MiB or more, and never more than a quarter.",
)
POOL_ALARM = declare(
    "storage.pool.alarm",
    portion,
    "10%",
    "An alarm is raised when less of the pool is free beside the reserve, or of its disk.",
)
IMPORT_MAX_SIZE = declare(
    "storage.import.max_size", size_bytes, "64g", "Most that an image may unpack to, or its disk may have."
)
IMPORT_MAX_FILES = declare("storage.import.max_files", count, "1000000", "Most files that an image may hold.")
KEPT_HOME_DAYS = declare(
    "storage.homes.kept.days", days, "30", "For how many days the home of a deleted VM is kept."
)
HOME_SNAPSHOTS = declare(
    "storage.homes.snapshots",
    natural,
    "3",
    "How many snapshots of each home are kept; one is taken before a VM changes its image. 0: none is taken.",
)
STORAGE_DELAY = declare(
    "internal.hkd.storage.delay", seconds, "10", "Pause between looks at the pool's free space."
)
SURVEY_DELAY = declare(
    "internal.hkd.survey.delay", seconds, "3600", "Pause between searches for what was left behind."
)

L7R_ADDRESS = declare(
    "l7r.address",
    addresses,
    "*",
    "Addresses on which the L7R listens, separated by commas: * for all of IPv4 and IPv6, 0.0.0.0 or :: for"
    " all of one.",
)
L7R_PORT = declare("l7r.port", port, "8443", "TCP port on which the L7R listens.")
L7R_USE_SSL = declare("l7r.use_ssl", boolean, "1", "Whether clients speak TLS.")
L7R_SSL_VERSION = declare(
    "l7r.ssl.options.SSL_version",
    tls_versions,
    "TLSv1_2:TLSv1_3",
    "TLS versions that clients may speak. SSLv23:!SSLv2:!SSLv3 lets clients of before 2014 in, whose TLS 1.0"
    " is weak.",
)
L7R_SSL_CIPHERS = declare(
    "l7r.ssl.options.SSL_cipher_list",
    ciphers,
    "",
    "Ciphers of TLS 1.2 and before, in OpenSSL's words; empty for the library's choice.",
)
L7R_CLIENT_CERT = declare(
    "l7r.client.cert.require",
    boolean,
    "0",
    "Whether clients must have a certificate of the authority that qa config ssl ca= names.",
)
L7R_AUTH_PLUGINS = declare(
    "l7r.auth.plugins", one_of("default"), "default", "Authenticators, in the order tried."
)
LOGIN_CASE_SENSITIVE = declare(
    "model.user.login.case-sensitive", boolean, "0", "Whether case matters in logins."
)
L7R_TIMEOUT_VM_START = declare(
    "internal.l7r.timeout.vm_start", seconds, "270", "Longest wait for a VM to run."
)
L7R_TIMEOUT_X_START = declare("internal.l7r.timeout.x_start", seconds, "10", "Longest wait for X to listen.")
L7R_TIMEOUT_VMA = declare("internal.l7r.timeout.vma", seconds, "4", "Longest wait for an answer of the VMA.")
L7R_TIMEOUT_TAKEOVER = declare(
    "internal.l7r.timeout.takeover", seconds, "30", "Longest wait for the other client."
)
L7R_RETRY_X_START = declare("internal.l7r.retry.x_start", natural, "20", "Further attempts at starting X.")
L7R_POLL_X = declare("internal.l7r.poll_time.x", seconds, "1", "Pause between looks at the X session.")
L7R_POLL_VM = declare(
    "internal.l7r.poll_time.vm", seconds, "2", "Pause between looks at a VM nobody announced."
)
L7R_TIMEOUT_IDLE = declare(
    "internal.l7r.timeout.idle", seconds, "1800", "Idle limit of a connection before NX."
)
L7R_TIMEOUT_VM_STOP = declare(
    "internal.l7r.timeout.vm_stop", seconds, "270", "Longest wait for a VM to stop."
)
L7R_SHORT_SESSION = declare(
    "internal.l7r.short_session", seconds, "120", "A session below this is counted as short."
)
L7R_MAX_CONNECTIONS = declare(
    "internal.l7r.max_connections", count, "2000", "How many clients may be connected at once."
)
L7R_MAX_PER_ADDRESS = declare(
    "internal.l7r.max_connections_per_address",
    count,
    "1000",
    "How many of them may come from one address (in IPv6: one /64); a gateway of all clients needs all.",
)
L7R_MAX_STRANGERS = declare(
    "internal.l7r.max_strangers_per_address",
    count,
    "250",
    "How many connections of one address may be without a successful log-in.",
)

VM_HYPERVISOR = declare("vm.hypervisor", backend, "lxc", "Backend of an OSF that names none.")
KVM_ACCEL = declare(
    "vm.kvm.accel",
    choice("auto", "kvm", "tcg"),
    "auto",
    "What runs the processors of virtual machines: kvm, by this host's own; tcg, by software, several times"
    " slower; auto for kvm if a trial at start shows that guests run on it, else tcg.",
)
KVM_CPUS = declare("vm.kvm.cpus", count, "2", "Processors of a virtual machine whose OSF does not say.")
KVM_URI = declare("vm.kvm.uri", str, "qemu:///system", "Where libvirtd is reached.")
KVM_TIMEOUT = declare(
    "internal.hkd.kvm.timeout.libvirt", seconds, "10", "Longest wait for an answer of libvirtd."
)
KVM_TIMEOUT_START = declare(
    "internal.hkd.kvm.timeout.start", seconds, "45", "Longest wait until libvirtd has started a domain."
)
SERIAL_CAPTURE = declare(
    "vm.serial.capture",
    boolean,
    "0",
    "Whether what consoles show is kept in path.serial.captures, 64 MiB of each VM.",
)
VM_STARTING_MAX = declare("hkd.vm.starting.max", count, "6", "How many VMs may boot at once.")
VM_HEAVY_MAX = declare("internal.hkd.max_heavy", count, "10", "How many VMs may be stopped at once.")
VM_OVERLAY_PERSISTENT = declare(
    "vm.overlay.persistent",
    boolean,
    "0",
    "Whether roots survive a restart; turned off, those kept so far go.",
)
EXPIRE_REPEAT = declare(
    "expire.repeat", seconds, "3600", "Pause between two questions to restart an expired desktop."
)
EXPIRE_REPEAT_LEAST = declare(
    "expire.repeat.least",
    seconds,
    "300",
    "Shortest pause between two such questions, which come more often towards the hard limit.",
)
EXPIRE_GRACE = declare(
    "expire.grace",
    seconds,
    "60",
    "How long an expired desktop is still taken for one in use after its user has left.",
)
EXPIRE_BATCH = declare(
    "expire.batch",
    natural,
    "0",
    "How many desktops may stop and start at once for their age; 0 lets all of them, at their very time.",
)
HKD_POLL = declare("internal.hkd.poll_time", seconds, "5", "Pause between looks that no bell asked for.")
HKD_STOPPING_VMS = declare(
    "internal.hkd.stopping.vms.timeout",
    seconds,
    "300",
    "How long guests may take to end when the host goes down; those that are left are killed.",
)
HKD_TICK = declare("internal.hkd.agent.ticker.delay", seconds, "120", "Pause between signs of life.")
VMA_TIMEOUT = declare("internal.hkd.agent.rpc.timeout", seconds, "3", "Longest wait for an answer to a ping.")
VMA_GRACE_STARTING = declare(
    "internal.hkd.vmhandler.vma.failed.max_time.on.starting",
    seconds,
    "180",
    "How long a VMA may take to answer first.",
)
VMA_GRACE_RUNNING = declare(
    "internal.hkd.vmhandler.vma.failed.max_time.on.running", seconds, "320", "How long a VMA may be silent."
)
VMA_DELAY_OK = declare(
    "internal.hkd.vmhandler.vma_monitor.delay.after.ok", seconds, "120", "Pause after an answered ping."
)
VMA_DELAY_ERROR = declare(
    "internal.hkd.vmhandler.vma_monitor.delay.after.error", seconds, "10", "Pause after an unanswered ping."
)
STOP_SHUTDOWN_S = declare(
    "internal.hkd.lxc.timeout.on_state.stopping.shutdown",
    seconds,
    "60",
    "How long a guest may take to power off.",
)
STOP_SIGNAL_S = declare(
    "internal.hkd.lxc.timeout.on_state.stopping.stop",
    seconds,
    "30",
    "How long it may take once its init is told.",
)
ZOMBIE_DELAY_S = declare(
    "internal.hkd.lxc.timeout.on_state.zombie.delay", seconds, "60", "Pause before a zombie is tried again."
)
START_DELAY_FIRST = declare(
    "internal.hkd.start.delay.first",
    seconds,
    "5",
    "Pause before a start that the host failed is tried again.",
)
START_DELAY_LONGEST = declare(
    "internal.hkd.start.delay.max", seconds, "300", "Longest such pause; it doubles with each failure."
)
KEPT_ROOT_DAYS = declare(
    "storage.roots.kept.days", days, "7", "For how many days a root that did not boot is kept."
)
IMAGE_TRASH_DAYS = declare(
    "storage.images.trash.days", days, "7", "For how many days a deleted image can be brought back."
)
VMA_PORT = declare("internal.vm.port.vma", port, "3030", "Port of the VMA in a guest.")
SSH_PORT = declare("internal.vm.port.ssh", port, "22", "Port of the SSH server in a guest: qa vm ssh.")
NXAGENT_DISPLAY = declare("internal.nxagent.display", natural, "100", "Display number of nxagent in a guest.")

NETWORK_BRIDGE = declare("vm.network.bridge", link_name(15), "qvdnet", "The bridge of the guests.")
NETWORK_IP_START = declare("vm.network.ip.start", IPv4Address, None, "First address of guests.")
NETWORK_NETMASK = declare("vm.network.netmask", prefix_length, None, "Prefix length or dotted mask.")
NETWORK_GATEWAY = declare("vm.network.gateway", IPv4Address, None, "The bridge's own address.")
NETWORK_DNS = declare(
    "vm.network.dns_server",
    optional,
    "",
    "Resolver that guests are told; empty for none. At the gateway's address, a resolver of this host must"
    " answer; where virtual machines are told their addresses, dnsmasq does if nobody else is there.",
)
NETWORK_DOMAIN = declare("vm.network.domain", optional, "", "Domain of guests.")
NETWORK_DHCP = declare(
    "vm.network.use_dhcp",
    boolean,
    "1",
    "Whether virtual machines are told their addresses by DHCP; if not, they must know them. Containers do.",
)
NETWORK_MAC_PREFIX = declare(
    "vm.network.mac.prefix", mac_prefix, "54:52:00", "First half of guests' MAC addresses."
)
NETWORK_DEVICE_PREFIX = declare(
    "internal.vm.network.device.prefix", link_name(8), "qvd", "Prefix of host-side links."
)
NETWORK_NAT_IFACE = declare(
    "vm.network.firewall.nat.iface",
    optional,
    "",
    "Link through which guests reach the world; empty: any but the bridge.",
)
NETWORK_FIREWALL = declare(
    "internal.vm.network.firewall.enable", boolean, "1", "Whether rules are set at all."
)

SSH_OPTION = "admin.ssh.opt."
"""What follows in a key is the name of an option of ssh: qa vm ssh gives it, unless its value is empty."""
declare(
    f"{SSH_OPTION}StrictHostKeyChecking",
    str,
    "no",
    "Option of qa vm ssh, as is any admin.ssh.opt.NAME; a guest whose root is new has new host keys.",
)
declare(f"{SSH_OPTION}UserKnownHostsFile", str, "/dev/null", "Option of qa vm ssh: where host keys are kept.")

OSF_DEFAULT_MEMORY = declare("osf.default.memory", count, "256", "Memory of an OSF in MiB, if not given.")
OSF_DEFAULT_PROCESSES = declare(
    "osf.default.processes", count, "4096", "Processes and threads of a VM, if its OSF does not say."
)
OSF_DEFAULT_ROOT = declare(
    "osf.default.root_size",
    limit_mib,
    "4g",
    "What a VM may write into its root, in MiB or with k m g t, if its OSF does not say; no for no limit.",
)
OSF_DEFAULT_OVERLAY = declare("osf.default.overlay", boolean, "1", "Overlay of an OSF, if not given.")

HOOK_OCCASIONS = {
    HookEvent.IMAGE_READY: "a DI was registered",
    HookEvent.TAG_MOVED: "a tag points at another DI",
    HookEvent.LIMIT_REACHED: "a desktop was asked to restart, or was restarted, by a limit",
    HookEvent.START_FAILED: "a desktop does not start",
}
HOOKS = {
    event: declare(f"hook.{event}", hook, "", f"Executable or http(s) address that is told when {occasion}.")
    for event, occasion in HOOK_OCCASIONS.items()
}
HOOK_TIMEOUT = declare("hook.timeout", seconds, "30", "Longest that a hook may take over a notice.")
HOOK_RETRIES = declare(
    "hook.retries", natural, "10", "How often a notice is told again before it is given up with an alarm."
)
HOOK_SECRET_FILE = declare(
    "hook.secret.file",
    optional_path,
    "",
    "File with the secret that signs what is posted (HMAC-SHA256, X-QVD-Signature-256); empty: unsigned.",
)
HOOK_DELAY_FIRST = declare(
    "internal.hook.delay.first", seconds, "5", "Pause before a notice that failed is told again."
)
HOOK_DELAY_LONGEST = declare(
    "internal.hook.delay.max", seconds, "3600", "Longest such pause; it doubles with each failure."
)
