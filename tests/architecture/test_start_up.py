"""`qa` starts fast because it loads little: proven in fresh interpreters."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("textual", "libvirt", "uvloop", "pyroute2", "btrfsutil", "httpx")


def loaded_by(statement: str) -> set[str]:
    """The top-level modules that a fresh interpreter holds after a statement."""
    code = f"{statement}\nimport sys\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    return set(done.stdout.split())


@pytest.mark.parametrize("module", ["main", "user", "osf", "host", "config", "vm", "di"])
def test_a_noun_loads_nothing_heavy(module: str) -> None:
    assert loaded_by(f"import appliance.qa.{module}") & set(HEAVY) == set()


def test_help_needs_no_database() -> None:
    assert "sqlalchemy" not in loaded_by("import appliance.qa.main")


LATER = frozenset(
    {"sqlalchemy", "alembic", "aiosqlite", "httpx", "dateparser", "yaml", "cryptography", "argon2", "pyte"}
)
"""What a TUI needs for acting, filtering and consoles, and so not before it shows desktops."""


def test_a_tui_shows_desktops_before_anything_heavy_is_loaded() -> None:
    loaded = loaded_by("import appliance.tui.main, appliance.tui.opening")
    assert loaded & (LATER | {"textual"}) == set()


def test_a_tui_that_shows_nothing_but_desktops_has_loaded_no_more_than_textual() -> None:
    assert loaded_by("import appliance.tui.main, appliance.tui.app") & LATER == set()
