"""Snapshots of homes among what is kept. See NOTES.md."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.schema import SchemaItem

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

COLUMNS = "id, kind, path, vm_id, vm, owner, reason, at, until"


def upgrade() -> None:
    _rebuild(
        ("root", "home", "snapshot"),
        sa.Column("until", sa.DateTime(), nullable=True),
        sa.Column("user_id", sa.Integer(), nullable=True),
        sa.Column("from_di_id", sa.Integer(), nullable=True),
        sa.Column("to_di_id", sa.Integer(), nullable=True),
        sa.CheckConstraint(
            "until IS NOT NULL OR kind = 'snapshot'", name=op.f("ck_kept_only_snapshots_stay")
        ),
    )


def downgrade() -> None:
    op.execute("DELETE FROM kept WHERE kind = 'snapshot'")
    _rebuild(("root", "home"), sa.Column("until", sa.DateTime(), nullable=False))


def _rebuild(kinds: tuple[str, ...], *rest: SchemaItem) -> None:
    """SQLite changes no check: what is kept moves to a new table. Its numbers are not given again."""
    op.execute("CREATE TEMP TABLE numbers AS SELECT seq FROM sqlite_sequence WHERE name = 'kept'")
    op.execute("ALTER TABLE kept RENAME TO kept_before")
    op.create_table(
        "kept",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column(
            "kind",
            sa.Enum(*kinds, name="KeptKind", native_enum=False, create_constraint=True, length=16),
            nullable=False,
        ),
        sa.Column("path", sa.String(length=4096), nullable=False),
        sa.Column("vm_id", sa.Integer(), nullable=False),
        sa.Column("vm", sa.String(length=64), nullable=False),
        sa.Column("owner", sa.String(length=64), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(), nullable=False),
        *rest,
        sa.PrimaryKeyConstraint("id", name=op.f("pk_kept")),
        sa.UniqueConstraint("path", name=op.f("uq_kept_path")),
        sqlite_autoincrement=True,
    )
    op.execute(f"INSERT INTO kept ({COLUMNS}) SELECT {COLUMNS} FROM kept_before")  # noqa: S608
    op.execute("DROP TABLE kept_before")
    op.execute("DELETE FROM sqlite_sequence WHERE name = 'kept'")
    op.execute("INSERT INTO sqlite_sequence (name, seq) SELECT 'kept', seq FROM numbers")
    op.execute("DROP TABLE numbers")
