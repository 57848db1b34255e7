"""The vocabulary: ids, enumerated states, secrets and the frozen records that everything else speaks of.

The words are QVD's own, as stored (protocol.md 7). Records are what the storage layer returns; they
carry no behaviour beyond small derived facts.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import NewType

HostId = NewType("HostId", int)
UserId = NewType("UserId", int)
OsfId = NewType("OsfId", int)
DiId = NewType("DiId", int)
VmId = NewType("VmId", int)
SessionId = NewType("SessionId", str)
InstallationId = NewType("InstallationId", str)

TAG_DEFAULT = "default"
TAG_HEAD = "head"
IO_WEIGHT_MOST = 1000
IO_WEIGHT_UNSAID = 100
"""What a guest for which nobody says has: the kernel's own choice."""

NO_DI = DiId(0)
"""The image of a guest that was made from none: somebody else runs it."""

FIRST_USER_UID = 20_000
"""Users get uid = gid = FIRST_USER_UID + user id: clear of any image's own accounts, and never reused."""
LAST_USER_UID = 59_999

SUBID_FIRST = 1_000_000
SUBID_COUNT = 65_536
"""Each VM maps its 65,536 ids to the host range that begins at SUBID_FIRST + slot x SUBID_COUNT."""
SUBID_SLOTS = 60_000


class VmState(StrEnum):
    """`vm_runtimes.vm_state` (protocol.md 5.4)."""

    STOPPED = "stopped"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    ZOMBIE = "zombie"
    DEBUGGING = "debugging"


class VmCmd(StrEnum):
    """`vm_runtimes.vm_cmd`: a wish that the HKD has not yet taken."""

    START = "start"
    STOP = "stop"


class UserState(StrEnum):
    """`vm_runtimes.user_state`: the client session of a VM."""

    DISCONNECTED = "disconnected"
    CONNECTING = "connecting"
    CONNECTED = "connected"


class UserCmd(StrEnum):
    """`vm_runtimes.user_cmd`: the order to a session to end."""

    ABORT = "abort"


class HostState(StrEnum):
    """`host_runtimes.state`."""

    STOPPED = "stopped"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    LOST = "lost"


class HostCmd(StrEnum):
    """`host_runtimes.cmd`."""

    STOP = "stop"


class BlockCause(StrEnum):
    """Why a VM is blocked: by hand, or because its image failed to boot."""

    ADMIN = "admin"
    IMAGE = "image"


class FailureCause(StrEnum):
    """Whose fault it is that a run failed; decides what follows (design guide 3)."""

    IMAGE = "image"
    """The disk image does not boot: the VM is blocked after the second failure of one DI."""
    HOST = "host"
    """This machine cannot: nobody is blocked, the start waits and is tried again."""
    GUEST = "guest"
    """A guest that had been running ended or fell silent: told, and nothing follows."""


class AlarmKind(StrEnum):
    """What somebody must look after: one open alarm for each kind and object."""

    IMAGE = "image"
    HOST = "host"
    POOL = "pool"
    LEAK = "leak"
    CERTIFICATE = "certificate"
    HOOK = "hook"


class HookEvent(StrEnum):
    """What the host tells others of, by a hook of this name: `hook.tag_moved` and so on."""

    IMAGE_READY = "image_ready"
    """A DI was registered."""
    TAG_MOVED = "tag_moved"
    LIMIT_REACHED = "limit_reached"
    """A desktop was asked to restart, or was restarted, by a limit."""
    START_FAILED = "start_failed"
    """A desktop does not start: its image does not boot, or it begins to wait for the host."""


class NoticeState(StrEnum):
    """How far the telling of a notice has come."""

    WAITING = "waiting"
    DELIVERED = "delivered"
    GIVEN_UP = "given-up"


class KeptKind(StrEnum):
    """What is kept on disk for a while after its time."""

    ROOT = "root"
    HOME = "home"


class StartedBy(StrEnum):
    """Who wanted the present run of a VM."""

    COMMAND = "command"
    CLIENT = "client"
    HOST = "host"


