"""Failures with a cause, alarms, what is kept, and two more limits of an OSF. See NOTES.md."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

LIMITS = ("processes", "root_size")
FAILURE = ("failure_cause", "failed_at", "failed_di_id", "failures", "waits_for")


def upgrade() -> None:
    for limit in LIMITS:
        check = f"CONSTRAINT ck_osfs_{limit}_positive CHECK ({limit} IS NULL OR {limit} > 0)"
        op.execute(f"ALTER TABLE osfs ADD COLUMN {limit} INTEGER {check}")
    # A check that old rows would break can only be added while they do not.
    op.execute(
        "CREATE TEMP TABLE told AS SELECT vm_id, failure, failure_console, vm_state_ts FROM vm_runtimes"
    )
    op.execute("UPDATE vm_runtimes SET failure = NULL")
    op.execute(
        "ALTER TABLE vm_runtimes ADD COLUMN failure_cause VARCHAR(16)"
        " CONSTRAINT \"ck_vm_runtimes_FailureCause\" CHECK (failure_cause IN ('image', 'host', 'guest'))"
        " CONSTRAINT ck_vm_runtimes_failure_has_cause"
        " CHECK ((failure IS NULL) = (failure_cause IS NULL))"
    )
    op.execute("ALTER TABLE vm_runtimes ADD COLUMN failed_at DATETIME")
    op.execute("ALTER TABLE vm_runtimes ADD COLUMN failed_di_id INTEGER")
    op.execute("ALTER TABLE vm_runtimes ADD COLUMN failures INTEGER DEFAULT 0 NOT NULL")
    op.execute("ALTER TABLE vm_runtimes ADD COLUMN waits_for VARCHAR(32)")
    op.execute(
        "UPDATE vm_runtimes SET failure = told.failure, failure_cause = 'guest', failed_at = told.vm_state_ts"
        " FROM told WHERE told.vm_id = vm_runtimes.vm_id AND told.failure IS NOT NULL"
    )
    op.execute("DROP TABLE told")
    op.execute('ALTER TABLE operations ADD COLUMN "plan" TEXT')
    op.create_table(
        "alarms",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column(
            "kind",
            sa.Enum(
                "image",
                "host",
                "pool",
                "leak",
                "certificate",
                name="AlarmKind",
                native_enum=False,
                create_constraint=True,
                length=16,
            ),
            nullable=False,
        ),
        sa.Column("object", sa.String(length=128), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("raised", sa.DateTime(), nullable=False),
        sa.Column("last", sa.DateTime(), nullable=False),
        sa.Column("count", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("cleared", sa.DateTime(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_alarms")),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "uq_alarms_open", "alarms", ["kind", "object"], unique=True, sqlite_where=sa.text("cleared IS NULL")
    )
    op.create_table(
        "kept",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column(
            "kind",
            sa.Enum("root", "home", name="KeptKind", native_enum=False, create_constraint=True, length=16),
            nullable=False,
        ),
        sa.Column("path", sa.String(length=4096), nullable=False),
        sa.Column("vm_id", sa.Integer(), nullable=False),
        sa.Column("vm", sa.String(length=64), nullable=False),
        sa.Column("owner", sa.String(length=64), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(), nullable=False),
        sa.Column("until", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_kept")),
        sa.UniqueConstraint("path", name=op.f("uq_kept_path")),
        sqlite_autoincrement=True,
    )


def downgrade() -> None:
    op.drop_table("kept")
    op.drop_table("alarms")
    op.execute("ALTER TABLE operations DROP COLUMN plan")
    for column in FAILURE:
        op.execute(f"ALTER TABLE vm_runtimes DROP COLUMN {column}")
    for limit in LIMITS:
        op.execute(f"ALTER TABLE osfs DROP COLUMN {limit}")
