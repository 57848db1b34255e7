"""How VMs move to another image: a policy per OSF, and what was asked of each VM. See NOTES.md."""

from __future__ import annotations

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

OSFS = {
    "expire_idle": "BOOLEAN DEFAULT 0 NOT NULL CONSTRAINT ck_osfs_expire_idle CHECK (expire_idle IN (0, 1))",
    "expire_on_disconnect": "BOOLEAN DEFAULT 0 NOT NULL"
    " CONSTRAINT ck_osfs_expire_on_disconnect CHECK (expire_on_disconnect IN (0, 1))",
    "postpone_times": "INTEGER",
    "postpone_s": "INTEGER",
    "expire_warn_s": "INTEGER DEFAULT 900 NOT NULL",
    "idle_limit_s": "INTEGER",
    "session_limit_s": "INTEGER",
}
VM_RUNTIMES = {
    "expire_asked": "INTEGER DEFAULT 0 NOT NULL",
    "expire_answered": "INTEGER DEFAULT 0 NOT NULL",
    "expire_next_ts": "DATETIME",
    "expire_postponed": "INTEGER DEFAULT 0 NOT NULL",
    "expire_warned": "BOOLEAN DEFAULT 0 NOT NULL"
    " CONSTRAINT ck_vm_runtimes_expire_warned CHECK (expire_warned IN (0, 1))",
    "expire_untold": "BOOLEAN DEFAULT 0 NOT NULL"
    " CONSTRAINT ck_vm_runtimes_expire_untold CHECK (expire_untold IN (0, 1))",
    "expire_unseen": "BOOLEAN DEFAULT 0 NOT NULL"
    " CONSTRAINT ck_vm_runtimes_expire_unseen CHECK (expire_unseen IN (0, 1))",
}
TAG_HISTORY = {"undoes": "INTEGER"}
CHANGED = (("osfs", OSFS), ("vm_runtimes", VM_RUNTIMES), ("tag_history", TAG_HISTORY))


def upgrade() -> None:
    for table, columns in CHANGED:
        for name, kind in columns.items():
            op.execute(f"ALTER TABLE {table} ADD COLUMN {name} {kind}")
    op.create_index("ix_tag_history_osf_id_tag", "tag_history", ["osf_id", "tag"])


def downgrade() -> None:
    op.drop_index("ix_tag_history_osf_id_tag", "tag_history")
    for table, columns in CHANGED:
        for name in reversed(columns):
            op.execute(f"ALTER TABLE {table} DROP COLUMN {name}")
