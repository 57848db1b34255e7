"""Draws the VM machine from its own tables: docs/vm-machine.md. `python -m scripts.diagram` rewrites it."""

from __future__ import annotations

import inspect
from collections import defaultdict
from pathlib import Path

from appliance.runtime.machine import DELAYED, TRANSITIONS, Phase, step
from appliance.runtime.machine import __doc__ as theory
from tests.support.machines import machine, sample_event

FILE = Path(__file__).resolve().parent.parent / "docs" / "vm-machine.md"


def drawn() -> str:
    """The page."""
    edges: dict[tuple[Phase, Phase], set[str]] = defaultdict(set)
    for phase, kind in TRANSITIONS:
        after, _ = step(machine(phase), sample_event(kind))
        edges[phase, after.phase].add(kind.__name__)
    order = list(Phase)
    arrows = sorted(edges.items(), key=lambda edge: (order.index(edge[0][0]), order.index(edge[0][1])))
    delayed = sorted(f"`{kind.__name__}` in `{phase}`" for phase, kind in DELAYED)
    return "\n".join(
        [
            "# The life of a VM",
            "",
            inspect.cleandoc(theory or ""),
            "",
            "```mermaid",
            "stateDiagram-v2",
            *(f'    state "{phase}" as {phase.name}' for phase in order),
            f"    [*] --> {Phase.STOPPED.name}",
            *(
                f"    {before.name} --> {after.name}: {', '.join(sorted(names))}"
                for (before, after), names in arrows
            ),
            "```",
            "",
            f"Kept until the phase changes: {', '.join(delayed)}.",
            "",
            "Drawn from `appliance/runtime/machine.py` by `python -m scripts.diagram`.",
            "",
        ]
    )


if __name__ == "__main__":
    FILE.write_text(drawn())