class BackendKind(StrEnum):
    """Which hypervisor runs the VMs of an OSF."""

    LXC = "lxc"
    KVM = "kvm"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class Secret:
    """A value that never shows itself in a log, a `repr` or a traceback."""

    _value: str

    def reveal(self) -> str:
        """The value itself, for the one place that must send or hash it."""
        return self._value

    def __repr__(self) -> str:
        return "***"

    __str__ = __repr__


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """A node of the installation, with its runtime row and counters."""

    id: HostId
    name: str
    address: str
    backend: bool
    frontend: bool
    state: HostState
    blocked: bool
    pid: int | None
    ok_ts: datetime | None
    usable_ram: float | None
    usable_cpu: float | None
    boot_id: str | None
    vms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """Somebody who owns desktops. The password hash stays in storage."""

    id: UserId
    login: str
    uid: int
    gid: int
    enabled: bool
    vms: int = 0
    """How many desktops they own."""
    connected: int = 0
    """At how many desktops they are now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Osf:
    """An operating system flavour: what its VMs get, and which backend runs them."""

    id: OsfId
    name: str
    memory_mib: int
    cpus: float | None
    use_overlay: bool
    user_storage_mib: int | None
    backend: BackendKind
    processes: int | None = None
    """How many processes and threads a guest may have; None: `osf.default.processes`."""
    root_mib: int | None = None
    """How much a guest may write into its root; None: `osf.default.root_size`."""
    io_weight: int | None = None
    """What a busy disk gives a guest beside others, which have `IO_WEIGHT_UNSAID`; None: as much as them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Di:
    """A disk image of an OSF: immutable once registered."""

    id: DiId
    osf_id: OsfId
    osf: str
    version: str
    path: str
    sha256: str
    size_bytes: int
    created: datetime
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class VmRuntime:
    """What is true of a VM now: the row `vm_runtimes`."""

    vm_state: VmState
    vm_state_ts: datetime | None
    vm_phase: str
    vm_cmd: VmCmd | None
    restart: bool
    started_by: StartedBy | None
    run: int
    """How many times this VM was wanted started: the number carried by everything that belongs to one run."""
    host_id: HostId | None
    current_di_id: DiId | None
    user_state: UserState
    user_state_ts: datetime | None
    user_cmd: UserCmd | None
    l7r_host_id: HostId | None
    l7r_session: SessionId | None
    real_user_id: UserId | None
    vm_address: str | None
    vm_vma_port: int | None
    vm_x_port: int | None
    blocked: bool
    block_cause: BlockCause | None
    failure: str | None
    failure_console: str | None
    failure_cause: FailureCause | None
    failed_at: datetime | None
    failed_di_id: DiId | None
    """The image whose failures are counted."""
    failures: int
    """How many runs in a row failed because of that image."""
    waits_for: str | None
    """The part of its host for which its start waits, to be tried again."""
    vm_expiration_soft: datetime | None
    vm_expiration_hard: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Vm:
    """A desktop: its settings, its owner, and its runtime row; joined names for people."""

    id: VmId
    uuid: str
    name: str
    user_id: UserId
    user: str
    osf_id: OsfId
    osf: str
    backend: BackendKind
    di_tag: str
    ip: str | None
    subid_slot: int
    runtime: VmRuntime
    real_user: str | None = None
    host: str | None = None
    l7r_host: str | None = None
    di: str | None = None
    next_di: str | None = None
    next_di_id: DiId | None = None

    @property
    def outdated(self) -> bool:
        """Whether the next start would boot another image than the one that runs."""
        running = self.runtime.current_di_id
        return running is not None and self.next_di_id is not None and running != self.next_di_id


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
    """Something that somebody must look after, however often it is noticed."""

    id: int
    kind: AlarmKind
    object: str
    text: str
    raised: datetime
    last: datetime
    count: int
    cleared: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A root or a home that is kept on disk until its time is over."""

    id: int
    kind: KeptKind
    path: str
    vm_id: VmId
    vm: str
    owner: str
    reason: str
    at: datetime
    until: datetime

    @property
    def is_given_up(self) -> bool:
        """Whether somebody ended its time, rather than the calendar."""
        return self.until <= self.at


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a guest uses now."""

    cpu_s: float
    memory_bytes: int
    disk_bytes: int | None = field(default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """What every guest, root and home of ours carries, so that a stranger's is never touched."""

    installation: InstallationId
    vm_id: VmId
    vm_uuid: str
    di_id: DiId


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """One thing of which the host tells by a hook."""

    id: int
    uid: str
    """The same at each attempt, so that whoever is told twice can know."""
    event: HookEvent
    at: datetime
    concerned: str
    """What is concerned, as a JSON object."""
    state: NoticeState
    attempts: int
    next_try: datetime
    last_error: str | None
    ended: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LogEntry:
    """One line of the audit log."""

    id: int
    at: datetime
    by: str
    what: str
    object: str
    was: str | None
    now: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TagMove:
    """One move of a tag; at the ends, where it pointed at nothing, number and version are absent."""

    id: int
    at: datetime
    by: str
    osf_id: OsfId
    osf: str
    tag: str
    from_di_id: DiId | None
    from_version: str | None
    to_di_id: DiId | None
    to_version: str | None
