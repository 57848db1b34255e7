"""The weight of a VM's reads and writes, per OSF. See NOTES.md."""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        "ALTER TABLE osfs ADD COLUMN io_weight INTEGER"
        " CONSTRAINT ck_osfs_io_weight_in_range CHECK (io_weight IS NULL OR io_weight BETWEEN 1 AND 1000)"
    )


def downgrade() -> None:
    op.execute("ALTER TABLE osfs DROP COLUMN io_weight")
