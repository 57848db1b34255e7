"""Alembic's entry: runs the migrations on the connection that `migrate.py` opened."""

from __future__ import annotations

from typing import Any, Literal

from alembic import context

from appliance.storage import schema


def render_item(kind: str, item: Any, _autogenerate: Any) -> str | Literal[False]:
    """Write our own column types as those of the database: migrations need no code of ours."""
    return "sa.DateTime()" if kind == "type" and isinstance(item, schema.Instant) else False


context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=schema.metadata,
    render_as_batch=True,
    render_item=render_item,
    compare_type=True,
)
context.run_migrations()
