"""Writes the figures of long runs into docs/measurements.md, newest last."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from pathlib import Path

FILE = Path(__file__).resolve().parents[2] / "docs" / "measurements.md"


def append(name: str, figures: str) -> None:
    """Add one run: what it was, when, on what kind of machine, and its figures."""
    machine = f"Linux {platform.release()}, {os.cpu_count()} cores"
    day = datetime.now(UTC).strftime("%Y-%m-%d")
    with FILE.open("a") as file:
        file.write(f"\n## {name}, {day}\n\n{machine}. {figures}\n")
