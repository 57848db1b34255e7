"""The drawing of the VM machine is the machine's."""

from __future__ import annotations

from scripts.diagram import FILE, drawn


def test_the_diagram_is_up_to_date() -> None:
    assert FILE.read_text() == drawn(), "run .venv/bin/python -m scripts.diagram"
