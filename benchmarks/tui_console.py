"""A guest floods its console while `qvd-tui` shows it: what does that do to the HKD, and to keys?

The hub and its control socket run in a process of their own, on the daemon's kind of loop; the guest is a
process that prints as fast as its line takes it, and notes when keys come. The TUI sits at a terminal of 120
by 40 that counts and keeps what it sends. Measured are how late the hub's loop wakes a task that sleeps 5 ms,
how long a key takes from the terminal to the guest, and, as nothing should be bought with that, how long the
TUI takes for a key of its own meanwhile. Before and after the flood the same is measured in silence.

BENCH_KEYS says how many keys.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import string
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from benchmarks import tui_site
from benchmarks.report import result, spread
from benchmarks.terminals import Terminal
from benchmarks.tui import tui
from benchmarks.tui_site import Site
from scripts.trial import ROOT

KEYS = int(os.environ.get("BENCH_KEYS", "200"))
QUIET_S = 5.0
CALMS_WITHIN_S = 20.0
LAG_TARGET_MS, KEY_TARGET_MS = 20.0, 200.0
OPEN_CONSOLE, KEYS_BACK, TYPE = b"c", b"\x1d", b"i"
TYPING, COMMANDING = b"gives the keys back", b"take over"


def main() -> int:
    """Measure, tell, and leave nothing behind."""
    with tempfile.TemporaryDirectory(prefix="qvd-bench-") as directory:
        lines = measure(Path(directory))
    text = "\n".join(lines) + "\n"
    print(text, end="")
    report = ROOT / "bench" / "tui_console.txt"
    report.parent.mkdir(exist_ok=True)
    report.write_text(text)
    return 0


def measure(folder: Path) -> list[str]:
    """One flood."""
    site = tui_site.make(folder / "site", 50)
    first = tui_site.first_running(site)
    noted = folder / "keys"
    own: list[float] = []
    with hub(folder, site, [first], noted) as (orders, done), tui(site) as program:
        program.shows_many(tui_site.NAME, 20)
        time.sleep(2)
        open_console(program, first)
        _say(orders, "quiet")
        time.sleep(QUIET_S)
        _say(orders, "flood")
        program.shows(b"flood:", after=time.monotonic(), limit_s=20)
        time.sleep(2)
        begun, before = time.monotonic(), program.cpu_s()
        sent = _type(program)
        own = _own_keys(program)
        over, cpu = time.monotonic(), program.cpu_s() - before
        _say(orders, "calm")
        time.sleep(QUIET_S)
        said = time.monotonic()
        program.send(KEYS_BACK)
        program.shows(COMMANDING, after=said, limit_s=CALMS_WITHIN_S)
    lags = json.loads(done.read_text())
    to_guest = _arrivals(noted, sent)
    lag, key = _percentile(lags["flood"], 0.99), _percentile(to_guest, 0.95)
    return [
        "A guest floods its console; the TUI shows it:",
        *(spread(f"  loop lag, {phase}", lags[phase]) for phase in ("quiet", "flood", "calm")),
        f"  loop lag, p99: quiet {_percentile(lags['quiet'], 0.99) * 1000:.1f} ms, flood {lag * 1000:.1f} ms",
        spread("  key to the guest", to_guest),
        spread("  the TUI's own keys", own),
        f"  the TUI: CPU {cpu / (over - begun):.1%} of a core, "
        f"{program.bytes_between(begun, over) / (over - begun) / 1000:.1f} kB/s to the terminal",
        result("console.lag_ms", lag * 1000, LAG_TARGET_MS),
        result("console.key_ms", key * 1000, KEY_TARGET_MS),
    ]


@contextlib.contextmanager
def hub(folder: Path, site: Site, guests: Sequence[int], keys: Path) -> Iterator[tuple[IO[bytes], Path]]:
    """The hub's process: where it is told what to do, and where it writes at its end what it noted."""
    plan = tui_site.write(
        folder / "hub.json", {"control": str(site.control), "guests": list(guests), "keys": str(keys)}
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.console_hub", plan], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == b"ready\n"
        yield process.stdin, plan.with_suffix(".done")
    finally:
        process.stdin.close()
        status = process.wait(20)
        process.stdout.close()
    assert status == 0, f"the hub ended with {status}"


def open_console(program: Terminal, vm_id: int) -> None:
    """Find a desktop by its name, and open its console."""
    program.send(b"/")
    time.sleep(0.3)
    program.send(f"desk-{vm_id:05}\r".encode())
    time.sleep(1)
    at = program.send(OPEN_CONSOLE)
    program.shows(b"console of guest %05d" % vm_id, after=at)


def _say(orders: IO[bytes], order: str) -> None:
    orders.write(order.encode() + b"\n")
    orders.flush()


def _type(program: Terminal) -> list[tuple[float, str]]:
    dice, sent = random.Random(1), []
    for number in range(KEYS):
        key = string.ascii_lowercase[number % 26]
        sent.append((program.send(key.encode()), key))
        time.sleep(dice.uniform(0.02, 0.12))
    time.sleep(2)
    return sent


def _own_keys(program: Terminal) -> list[float]:
    dice, took = random.Random(2), []
    for _ in range(KEYS // 8):
        for key, shown in ((KEYS_BACK, COMMANDING), (TYPE, TYPING)):
            at = program.send(key)
            took.append(program.shows(shown, after=at) - at)
            time.sleep(dice.uniform(0.05, 0.15))
    return took


def _arrivals(noted: Path, sent: Sequence[tuple[float, str]]) -> list[float]:
    came = [(float(line.split(" ", 1)[0]), line.split(" ", 1)[1]) for line in noted.read_text().splitlines()]
    assert [key for _, key in came] == [key for _, key in sent], "keys were lost, doubled or mixed up"
    return [arrived - at for (arrived, _), (at, _) in zip(came, sent, strict=True)]


def _percentile(values: Sequence[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


if __name__ == "__main__":
    sys.exit(main())
