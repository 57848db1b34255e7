"""The first schema. See NOTES.md."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "configs",
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("value", sa.String(length=4096), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_configs")),
    )
    op.create_table(
        "events",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("at", sa.DateTime(), nullable=False),
        sa.Column("by", sa.String(length=64), nullable=False),
        sa.Column("what", sa.String(length=64), nullable=False),
        sa.Column("object", sa.String(length=128), nullable=False),
        sa.Column("was", sa.Text(), nullable=True),
        sa.Column("now", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_events")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "hosts",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=127), nullable=False),
        sa.Column("address", sa.String(length=127), nullable=False),
        sa.Column(
            "frontend",
            sa.Boolean(create_constraint=True, name="frontend"),
            server_default=sa.text("1"),
            nullable=False,
        ),
        sa.Column(
            "backend",
            sa.Boolean(create_constraint=True, name="backend"),
            server_default=sa.text("1"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_hosts")),
        sa.UniqueConstraint("address", name=op.f("uq_hosts_address")),
        sa.UniqueConstraint("name", name=op.f("uq_hosts_name")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "installation",
        sa.Column("one", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("id", sa.String(length=16), nullable=False),
        sa.Column("created", sa.DateTime(), nullable=False),
        sa.CheckConstraint("one = 1", name=op.f("ck_installation_only_one")),
        sa.PrimaryKeyConstraint("one", name=op.f("pk_installation")),
    )
    op.create_table(
        "operations",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("object", sa.String(length=128), nullable=False),
        sa.Column("owner", sa.String(length=64), nullable=False),
        sa.Column("owner_pid", sa.Integer(), nullable=True),
        sa.Column("begun", sa.DateTime(), nullable=False),
        sa.Column("ended", sa.DateTime(), nullable=True),
        sa.Column("progress", sa.Float(), server_default=sa.text("0"), nullable=False),
        sa.Column(
            "cancel",
            sa.Boolean(create_constraint=True, name="cancel"),
            server_default=sa.text("0"),
            nullable=False,
        ),
        sa.Column("result", sa.Text(), nullable=True),
        sa.CheckConstraint("progress BETWEEN 0 AND 1", name=op.f("ck_operations_progress_is_share")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_operations")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "osfs",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("memory", sa.Integer(), nullable=False),
        sa.Column("cpus", sa.Float(), nullable=True),
        sa.Column(
            "use_overlay",
            sa.Boolean(create_constraint=True, name="use_overlay"),
            server_default=sa.text("1"),
            nullable=False,
        ),
        sa.Column("user_storage_size", sa.Integer(), nullable=True),
        sa.Column(
            "backend",
            sa.Enum(
                "lxc",
                "kvm",
                "nothing",
                name="BackendKind",
                native_enum=False,
                create_constraint=True,
                length=16,
            ),
            server_default="lxc",
            nullable=False,
        ),
        sa.CheckConstraint("cpus IS NULL OR cpus > 0", name=op.f("ck_osfs_cpus_positive")),
        sa.CheckConstraint("memory > 0", name=op.f("ck_osfs_memory_positive")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_osfs")),
        sa.UniqueConstraint("name", name=op.f("uq_osfs_name")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "ssl_configs",
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("value", sa.String(length=32768), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_ssl_configs")),
    )
    op.create_table(
        "users",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("login", sa.String(length=64), nullable=False),
        sa.Column("password", sa.String(length=256), nullable=True),
        sa.Column("uid", sa.Integer(), nullable=False),
        sa.Column("gid", sa.Integer(), nullable=False),
        sa.Column(
            "enabled",
            sa.Boolean(create_constraint=True, name="enabled"),
            server_default=sa.text("1"),
            nullable=False,
        ),
        sa.CheckConstraint("uid >= 1000 AND gid >= 1000", name=op.f("ck_users_no_system_account")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_users")),
        sa.UniqueConstraint("gid", name=op.f("uq_users_gid")),
        sa.UniqueConstraint("login", name=op.f("uq_users_login")),
        sa.UniqueConstraint("uid", name=op.f("uq_users_uid")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "versions",
        sa.Column("component", sa.String(length=100), nullable=False),
        sa.Column("version", sa.String(length=100), nullable=False),
        sa.PrimaryKeyConstraint("component", name=op.f("pk_versions")),
    )
    op.create_table(
        "dis",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("osf_id", sa.Integer(), nullable=False),
        sa.Column("path", sa.String(length=4096), nullable=False),
        sa.Column("version", sa.String(length=64), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("size_bytes", sa.Integer(), nullable=False),
        sa.Column("created", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(["osf_id"], ["osfs.id"], name=op.f("fk_dis_osf_id"), ondelete="RESTRICT"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_dis")),
        sa.UniqueConstraint("id", "osf_id", name=op.f("uq_dis_id_osf_id")),
        sa.UniqueConstraint("osf_id", "version", name=op.f("uq_dis_osf_id_version")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "host_counters",
        sa.Column("host_id", sa.Integer(), nullable=False),
        sa.Column("http_requests", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("auth_attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("auth_ok", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("nx_attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("nx_ok", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("short_sessions", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.ForeignKeyConstraint(
            ["host_id"], ["hosts.id"], name=op.f("fk_host_counters_host_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("host_id", name=op.f("pk_host_counters")),
    )
    op.create_table(
        "host_properties",
        sa.Column("host_id", sa.Integer(), nullable=False),
        sa.Column("key", sa.String(length=1024), nullable=False),
        sa.Column("value", sa.String(length=32768), nullable=False),
        sa.ForeignKeyConstraint(
            ["host_id"], ["hosts.id"], name=op.f("fk_host_properties_host_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("host_id", "key", name=op.f("pk_host_properties")),
    )
    op.create_table(
        "host_runtimes",
        sa.Column("host_id", sa.Integer(), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=True),
        sa.Column("ok_ts", sa.DateTime(), nullable=True),
        sa.Column("boot_id", sa.String(length=64), nullable=True),
        sa.Column("usable_ram", sa.Float(), nullable=True),
        sa.Column("usable_cpu", sa.Float(), nullable=True),
        sa.Column(
            "state",
            sa.Enum(
                "stopped",
                "starting",
                "running",
                "stopping",
                "lost",
                name="HostState",
                native_enum=False,
                create_constraint=True,
                length=16,
            ),
            server_default="stopped",
            nullable=False,
        ),
        sa.Column(
            "blocked",
            sa.Boolean(create_constraint=True, name="blocked"),
            server_default=sa.text("0"),
            nullable=False,
        ),
        sa.Column(
            "cmd",
            sa.Enum("stop", name="HostCmd", native_enum=False, create_constraint=True, length=16),
            nullable=True,
        ),
        sa.ForeignKeyConstraint(
            ["host_id"], ["hosts.id"], name=op.f("fk_host_runtimes_host_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("host_id", name=op.f("pk_host_runtimes")),
    )
    op.create_table(
        "osf_properties",
        sa.Column("osf_id", sa.Integer(), nullable=False),
        sa.Column("key", sa.String(length=1024), nullable=False),
        sa.Column("value", sa.String(length=32768), nullable=False),
        sa.ForeignKeyConstraint(
            ["osf_id"], ["osfs.id"], name=op.f("fk_osf_properties_osf_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("osf_id", "key", name=op.f("pk_osf_properties")),
    )
    op.create_table(
        "tag_history",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("at", sa.DateTime(), nullable=False),
        sa.Column("by", sa.String(length=64), nullable=False),
        sa.Column("osf_id", sa.Integer(), nullable=False),
        sa.Column("tag", sa.String(length=1024), nullable=False),
        sa.Column("from_di_id", sa.Integer(), nullable=True),
        sa.Column("to_di_id", sa.Integer(), nullable=True),
        sa.ForeignKeyConstraint(
            ["osf_id"], ["osfs.id"], name=op.f("fk_tag_history_osf_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tag_history")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "user_properties",
        sa.Column("user_id", sa.Integer(), nullable=False),
        sa.Column("key", sa.String(length=1024), nullable=False),
        sa.Column("value", sa.String(length=32768), nullable=False),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("fk_user_properties_user_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("user_id", "key", name=op.f("pk_user_properties")),
    )
    op.create_table(
        "vms",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("uuid", sa.String(length=36), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("user_id", sa.Integer(), nullable=False),
        sa.Column("osf_id", sa.Integer(), nullable=False),
        sa.Column("di_tag", sa.String(length=128), server_default="default", nullable=False),
        sa.Column("ip", sa.String(length=15), nullable=True),
        sa.Column("storage", sa.String(length=4096), nullable=True),
        sa.Column("subid_slot", sa.Integer(), nullable=False),
        sa.CheckConstraint("subid_slot BETWEEN 0 AND 59999", name=op.f("ck_vms_subid_slot_in_range")),
        sa.ForeignKeyConstraint(["osf_id"], ["osfs.id"], name=op.f("fk_vms_osf_id"), ondelete="RESTRICT"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_vms_user_id"), ondelete="RESTRICT"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_vms")),
        sa.UniqueConstraint("ip", name=op.f("uq_vms_ip")),
        sa.UniqueConstraint("name", name=op.f("uq_vms_name")),
        sa.UniqueConstraint("subid_slot", name=op.f("uq_vms_subid_slot")),
        sa.UniqueConstraint("uuid", name=op.f("uq_vms_uuid")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "di_properties",
        sa.Column("di_id", sa.Integer(), nullable=False),
        sa.Column("key", sa.String(length=1024), nullable=False),
        sa.Column("value", sa.String(length=32768), nullable=False),
        sa.ForeignKeyConstraint(
            ["di_id"], ["dis.id"], name=op.f("fk_di_properties_di_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("di_id", "key", name=op.f("pk_di_properties")),
    )
    op.create_table(
        "di_tags",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("di_id", sa.Integer(), nullable=False),
        sa.Column("osf_id", sa.Integer(), nullable=False),
        sa.Column("tag", sa.String(length=1024), nullable=False),
        sa.Column(
            "fixed",
            sa.Boolean(create_constraint=True, name="fixed"),
            server_default=sa.text("0"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["di_id", "osf_id"],
            ["dis.id", "dis.osf_id"],
            name=op.f("fk_di_tags_di_id_osf_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_di_tags")),
        sa.UniqueConstraint("osf_id", "tag", name=op.f("uq_di_tags_osf_id_tag")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "vm_counters",
        sa.Column("vm_id", sa.Integer(), nullable=False),
        sa.Column("run_attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("run_ok", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.ForeignKeyConstraint(["vm_id"], ["vms.id"], name=op.f("fk_vm_counters_vm_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("vm_id", name=op.f("pk_vm_counters")),
    )
    op.create_table(
        "vm_properties",
        sa.Column("vm_id", sa.Integer(), nullable=False),
        sa.Column("key", sa.String(length=1024), nullable=False),
        sa.Column("value", sa.String(length=32768), nullable=False),
        sa.ForeignKeyConstraint(
            ["vm_id"], ["vms.id"], name=op.f("fk_vm_properties_vm_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("vm_id", "key", name=op.f("pk_vm_properties")),
    )
    op.create_table(
        "vm_runtimes",
        sa.Column("vm_id", sa.Integer(), nullable=False),
        sa.Column("host_id", sa.Integer(), nullable=True),
        sa.Column("current_osf_id", sa.Integer(), nullable=True),
        sa.Column("current_di_id", sa.Integer(), nullable=True),
        sa.Column("user_ip", sa.String(length=45), nullable=True),
        sa.Column("real_user_id", sa.Integer(), nullable=True),
        sa.Column(
            "vm_state",
            sa.Enum(
                "stopped",
                "starting",
                "running",
                "stopping",
                "zombie",
                "debugging",
                name="VmState",
                native_enum=False,
                create_constraint=True,
                length=16,
            ),
            server_default="stopped",
            nullable=False,
        ),
        sa.Column("vm_state_ts", sa.DateTime(), nullable=True),
        sa.Column("vm_phase", sa.String(length=32), server_default="stopped", nullable=False),
        sa.Column(
            "vm_cmd",
            sa.Enum("start", "stop", name="VmCmd", native_enum=False, create_constraint=True, length=16),
            nullable=True,
        ),
        sa.Column(
            "restart",
            sa.Boolean(create_constraint=True, name="restart"),
            server_default=sa.text("0"),
            nullable=False,
        ),
        sa.Column(
            "started_by",
            sa.Enum(
                "command",
                "client",
                "host",
                name="StartedBy",
                native_enum=False,
                create_constraint=True,
                length=16,
            ),
            nullable=True,
        ),
        sa.Column("run", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("vm_pid", sa.Integer(), nullable=True),
        sa.Column(
            "user_state",
            sa.Enum(
                "disconnected",
                "connecting",
                "connected",
                name="UserState",
                native_enum=False,
                create_constraint=True,
                length=16,
            ),
            server_default="disconnected",
            nullable=False,
        ),
        sa.Column("user_state_ts", sa.DateTime(), nullable=True),
        sa.Column(
            "user_cmd",
            sa.Enum("abort", name="UserCmd", native_enum=False, create_constraint=True, length=16),
            nullable=True,
        ),
        sa.Column("vma_ok_ts", sa.DateTime(), nullable=True),
        sa.Column("l7r_host_id", sa.Integer(), nullable=True),
        sa.Column("l7r_pid", sa.Integer(), nullable=True),
        sa.Column("l7r_session", sa.String(length=36), nullable=True),
        sa.Column("vm_address", sa.String(length=127), nullable=True),
        sa.Column("vm_vma_port", sa.Integer(), nullable=True),
        sa.Column("vm_x_port", sa.Integer(), nullable=True),
        sa.Column("vm_ssh_port", sa.Integer(), nullable=True),
        sa.Column("vm_vnc_port", sa.Integer(), nullable=True),
        sa.Column("vm_mon_port", sa.Integer(), nullable=True),
        sa.Column("vm_serial_port", sa.Integer(), nullable=True),
        sa.Column(
            "blocked",
            sa.Boolean(create_constraint=True, name="blocked"),
            server_default=sa.text("0"),
            nullable=False,
        ),
        sa.Column(
            "block_cause",
            sa.Enum(
                "admin", "image", name="BlockCause", native_enum=False, create_constraint=True, length=16
            ),
            nullable=True,
        ),
        sa.Column("failure", sa.Text(), nullable=True),
        sa.Column("failure_console", sa.Text(), nullable=True),
        sa.Column("vm_expiration_soft", sa.DateTime(), nullable=True),
        sa.Column("vm_expiration_hard", sa.DateTime(), nullable=True),
        sa.CheckConstraint(
            "(user_state = 'disconnected') <= (user_cmd IS NULL)",
            name=op.f("ck_vm_runtimes_abort_needs_session"),
        ),
        sa.CheckConstraint(
            "(user_state = 'disconnected') = (l7r_session IS NULL)",
            name=op.f("ck_vm_runtimes_session_has_owner"),
        ),
        sa.CheckConstraint(
            "restart = 0 OR coalesce(vm_cmd, '') = 'stop' OR vm_state IN ('stopping', 'zombie')",
            name=op.f("ck_vm_runtimes_restart_follows_stop"),
        ),
        sa.CheckConstraint(
            "vm_cmd IS NULL OR vm_cmd <> 'start' OR vm_state = 'stopped'",
            name=op.f("ck_vm_runtimes_start_from_stopped"),
        ),
        sa.CheckConstraint(
            "vm_state <> 'stopped' OR (current_di_id IS NULL AND vm_address IS NULL)",
            name=op.f("ck_vm_runtimes_stopped_runs_nothing"),
        ),
        sa.CheckConstraint(
            "blocked = (block_cause IS NOT NULL)", name=op.f("ck_vm_runtimes_block_has_cause")
        ),
        sa.CheckConstraint(
            "vm_cmd IS NULL OR host_id IS NOT NULL", name=op.f("ck_vm_runtimes_wish_has_host")
        ),
        sa.ForeignKeyConstraint(
            ["current_di_id"], ["dis.id"], name=op.f("fk_vm_runtimes_current_di_id"), ondelete="RESTRICT"
        ),
        sa.ForeignKeyConstraint(
            ["current_osf_id"], ["osfs.id"], name=op.f("fk_vm_runtimes_current_osf_id"), ondelete="RESTRICT"
        ),
        sa.ForeignKeyConstraint(
            ["host_id"], ["hosts.id"], name=op.f("fk_vm_runtimes_host_id"), ondelete="RESTRICT"
        ),
        sa.ForeignKeyConstraint(
            ["l7r_host_id"], ["hosts.id"], name=op.f("fk_vm_runtimes_l7r_host_id"), ondelete="RESTRICT"
        ),
        sa.ForeignKeyConstraint(
            ["real_user_id"], ["users.id"], name=op.f("fk_vm_runtimes_real_user_id"), ondelete="RESTRICT"
        ),
        sa.ForeignKeyConstraint(["vm_id"], ["vms.id"], name=op.f("fk_vm_runtimes_vm_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("vm_id", name=op.f("pk_vm_runtimes")),
    )
    with op.batch_alter_table("vm_runtimes", schema=None) as batch_op:
        batch_op.create_index(
            "ix_vm_runtimes_pending",
            ["host_id"],
            unique=False,
            sqlite_where=sa.text("vm_cmd IS NOT NULL"),
            postgresql_where=sa.text("vm_cmd IS NOT NULL"),
        )


def downgrade() -> None:
    with op.batch_alter_table("vm_runtimes", schema=None) as batch_op:
        batch_op.drop_index(
            "ix_vm_runtimes_pending",
            sqlite_where=sa.text("vm_cmd IS NOT NULL"),
            postgresql_where=sa.text("vm_cmd IS NOT NULL"),
        )

    op.drop_table("vm_runtimes")
    op.drop_table("vm_properties")
    op.drop_table("vm_counters")
    op.drop_table("di_tags")
    op.drop_table("di_properties")
    op.drop_table("vms")
    op.drop_table("user_properties")
    op.drop_table("tag_history")
    op.drop_table("osf_properties")
    op.drop_table("host_runtimes")
    op.drop_table("host_properties")
    op.drop_table("host_counters")
    op.drop_table("dis")
    op.drop_table("versions")
    op.drop_table("users")
    op.drop_table("ssl_configs")
    op.drop_table("osfs")
    op.drop_table("operations")
    op.drop_table("installation")
    op.drop_table("hosts")
    op.drop_table("events")
    op.drop_table("configs")
