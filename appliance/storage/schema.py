"""The schema, readable top to bottom: protocol.md 7 with the additions of the design guide.

Illegal states are made impossible here where SQL can say so: a tag is unique within its OSF and
belongs to a DI of that OSF, states are enumerated, a VM has exactly one runtime row, a session has
an owner exactly while somebody is connecting or connected.
"""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Dialect,
    Enum,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    text,
)

from appliance.model import (
    AlarmKind,
    BackendKind,
    BlockCause,
    FailureCause,
    HookEvent,
    HostCmd,
    HostState,
    KeptKind,
    NoticeState,
    StartedBy,
    UserCmd,
    UserState,
    VmCmd,
    VmState,
)

SCHEMA_VERSION = "3"

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    }
)


class Instant(TypeDecorator[datetime]):
    """An aware UTC instant; the database holds it without a zone, as QVD's does."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        return None if value is None else value.replace(tzinfo=UTC)


def one_of(words: type[StrEnum]) -> Enum:
    """A text column that holds one of the words of an enumeration."""
    return Enum(
        words,
        values_callable=lambda cls: [word.value for word in cls],
        native_enum=False,
        create_constraint=True,
        name=words.__name__,
        length=16,
    )


def flag(name: str, *, default: bool = False) -> Column[bool]:
    """A yes-or-no column."""
    return Column(
        name,
        Boolean(create_constraint=True, name=name),
        nullable=False,
        server_default=text("1" if default else "0"),
    )


def counter(name: str) -> Column[int]:
    """A column that only ever counts up (trap T11: add to it in SQL, never write it back)."""
    return Column(name, Integer, nullable=False, server_default=text("0"))


def _numbered(name: str, *columns: Any) -> Table:
    """A table whose ids are never used again after a delete."""
    return Table(name, metadata, Column("id", Integer, primary_key=True), *columns, sqlite_autoincrement=True)


def _owned_by(owner: str, name: str) -> Column[int]:
    return Column(name, ForeignKey(f"{owner}.id", ondelete="CASCADE"), primary_key=True)


installation = Table(
    "installation",
    metadata,
    Column("one", Integer, primary_key=True, server_default=text("1")),
    Column("id", String(16), nullable=False),
    Column("created", Instant, nullable=False),
    CheckConstraint("one = 1", name="only_one"),
)

configs = Table(
    "configs",
    metadata,
    Column("key", String(64), primary_key=True),
    Column("value", String(4096), nullable=False),
)

ssl_configs = Table(
    "ssl_configs",
    metadata,
    Column("key", String(64), primary_key=True),
    Column("value", String(32768), nullable=False),
)

versions = Table(
    "versions",
    metadata,
    Column("component", String(100), primary_key=True),
    Column("version", String(100), nullable=False),
)

hosts = _numbered(
    "hosts",
    Column("name", String(127), nullable=False, unique=True),
    Column("address", String(127), nullable=False, unique=True),
    flag("frontend", default=True),
    flag("backend", default=True),
)

host_runtimes = Table(
    "host_runtimes",
    metadata,
    _owned_by("hosts", "host_id"),
    Column("pid", Integer),
    Column("ok_ts", Instant),
    Column("boot_id", String(64)),
    Column("usable_ram", Float),
    Column("usable_cpu", Float),
    Column("state", one_of(HostState), nullable=False, server_default=HostState.STOPPED),
    flag("blocked"),
    Column("cmd", one_of(HostCmd)),
)

host_counters = Table(
    "host_counters",
    metadata,
    _owned_by("hosts", "host_id"),
    counter("http_requests"),
    counter("auth_attempts"),
    counter("auth_ok"),
    counter("nx_attempts"),
    counter("nx_ok"),
    counter("short_sessions"),
)

users = _numbered(
    "users",
    Column("login", String(64), nullable=False, unique=True),
    Column("password", String(256)),
    Column("uid", Integer, nullable=False, unique=True),
    Column("gid", Integer, nullable=False, unique=True),
    flag("enabled", default=True),
    CheckConstraint("uid >= 1000 AND gid >= 1000", name="no_system_account"),
)

osfs = _numbered(
    "osfs",
    Column("name", String(64), nullable=False, unique=True),
    Column("memory", Integer, nullable=False),
    Column("cpus", Float),
    flag("use_overlay", default=True),
    Column("user_storage_size", Integer),
    Column("backend", one_of(BackendKind), nullable=False, server_default=BackendKind.LXC),
    Column("processes", Integer),
    Column("root_size", Integer),
    Column("io_weight", Integer),
    flag("expire_idle"),
    flag("expire_on_disconnect"),
    Column("postpone_times", Integer),
    Column("postpone_s", Integer),
    Column("expire_warn_s", Integer, nullable=False, server_default=text("900")),
    Column("idle_limit_s", Integer),
    Column("session_limit_s", Integer),
    CheckConstraint("memory > 0", name="memory_positive"),
    CheckConstraint("cpus IS NULL OR cpus > 0", name="cpus_positive"),
    CheckConstraint("processes IS NULL OR processes > 0", name="processes_positive"),
    CheckConstraint("root_size IS NULL OR root_size > 0", name="root_size_positive"),
    CheckConstraint("io_weight IS NULL OR io_weight BETWEEN 1 AND 1000", name="io_weight_in_range"),
)

dis = _numbered(
    "dis",
    Column("osf_id", ForeignKey("osfs.id", ondelete="RESTRICT"), nullable=False),
    Column("path", String(4096), nullable=False),
    Column("version", String(64), nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("size_bytes", Integer, nullable=False),
    Column("created", Instant, nullable=False),
    Column("notes", Text),
    flag("blocked"),
    Column("retired", Instant),
    Column("until", Instant),
    Column("former_tags", Text),
    UniqueConstraint("osf_id", "version"),
    UniqueConstraint("id", "osf_id"),
    CheckConstraint("(retired IS NULL) = (until IS NULL)", name="trash_has_end"),
)
"""Since `retired`, an image is in the trash until `until`: it keeps its version, and has no tags."""

di_tags = _numbered(
    "di_tags",
    Column("di_id", Integer, nullable=False),
    Column("osf_id", Integer, nullable=False),
    Column("tag", String(1024), nullable=False),
    flag("fixed"),
    ForeignKeyConstraint(["di_id", "osf_id"], ["dis.id", "dis.osf_id"], ondelete="CASCADE"),
    UniqueConstraint("osf_id", "tag"),
)

tag_history = _numbered(
    "tag_history",
    Column("at", Instant, nullable=False),
    Column("by", String(64), nullable=False),
    Column("osf_id", ForeignKey("osfs.id", ondelete="CASCADE"), nullable=False),
    Column("tag", String(1024), nullable=False),
    Column("from_di_id", Integer),
    Column("to_di_id", Integer),
    Column("undoes", Integer),
    Column("from_version", String(64)),
    Column("to_version", String(64)),
)
"""Where each tag pointed; a DI may be gone, its number and version stay."""
Index("ix_tag_history_osf_id_tag", tag_history.c.osf_id, tag_history.c.tag)

vms = _numbered(
    "vms",
    Column("uuid", String(36), nullable=False, unique=True),
    Column("name", String(64), nullable=False, unique=True),
    Column("user_id", ForeignKey("users.id", ondelete="RESTRICT"), nullable=False),
    Column("osf_id", ForeignKey("osfs.id", ondelete="RESTRICT"), nullable=False),
    Column("di_tag", String(128), nullable=False, server_default="default"),
    Column("ip", String(15), unique=True),
    Column("storage", String(4096)),
    Column("subid_slot", Integer, nullable=False, unique=True),
    CheckConstraint("subid_slot BETWEEN 0 AND 59999", name="subid_slot_in_range"),
)

vm_runtimes = Table(
    "vm_runtimes",
    metadata,
    _owned_by("vms", "vm_id"),
    Column("host_id", ForeignKey("hosts.id", ondelete="RESTRICT")),
    Column("current_osf_id", ForeignKey("osfs.id", ondelete="RESTRICT")),
    Column("current_di_id", ForeignKey("dis.id", ondelete="RESTRICT")),
    Column("user_ip", String(45)),
    Column("real_user_id", ForeignKey("users.id", ondelete="RESTRICT")),
    Column("vm_state", one_of(VmState), nullable=False, server_default=VmState.STOPPED),
    Column("vm_state_ts", Instant),
    Column("vm_phase", String(32), nullable=False, server_default="stopped"),
    Column("vm_cmd", one_of(VmCmd)),
    flag("restart"),
    Column("started_by", one_of(StartedBy)),
    Column("run", Integer, nullable=False, server_default=text("0")),
    Column("vm_pid", Integer),
    Column("user_state", one_of(UserState), nullable=False, server_default=UserState.DISCONNECTED),
    Column("user_state_ts", Instant),
    Column("user_cmd", one_of(UserCmd)),
    Column("vma_ok_ts", Instant),
    Column("l7r_host_id", ForeignKey("hosts.id", ondelete="RESTRICT")),
    Column("l7r_pid", Integer),
    Column("l7r_session", String(36)),
    Column("vm_address", String(127)),
    Column("vm_vma_port", Integer),
    Column("vm_x_port", Integer),
    Column("vm_ssh_port", Integer),
    Column("vm_vnc_port", Integer),
    Column("vm_mon_port", Integer),
    Column("vm_serial_port", Integer),
    flag("blocked"),
    Column("block_cause", one_of(BlockCause)),
    Column("failure", Text),
    Column("failure_console", Text),
    Column("failure_cause", one_of(FailureCause)),
    Column("failed_at", Instant),
    Column("failed_di_id", Integer),
    counter("failures"),
    Column("waits_for", String(32)),
    Column("vm_expiration_soft", Instant),
    Column("vm_expiration_hard", Instant),
    counter("expire_asked"),
    counter("expire_answered"),
    Column("expire_next_ts", Instant),
    counter("expire_postponed"),
    flag("expire_warned"),
    flag("expire_untold"),
    flag("expire_unseen"),
    CheckConstraint("(user_state = 'disconnected') = (l7r_session IS NULL)", name="session_has_owner"),
    CheckConstraint("(user_state = 'disconnected') <= (user_cmd IS NULL)", name="abort_needs_session"),
    CheckConstraint("vm_cmd IS NULL OR vm_cmd <> 'start' OR vm_state = 'stopped'", name="start_from_stopped"),
    CheckConstraint(
        "restart = 0 OR coalesce(vm_cmd, '') = 'stop' OR vm_state IN ('stopping', 'zombie')",
        name="restart_follows_stop",
    ),
    CheckConstraint(
        "vm_state <> 'stopped' OR (current_di_id IS NULL AND vm_address IS NULL)", name="stopped_runs_nothing"
    ),
    CheckConstraint("blocked = (block_cause IS NOT NULL)", name="block_has_cause"),
    CheckConstraint("vm_cmd IS NULL OR host_id IS NOT NULL", name="wish_has_host"),
    CheckConstraint("(failure IS NULL) = (failure_cause IS NULL)", name="failure_has_cause"),
)
Index(
    "ix_vm_runtimes_pending",
    vm_runtimes.c.host_id,
    sqlite_where=vm_runtimes.c.vm_cmd.is_not(None),
    postgresql_where=vm_runtimes.c.vm_cmd.is_not(None),
)

vm_counters = Table(
    "vm_counters", metadata, _owned_by("vms", "vm_id"), counter("run_attempts"), counter("run_ok")
)


def _properties(noun: str) -> Table:
    return Table(
        f"{noun}_properties",
        metadata,
        _owned_by(f"{noun}s", f"{noun}_id"),
        Column("key", String(1024), primary_key=True),
        Column("value", String(32768), nullable=False),
    )


host_properties = _properties("host")
user_properties = _properties("user")
osf_properties = _properties("osf")
di_properties = _properties("di")
vm_properties = _properties("vm")

operations = _numbered(
    "operations",
    Column("kind", String(32), nullable=False),
    Column("object", String(128), nullable=False),
    Column("owner", String(64), nullable=False),
    Column("owner_pid", Integer),
    Column("begun", Instant, nullable=False),
    Column("ended", Instant),
    Column("progress", Float, nullable=False, server_default=text("0")),
    flag("cancel"),
    Column("result", Text),
    Column("plan", Text),
    CheckConstraint("progress BETWEEN 0 AND 1", name="progress_is_share"),
)
"""Long work as rows: what, on which object, for whom, how far (0 to 1), how it ended, how to go on."""

events = _numbered(
    "events",
    Column("at", Instant, nullable=False),
    Column("by", String(64), nullable=False),
    Column("what", String(64), nullable=False),
    Column("object", String(128), nullable=False),
    Column("was", Text),
    Column("now", Text),
)
"""The audit log: written in the same transaction as the change itself."""

alarms = _numbered(
    "alarms",
    Column("kind", one_of(AlarmKind), nullable=False),
    Column("object", String(128), nullable=False),
    Column("text", Text, nullable=False),
    Column("raised", Instant, nullable=False),
    Column("last", Instant, nullable=False),
    counter("count"),
    Column("cleared", Instant),
)
"""What somebody must look after; noticed again, an open alarm counts up instead of being doubled."""
Index(
    "uq_alarms_open",
    alarms.c.kind,
    alarms.c.object,
    unique=True,
    sqlite_where=alarms.c.cleared.is_(None),
    postgresql_where=alarms.c.cleared.is_(None),
)

kept = _numbered(
    "kept",
    Column("kind", one_of(KeptKind), nullable=False),
    Column("path", String(4096), nullable=False, unique=True),
    Column("vm_id", Integer, nullable=False),
    Column("vm", String(64), nullable=False),
    Column("owner", String(64), nullable=False),
    Column("reason", Text, nullable=False),
    Column("at", Instant, nullable=False),
    Column("until", Instant),
    Column("user_id", Integer),
    Column("from_di_id", Integer),
    Column("to_di_id", Integer),
    CheckConstraint("until IS NOT NULL OR kind = 'snapshot'", name="only_snapshots_stay"),
)
"""Roots and homes on disk that wait for their end, and snapshots of homes; the VM, its user and the DIs may
be gone, their numbers and names stay."""

notices = _numbered(
    "notices",
    Column("uid", String(36), nullable=False, unique=True),
    Column("event", one_of(HookEvent), nullable=False),
    Column("at", Instant, nullable=False),
    Column("concerned", Text, nullable=False),
    Column("state", one_of(NoticeState), nullable=False, server_default=NoticeState.WAITING),
    counter("attempts"),
    Column("next_try", Instant, nullable=False),
    Column("last_error", Text),
    Column("ended", Instant),
    CheckConstraint("(state = 'waiting') = (ended IS NULL)", name="waits_or_ended"),
)
"""The outbox of the host's hooks: written in the same transaction as what it tells of."""
Index(
    "ix_notices_waiting",
    notices.c.event,
    notices.c.id,
    sqlite_where=notices.c.ended.is_(None),
    postgresql_where=notices.c.ended.is_(None),
)

changes = Table(
    "changes",
    metadata,
    Column("seq", Integer, primary_key=True),
    Column("noun", Text, nullable=False),
    Column("object_id", Integer, nullable=False),
    sqlite_autoincrement=True,
)
"""The journal: which object each write was about. Triggers fill it and keep it short (`changes.py`)."""
