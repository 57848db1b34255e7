"""The outbox of the host's hooks, alarms of theirs, and versions in the history of tags. See NOTES.md."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

ALARMS = ("image", "host", "pool", "leak", "certificate")
ENDS = ("from", "to")


def upgrade() -> None:
    op.create_table(
        "notices",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("uid", sa.String(length=36), nullable=False),
        sa.Column(
            "event",
            sa.Enum(
                "image_ready",
                "tag_moved",
                "limit_reached",
                "start_failed",
                name="HookEvent",
                native_enum=False,
                create_constraint=True,
                length=16,
            ),
            nullable=False,
        ),
        sa.Column("at", sa.DateTime(), nullable=False),
        sa.Column("concerned", sa.Text(), nullable=False),
        sa.Column(
            "state",
            sa.Enum(
                "waiting",
                "delivered",
                "given-up",
                name="NoticeState",
                native_enum=False,
                create_constraint=True,
                length=16,
            ),
            server_default="waiting",
            nullable=False,
        ),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("next_try", sa.DateTime(), nullable=False),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.Column("ended", sa.DateTime(), nullable=True),
        sa.CheckConstraint("(state = 'waiting') = (ended IS NULL)", name=op.f("ck_notices_waits_or_ended")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_notices")),
        sa.UniqueConstraint("uid", name=op.f("uq_notices_uid")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_notices_waiting", "notices", ["event", "id"], sqlite_where=sa.text("ended IS NULL"))
    for end in ENDS:
        op.execute(f"ALTER TABLE tag_history ADD COLUMN {end}_version VARCHAR(64)")
    op.execute(
        "UPDATE tag_history SET"
        " from_version = (SELECT version FROM dis WHERE dis.id = tag_history.from_di_id),"
        " to_version = (SELECT version FROM dis WHERE dis.id = tag_history.to_di_id)"
    )
    _make_alarms_anew((*ALARMS, "hook"))


def downgrade() -> None:
    op.execute("DELETE FROM alarms WHERE kind = 'hook'")
    _make_alarms_anew(ALARMS)
    for end in ENDS:
        op.execute(f"ALTER TABLE tag_history DROP COLUMN {end}_version")
    op.drop_table("notices")


def _make_alarms_anew(kinds: tuple[str, ...]) -> None:
    """Let alarms be of these kinds: SQLite changes no check of a table that is there."""
    op.create_table(
        "alarms_anew",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("object", sa.String(length=128), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("raised", sa.DateTime(), nullable=False),
        sa.Column("last", sa.DateTime(), nullable=False),
        sa.Column("count", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("cleared", sa.DateTime(), nullable=True),
        sa.CheckConstraint(
            f"kind IN ({', '.join(repr(kind) for kind in kinds)})", name=op.f("ck_alarms_AlarmKind")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_alarms")),
        sqlite_autoincrement=True,
    )
    op.execute("INSERT INTO alarms_anew SELECT * FROM alarms")
    op.drop_table("alarms")
    op.rename_table("alarms_anew", "alarms")
    op.create_index(
        "uq_alarms_open", "alarms", ["kind", "object"], unique=True, sqlite_where=sa.text("cleared IS NULL")
    )
