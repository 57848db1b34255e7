"""What a demo may not leave on its machine, beyond what `leftovers` finds by name."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from pathlib import Path

from scripts.trial import Trial, output, pivots
from tests.support.desktop import leftovers

INSTALLATION = re.compile(r"appliance runs .*\bid=([0-9a-f]{8})\b")


@dataclass(frozen=True, slots=True)
class Footprint:
    """The machine as it is outside every trial."""

    network: str
    groups: frozenset[Path]
    displays: frozenset[str]
    """X displays whose server is dead."""


def footprint() -> Footprint:
    """The machine as it is now."""
    network = [
        output("ip", "-o", "address"),
        output("ip", "-o", "route", "show", "table", "all"),
        output("nft", "list", "ruleset"),
        Path("/proc/sys/net/ipv4/ip_forward").read_text(),
    ]
    # How long an address is valid counts down.
    told = re.sub(r"(valid|preferred)_lft \S+", "", "\n".join(network))
    return Footprint(told, frozenset(pivots()), frozenset(dead_displays()))


def remove_pivots() -> None:
    """Remove LXC's empty control groups, so that new ones can be seen."""
    for group in pivots():
        with contextlib.suppress(OSError):
            group.rmdir()


def dead_displays() -> list[str]:
    """X locks whose server does not run."""
    dead = []
    for lock in Path("/tmp").glob(".X*-lock"):
        with contextlib.suppress(OSError, ValueError):
            if not Path(f"/proc/{int(lock.read_text())}").exists():
                dead.append(lock.name)
    return dead


def installations(directory: Path) -> list[str]:
    """The ids of the installations that ran in a directory, as their log tells them."""
    return sorted(set(INSTALLATION.findall((directory / "appliance.log").read_text())))


def remains(directory: Path, temporary: Path) -> list[str]:
    """What the demos in a directory have left; `temporary` was their TMPDIR."""
    trial = Trial(directory)
    ids = installations(directory)
    assert ids, f"no daemon ever ran in {directory}"
    left = [trace for id_ in ids for trace in leftovers(trial, id_)]
    left += [f"process {pid} {Path(f'/proc/{pid}/comm').read_text().strip()}" for pid in trial.processes()]
    return sorted({*left, *(path.name for path in temporary.iterdir())})
