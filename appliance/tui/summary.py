"""How things are, in one line: what the top bar says. Pure."""

from __future__ import annotations

from rich.cells import cell_len

from appliance.model import VmState
from appliance.tui.glyphs import Glyphs
from appliance.tui.tally import Tally

Part = tuple[str, str]
"""A text, and `bold` or nothing."""


def summary(
    node: str, state: Part | None, tally: Tally, signs: Glyphs, *, read_only: bool, room: int
) -> list[Part]:
    """The node, how its daemon is as far as that is known, and how many desktops are how.

    Of the counts, the most important are told, as many as there is room for in so many cells.
    """
    parts: list[Part] = [("QVD ", "bold"), (node, "bold"), ("  ", "")]
    if read_only:
        parts.append(("[read only] ", "bold"))
    if state is not None:
        parts.append(state)
    parts.append((" ", ""))
    room -= sum(cell_len(text) for text, _ in parts)
    states = tally.states
    counts = (
        (signs.states[VmState.RUNNING], states[VmState.RUNNING], "running"),
        (signs.failed, states["failed"], "failed"),
        (signs.states[VmState.ZOMBIE], states[VmState.ZOMBIE], "zombie"),
        (signs.person, tally.connected, "connected"),
        (signs.outdated, tally.outdated, "outdated"),
        (signs.states[VmState.STARTING], states[VmState.STARTING], "starting"),
        (signs.states[VmState.STOPPING], states[VmState.STOPPING], "stopping"),
        (signs.states[VmState.STOPPED], states[VmState.STOPPED], "stopped"),
    )
    for sign, number, word in counts:
        text = f"  {sign} {number:,} {word}"
        if number and len(text) <= room:
            parts.append((text, "bold" if word in {"failed", "zombie"} else ""))
            room -= len(text)
    return parts
