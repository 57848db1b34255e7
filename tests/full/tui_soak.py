"""`scripts/full tui_soak`: 10,000 changes of desktops, 1,000 attaches to consoles: what has the TUI grown by?

The TUI sits at a terminal and has a process of its own. Another process commits the changes, 50 a second; a
third is the hub of the consoles. Somebody opens the console of one desktop after another, waits for what the
guest says, and closes it; looks at every pane now and then, filters, marks, and opens and leaves dialogs.
Memory that is the TUI's alone (USS), descriptors, tasks and widgets after a tenth of all that and at the end
must be the same within ten per cent.

FULL_CHANGES and FULL_ATTACHES say how many.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks import tui_site
from benchmarks.terminals import Terminal, terminal
from benchmarks.tui import hkd
from benchmarks.tui_console import COMMANDING, KEYS_BACK, OPEN_CONSOLE, hub
from benchmarks.tui_site import Site
from tests.full.measurements import append

CHANGES = int(os.environ.get("FULL_CHANGES") or 10_000)
ATTACHES = int(os.environ.get("FULL_ATTACHES") or 1_000)
DESKTOPS = 300
GUESTS = 20
WITHIN = 0.1
FEW = 2
"""So many more of a few things, such as descriptors, are no growth."""
LATEST_S = 20.0
CLOSE, DOWN, TO_THE_TOP, DESKTOPS_PANE, ESCAPE = b"w", b"j", b"g", b"2", b"\x1b"
LOOK_EVERY = 50
"""After how many attaches somebody looks at everything else."""
LOOK_S, FIRST_LOOK_S = 0.5, 1.5
"""For how long somebody looks at each thing; the first time much must be loaded."""
SETTLE_S = 3.0
LOOKS = (
    *(b"1", b"3", b"4", b"5", b"6", b"7", b"8", DESKTOPS_PANE),  # every pane
    *(b"*", ESCAPE, TO_THE_TOP),  # all marked, none marked
    *(b"?", ESCAPE, b"\x10", ESCAPE, b"x", b"", ESCAPE),  # help, palette, a question that is not answered
    *(b"/", b"state=running\r", ESCAPE, ESCAPE),  # a filter
    *(b"\r", b"\r", b">", b"<"),  # details, another order
    *(b"l", b"l", DESKTOPS_PANE),  # the log of commands
)


@dataclass(frozen=True, slots=True)
class Weight:
    """What a TUI holds."""

    uss_kib: int
    descriptors: int
    tasks: int
    widgets: int
    objects: int

    def grown(self, first: Weight) -> list[str]:
        """In what it has become more than it may, since `first`."""
        pairs = {name: (getattr(first, name), getattr(self, name)) for name in self.__slots__}
        limits = {name: max(before * (1 + WITHIN), before + FEW) for name, (before, _) in pairs.items()}
        return [
            f"{name}: {pairs[name][0]}, then {pairs[name][1]}"
            for name in pairs
            if pairs[name][1] > limits[name]
        ]

    def __str__(self) -> str:
        """In words."""
        return (
            f"{self.uss_kib:,} KiB USS, {self.descriptors} descriptors, {self.tasks} tasks, "
            f"{self.widgets} widgets, {self.objects:,} objects"
        )


def main() -> int:
    """Let it run; 1 if anything has grown."""
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="qvd-soak-") as directory:
        first, last, done = soak(Path(directory))
    told = f"{done} changes, {ATTACHES} attaches. After a tenth: {first}. At the end: {last}."
    print(told)
    if grown := last.grown(first):
        print("grown:", *grown, sep="\n", file=sys.stderr)
        return 1
    append("A TUI for long (`scripts/full tui_soak`)", f"{told} {time.monotonic() - begun:.0f} s.")
    return 0


def soak(folder: Path) -> tuple[Weight, Weight, int]:
    """What it holds after a tenth and at the end, and how many changes there were."""
    site = tui_site.make(folder / "site", DESKTOPS)
    _let_run(site, GUESTS)
    guests = list(range(1, GUESTS + 1))
    others = {vm_id: vm for vm_id, vm in tui_site.lines(site).items() if vm_id not in guests}
    planned = list(tui_site.changes(others, CHANGES / tui_site.PER_S))
    told, first = folder / "told", None
    argv = [sys.executable, "-m", "tests.support.tui_confessing", str(told), "--config", str(site.config)]
    with hub(folder, site, guests, folder / "keys"), terminal(argv, site.environment) as program:
        program.shows(b"user", after=program.begun, limit_s=LATEST_S)
        with hkd(folder, site, planned, serves=False) as done:
            last_change = time.monotonic() + CHANGES / tui_site.PER_S
            look_around(program, FIRST_LOOK_S)
            for number in range(ATTACHES):
                attach(program, number % GUESTS)
                if (number + 1) % LOOK_EVERY == 0:
                    look_around(program)
                if number + 1 == ATTACHES // 10:
                    first = weigh(program, told)
                    print(f"after a tenth: {first}", flush=True)
                program.chunks.clear()
            time.sleep(max(0.0, last_change - time.monotonic()))
            look_around(program)
            last = weigh(program, told)
        assert first is not None
        return first, last, len(json.loads(done.read_text()))


def attach(program: Terminal, place: int) -> None:
    """Open the console of the desktop in a row, see what its guest says, and close it."""
    at = program.send(TO_THE_TOP + DOWN * place + OPEN_CONSOLE)
    program.shows(b"console of guest %05d" % (place + 1), after=at, limit_s=LATEST_S)
    at = program.send(KEYS_BACK)
    program.shows(COMMANDING, after=at, limit_s=LATEST_S)
    at = program.send(CLOSE)
    program.shows(b"No console is open", after=at, limit_s=LATEST_S)
    at = program.send(DESKTOPS_PANE)
    program.shows(b"desk-00001", after=at, limit_s=LATEST_S)


def look_around(program: Terminal, each_s: float = LOOK_S) -> None:
    """Do what else an administrator does."""
    for keys in LOOKS:
        program.send(keys)
        time.sleep(each_s)


def weigh(program: Terminal, told: Path) -> Weight:
    """What the TUI holds now."""
    time.sleep(SETTLE_S)
    lines = told.read_text().count("\n") if told.exists() else 0
    os.kill(program.pid, signal.SIGUSR1)
    over = time.monotonic() + LATEST_S
    while not told.exists() or told.read_text().count("\n") == lines:
        assert time.monotonic() < over, "the TUI does not answer"
        time.sleep(0.1)
    answer = json.loads(told.read_text().splitlines()[-1])
    rollup = Path(f"/proc/{program.pid}/smaps_rollup").read_text()
    private = [int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Private_")]
    return Weight(
        uss_kib=sum(private),
        descriptors=len(list(Path(f"/proc/{program.pid}/fd").iterdir())),
        tasks=answer["tasks"],
        widgets=answer["widgets"],
        objects=answer["objects"],
    )


def _let_run(site: Site, count: int) -> None:
    """Let the first desktops run, with nobody at them."""
    with contextlib.closing(sqlite3.connect(site.database)) as database, database:
        database.execute(
            "UPDATE vm_runtimes SET vm_state = 'running', vm_phase = 'running/monitoring', failure = NULL, "
            "failure_cause = NULL, failures = 0, user_state = 'disconnected', l7r_session = NULL "
            "WHERE vm_id <= ?",
            (count,),
        )


if __name__ == "__main__":
    sys.exit(main())
