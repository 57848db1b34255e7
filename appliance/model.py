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
    SNAPSHOT = "snapshot"
    """Of a home, as it was once."""


class DiState(StrEnum):
    """Where an image is in its life; told from rows, never stored."""

    NEW = "new"
    """Its import has begun, and nothing of it is there yet."""
    GENERATING = "generating"
    """It is being made from another image."""
    UPLOADING = "uploading"
    VERIFYING = "verifying"
    """It is there, and being unpacked or looked over."""
    READY = "ready"
    PUBLISHED = "published"
    """A tag that moves, other than `head`, points at it."""
    RETIRED = "retired"
    """It is in the trash."""


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


class Limit(StrEnum):
    """What a desktop on an old image may be given: a time to be asked, a time to be restarted."""

    SOFT = "soft"
    HARD = "hard"


@dataclass(frozen=True, slots=True, kw_only=True)
class AgeingPolicy:
    """How the VMs of an OSF move to another image, and how long they may lie idle; spans are in seconds."""

    expire_idle: bool = False
    """Whether desktops at which nobody is move without being asked."""
    expire_on_disconnect: bool = False
    """Whether a desktop moves when its user leaves after its soft limit."""
    postpone_times: int | None = None
    """How often its user may put a restart off; None: there is no putting off, only being asked again."""
    postpone_s: int | None = None
    """For how long each time."""
    expire_warn_s: int = 900
    """How long before its hard limit a desktop is warned; 0: never."""
    idle_limit_s: int | None = None
    """How long a desktop may run with nobody at it before it is stopped."""
    session_limit_s: int | None = None
    """How long somebody may stay connected."""


PLAIN_AGEING = AgeingPolicy()
"""What holds for an OSF that says nothing."""


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
    ageing: AgeingPolicy = PLAIN_AGEING


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
    state: DiState = DiState.READY
    notes: str | None = None
    """What its administrator wrote about it."""
    blocked: bool = False
    """Whether nothing may boot it."""
    retired: datetime | None = None
    """Since when it is in the trash."""
    until: datetime | None = None
    """When it goes from there for good."""
    former_tags: tuple[str, ...] = ()
    """The tags that moved and pointed at it when it went to the trash."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrivingDi:
    """An image whose import is under way: it has a number, and no row yet."""

    id: DiId
    state: DiState
    progress: float
    """How far it is, from 0 to 1."""
    begun: datetime
    owner: str
    osf_id: OsfId | None = None
    osf: str | None = None


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
    expire_asked: int
    """How often the desktop was asked to restart since it began to run."""
    expire_answered: int
    """The last of these questions that was answered."""
    expire_next_ts: datetime | None
    """Before this it is not asked again; None: from its soft limit on."""
    expire_postponed: int
    """How often its user has put the restart off."""
    expire_warned: bool
    """Whether it was warned of its hard limit."""
    expire_untold: bool
    """Whether what was last to be said to the guest may not have reached it."""
    expire_unseen: bool
    """Whether the latest question found nobody there, so that whoever comes next has not been asked."""

    @property
    def is_coming_back(self) -> bool:
        """Whether it is being started, or stopped in order to be started again."""
        if self.vm_state is VmState.STARTING or self.vm_cmd is VmCmd.START:
            return True
        return self.restart and (self.vm_state is VmState.STOPPING or self.vm_cmd is VmCmd.STOP)


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
    next_di_since: datetime | None = None
    """Since when its tag points where it does."""
    next_di_blocked: bool | None = None
    """Whether the image of the next start is blocked; None if there is none."""

    @property
    def outdated(self) -> bool:
        """Whether the next start would boot another image than the one that runs."""
        running = self.runtime.current_di_id
        return running is not None and self.next_di_id is not None and running != self.next_di_id

    @property
    def outdated_since(self) -> datetime | None:
        """When the image that it runs stopped being the one it would boot; None: it is that one."""
        return self.next_di_since if self.outdated else None


@dataclass(frozen=True, slots=True, kw_only=True)
class AgeingVm:
    """What decides whether a VM is due to be asked, or to move to another image."""

    id: VmId
    name: str
    user: str
    vm_state: VmState
    vm_state_ts: datetime | None
    vm_cmd: VmCmd | None
    started_by: StartedBy | None
    user_state: UserState
    user_state_ts: datetime | None
    user_cmd: UserCmd | None
    current_di_id: DiId | None
    next_di_id: DiId | None
    next_is_bad: bool
    """Whether the image that it would boot is known not to boot."""
    vm_expiration_soft: datetime | None
    vm_expiration_hard: datetime | None
    expire_asked: int
    expire_answered: int
    expire_next_ts: datetime | None
    expire_postponed: int
    expire_warned: bool
    expire_untold: bool
    expire_unseen: bool
    ageing: AgeingPolicy

    @property
    def is_idle(self) -> bool:
        """Whether nobody is there."""
        return self.user_state is UserState.DISCONNECTED

    @property
    def differs(self) -> bool:
        """Whether it runs another image than its tag leads to; a tag that leads nowhere differs from all."""
        return self.current_di_id is not None and self.current_di_id != self.next_di_id

    @property
    def comes_back(self) -> bool:
        """Whether it starts again when it is stopped for its age, rather than when somebody wants it."""
        wanted = not self.is_idle or self.started_by is not StartedBy.CLIENT
        return wanted and self.next_di_id is not None


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
    """A root, a home or a snapshot of a home that is kept on disk until its time is over."""

    id: int
    kind: KeptKind
    path: str
    vm_id: VmId
    vm: str
    owner: str
    reason: str
    at: datetime
    until: datetime | None
    """None: a snapshot that goes when there are enough newer ones."""
    user_id: UserId | None = None
    """Whose it was, if it is a snapshot and somebody knows."""
    from_di_id: DiId | None = None
    """The DI with which the home was used when the snapshot was taken."""
    to_di_id: DiId | None = None
    """The DI for which it was taken, if for one."""

    @property
    def is_given_up(self) -> bool:
        """Whether somebody ended its time, rather than the calendar."""
        return self.until is not None and self.until <= self.at


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

    def is_of_same_vm(self, other: Mark) -> bool:
        """Whether both are of one VM, with whichever DI."""
        return (self.installation, self.vm_uuid) == (other.installation, other.vm_uuid)


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
    undoes: int | None
    """The id of the earlier move that this one takes back."""
