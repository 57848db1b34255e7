"""What every benchmark ends with: figures for people, and one RESULT line for each target."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence


def spread(name: str, seconds: Sequence[float]) -> str:
    """One line about measured times: how many, the median, the extremes."""
    ms = sorted(second * 1000 for second in seconds)
    middle, p90 = statistics.median(ms), ms[min(len(ms) - 1, int(len(ms) * 0.9))]
    return f"{name:<28} n={len(ms):<4} p50={middle:8.1f} ms  p90={p90:8.1f} ms  max={ms[-1]:8.1f} ms"


def result(name: str, value: float, target: float) -> str:
    """The verdict on a ratio that should be `target` at most."""
    return f"RESULT {name} {value:.3f} {target:g} {'met' if value <= target else 'short'}"


def result_at_least(name: str, value: float, target: float) -> str:
    """The verdict on a share that should be `target` at least."""
    return f"RESULT {name} {value:.3f} {target:g} {'met' if value >= target else 'short'}"


def parts(table: Mapping[str, float], total: float) -> list[str]:
    """Where the time went: each part in milliseconds and as a share of the whole."""
    lines = [f"  {name:<34} {took * 1000:7.1f} ms  {took / total:6.1%}" for name, took in table.items()]
    named = sum(table.values())
    return [
        *lines,
        f"  {'named in all':<34} {named * 1000:7.1f} ms  {named / total:6.1%} of {total * 1000:.1f} ms",
    ]
