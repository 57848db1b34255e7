"""The signs beside words: for terminals that draw them, and for those that know ASCII alone. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from appliance.model import VmState


@dataclass(frozen=True, slots=True)
class Glyphs:
    """One set of signs; each is one cell wide."""

    states: Mapping[str, str]
    failed: str
    blocked: str
    person: str
    outdated: str
    mark: str
    cursor: str
    up: str
    down: str
    branch: str
    last_branch: str
    dot: str
    bar: str
    bar_rest: str
    spark: str
    ellipsis: str
    line: str
    chevron: str
    ok: str
    wrong: str


FULL = Glyphs(
    states={
        VmState.STOPPED: "○",
        VmState.STARTING: "◐",
        VmState.RUNNING: "●",
        VmState.STOPPING: "◑",
        VmState.ZOMBIE: "✖",
        VmState.DEBUGGING: "◆",
    },
    failed="✗",
    blocked="⊘",
    person="◉",
    outdated="↻",
    mark="▌",
    cursor="▸",
    up="▲",
    down="▼",
    branch="├─",
    last_branch="└─",
    dot="·",
    bar="█",
    bar_rest="░",
    spark="▁▂▃▄▅▆▇█",
    ellipsis="…",
    line="─",
    chevron="→",
    ok="✓",
    wrong="✗",
)

ASCII = Glyphs(
    states={
        VmState.STOPPED: "o",
        VmState.STARTING: ">",
        VmState.RUNNING: "*",
        VmState.STOPPING: "<",
        VmState.ZOMBIE: "X",
        VmState.DEBUGGING: "d",
    },
    failed="!",
    blocked="#",
    person="@",
    outdated="~",
    mark="|",
    cursor=">",
    up="^",
    down="v",
    branch="|-",
    last_branch="`-",
    dot="-",
    bar="#",
    bar_rest=".",
    spark="_.-=+*#@",
    ellipsis="~",
    line="-",
    chevron=">",
    ok="+",
    wrong="!",
)


def glyphs_for(environment: Mapping[str, str], encoding: str) -> Glyphs:
    """The set that a terminal can draw: ASCII where others may be missing, or if QVD_TUI_ASCII is set."""
    poor = environment.get("TERM", "") in {"linux", "vt100", "vt102", "vt220", "dumb", "ansi"}
    if environment.get("QVD_TUI_ASCII") or poor or encoding.upper().replace("-", "") != "UTF8":
        return ASCII
    return FULL
