"""Images as people keep them: notes, a block, and the trash. See NOTES.md."""

from __future__ import annotations

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

COLUMNS = {
    "notes": "TEXT",
    "blocked": "BOOLEAN DEFAULT 0 NOT NULL CONSTRAINT ck_dis_blocked CHECK (blocked IN (0, 1))",
    "retired": "DATETIME",
    "former_tags": "TEXT",
    "until": "DATETIME CONSTRAINT ck_dis_trash_has_end CHECK ((retired IS NULL) = (until IS NULL))",
}
"""A check may name columns that are there already: `until` comes last."""


def upgrade() -> None:
    for name, kind in COLUMNS.items():
        op.execute(f"ALTER TABLE dis ADD COLUMN {name} {kind}")


def downgrade() -> None:
    for name in reversed(COLUMNS):
        op.execute(f"ALTER TABLE dis DROP COLUMN {name}")
