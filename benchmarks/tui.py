"""What `qvd-tui` costs while 50 desktops a second change, against a plain Textual DataTable at the same rate.

Each program sits at a terminal of its own, 120 by 40, which only counts and keeps what it sends. Another
process commits the changes to the database, as the HKD does, one by one, spread over all desktops, and tells
what guests use every two seconds. The DataTable shows the same columns of the same rows, read from the same
database; it is told of the same changes in its own process, for nothing, and follows no countdowns.

In each round, turn and turn about: the time from exec until twenty names of desktops are on the screen, and
processor time (of /proc/PID/stat) and bytes over a stretch of time. Then keys: the cursor goes down in the
TUI, a number goes up in an app that does nothing else, one after the other, while changes go on; and changes
of desktops that are on the screen are timed from their commit until the terminal has them.

BENCH_VMS (a list), BENCH_ROUNDS, BENCH_SECONDS and BENCH_KEYS choose how much of it.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import tui_site
from benchmarks.report import result, spread
from benchmarks.terminals import Terminal, terminal
from benchmarks.tui_site import Change, Site
from scripts.trial import BIN, ROOT

SIZES = tuple(int(word) for word in os.environ.get("BENCH_VMS", "1000 10000").split())
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3"))
SECONDS = float(os.environ.get("BENCH_SECONDS", "20"))
KEYS = int(os.environ.get("BENCH_KEYS", "100"))
SETTLE_S = 3.0
SEEN_NAMES = 20
MARKED_PER_S = 4
PRESS_EVERY_S = 0.05
DOWN, TO_THE_TOP = b"j", b"g"
CPU_TARGET, START_TARGET, BYTES_TARGET, KEY_TARGET_MS = 0.1, 0.5, 20.0, 50.0


@dataclass
class Figures:
    """Of one program."""

    starts: list[float] = field(default_factory=list)
    """Seconds from exec until names are there."""
    cpu: list[float] = field(default_factory=list)
    """Share of one core."""
    bytes_per_s: list[float] = field(default_factory=list)


def main() -> int:
    """Measure, tell, and leave nothing behind."""
    lines: list[str] = []
    for count in SIZES:
        with tempfile.TemporaryDirectory(prefix="qvd-bench-") as directory:
            lines += measure(Path(directory), count)
    text = "\n".join(lines) + "\n"
    print(text, end="")
    report = ROOT / "bench" / "tui.txt"
    report.parent.mkdir(exist_ok=True)
    report.write_text(text)
    return 0


def measure(folder: Path, count: int) -> list[str]:
    """All that is measured with one number of desktops."""
    site = tui_site.make(folder / "site", count)
    ours, peer = Figures(), Figures()
    for turn in range(ROUNDS):
        sides = [(ours, _one_of_ours), (peer, _one_of_theirs)]
        for figures, side in sides if turn % 2 else sides[::-1]:
            with side(folder, site, SETTLE_S + SECONDS + 30, turn) as program:
                _watch(program, figures)
    keys, idle_keys, live, first_key, idle_first_key = _react(folder, site, count)
    cpu = [mine / other for mine, other in zip(ours.cpu, peer.cpu, strict=True)]
    starts = [mine / other for mine, other in zip(ours.starts, peer.starts, strict=True)]
    later = (_p95(keys) - _p95(idle_keys)) * 1000
    return [
        f"{count} desktops, {tui_site.PER_S} changes a second, {ROUNDS} rounds of {SECONDS:g} s:",
        _shares("  CPU, ours", ours.cpu),
        _shares("  CPU, a DataTable", peer.cpu),
        spread("  names on the screen, ours", ours.starts),
        spread("  names, a DataTable", peer.starts),
        f"  first key answered, ours {first_key * 1000:.0f} ms, idle app {idle_first_key * 1000:.0f} ms",
        _rates("  to the terminal, ours", ours.bytes_per_s),
        _rates("  to the terminal, DataTable", peer.bytes_per_s),
        spread("  key to repaint, ours", keys),
        spread("  key to repaint, idle app", idle_keys),
        f"  key to repaint, p95: ours {_p95(keys) * 1000:.1f} ms, idle app {_p95(idle_keys) * 1000:.1f} ms",
        spread("  commit to screen", live),
        f"  commit to screen, p95: {_p95(live) * 1000:.0f} ms (promised: 250)",
        result(f"tui.cpu.{count}", statistics.median(cpu), CPU_TARGET),
        result(f"tui.start.{count}", statistics.median(starts), START_TARGET),
        result(f"tui.kb_per_s.{count}", statistics.median(ours.bytes_per_s) / 1000, BYTES_TARGET),
        result(f"tui.key_later_ms.{count}", later, KEY_TARGET_MS),
    ]


def _watch(program: Terminal, figures: Figures) -> None:
    seen = program.shows_many(tui_site.NAME, SEEN_NAMES)
    figures.starts.append(seen - program.begun)
    time.sleep(SETTLE_S)
    begun, before = time.monotonic(), program.cpu_s()
    time.sleep(SECONDS)
    over, after = time.monotonic(), program.cpu_s()
    figures.cpu.append((after - before) / (over - begun))
    figures.bytes_per_s.append(program.bytes_between(begun, over) / (over - begun))


@contextlib.contextmanager
def _one_of_ours(folder: Path, site: Site, seconds: float, seed: int) -> Iterator[Terminal]:
    with (
        hkd(folder, site, list(tui_site.changes(tui_site.lines(site), seconds, seed=seed))),
        tui(site) as program,
    ):
        yield program


@contextlib.contextmanager
def _one_of_theirs(folder: Path, site: Site, seconds: float, seed: int) -> Iterator[Terminal]:
    before = tui_site.lines(site)
    planned = list(tui_site.changes(before, seconds, seed=seed))
    plan = tui_site.write(folder / "peer.json", tui_site.peer_plan(site, before, planned))
    with terminal([sys.executable, "-m", "benchmarks.tui_peers", "table", plan], site.environment) as program:
        yield program


def tui(site: Site) -> contextlib.AbstractContextManager[Terminal]:
    """Our program at a terminal."""
    return terminal([BIN / "qvd-tui", "--config", site.config], site.environment)


@contextlib.contextmanager
def hkd(folder: Path, site: Site, planned: Sequence[Change], *, serves: bool = True) -> Iterator[Path]:
    """The process that commits changes, begun; and where it writes at its end what it has committed.

    Unless it `serves`, somebody else does that at the control socket.
    """
    plan = tui_site.write(
        folder / "hkd.json",
        {
            "database": str(site.database),
            "control": str(site.control) if serves else None,
            "running": [vm.id for vm in tui_site.lines(site).values() if vm.state == "running"],
            "changes": [(change.at_s, change.vm_id, change.values) for change in planned],
        },
    )
    done = plan.with_suffix(".done")
    done.unlink(missing_ok=True)
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.tui_hkd", plan], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == b"ready\n"
        process.stdin.write(b"go\n")
        process.stdin.flush()
        yield done
    finally:
        process.stdin.close()
        status = process.wait(20)
        process.stdout.close()
    assert status == 0, f"the process that commits ended with {status}"


def _react(
    folder: Path, site: Site, count: int
) -> tuple[list[float], list[float], list[float], float, float]:
    """Seconds from keys to repaints, ours and an idle app's; from commits to the screen; to first answers."""
    seconds = SETTLE_S + KEYS * 0.5 + 30
    planned = list(tui_site.changes(tui_site.lines(site), seconds, seed=99))
    marked = [
        Change(number / MARKED_PER_S, 1 + number % 20, {"waits_for": f"t{number:05}"})
        for number in range(int(seconds * MARKED_PER_S))
    ]
    planned = sorted(planned + marked, key=lambda change: change.at_s)
    dice, keys, idle_keys = random.Random(count), list[float](), list[float]()
    with hkd(folder, site, planned) as done:
        idle_argv = [sys.executable, "-m", "benchmarks.tui_peers", "idle"]
        with terminal(idle_argv, site.environment) as idle:
            idle_first = _press_until(idle, lambda sent: b"counted" in sent)
            with tui(site) as ours:
                first = _press_until(ours, _has_moved)
                ours.send(TO_THE_TOP)
                time.sleep(SETTLE_S)
                live_from = time.monotonic()
                time.sleep(SETTLE_S * 3)
                live_until = time.monotonic()
                for _ in range(KEYS):
                    time.sleep(dice.uniform(0.05, 0.2))
                    at = ours.send(DOWN)
                    keys.append(ours.shows("▸".encode(), after=at) - at)
                    time.sleep(dice.uniform(0.05, 0.1))
                    at = idle.send(DOWN)
                    idle_keys.append(idle.shows(b"counted", after=at) - at)
    live = []
    for at, _, values in json.loads(done.read_text()):
        if "waits_for" in values and live_from <= at < live_until - 1:
            came = ours.came(f"waits: {values['waits_for']}".encode(), at)
            assert came is not None, f"{values['waits_for']} never came to the screen"
            live.append(came - at)
    return keys, idle_keys, live, first, idle_first


def _press_until(program: Terminal, reached: Callable[[bytes], bool]) -> float:
    """Press a key again and again from the start until it does something; how long that took."""
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        came = pool.submit(
            program.reaches, reached, after=program.begun, limit_s=20, what="an answer to a key"
        )
        while not came.done():
            program.send(DOWN)
            time.sleep(PRESS_EVERY_S)
        return came.result() - program.begun


def _has_moved(sent: bytes) -> bool:
    """Whether the sign of the cursor was drawn before another name than the first."""
    place = sent.rfind("▸".encode())
    found = sent.find(b"desk-", place)
    return 0 <= place < found and not sent[found:].startswith(b"desk-00001")


def _p95(values: Sequence[float]) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * 0.95))]


def _shares(name: str, shares: Sequence[float]) -> str:
    told = ", ".join(f"{share:.2%}" for share in shares)
    return f"{name:<28} {told} of a core"


def _rates(name: str, rates: Sequence[float]) -> str:
    return f"{name:<28} {', '.join(f'{rate / 1000:.1f}' for rate in rates)} kB/s"


if __name__ == "__main__":
    sys.exit(main())
