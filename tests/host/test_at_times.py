"""What the appliance takes for a time is what Debian's at(1) takes for one, and the same."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import pytest

from tests.support.at_oracle import Oracle, Question, Verdict, oracle
from tests.support.at_times import cases, compare, ours

pytestmark = pytest.mark.host

EXPRESSIONS = 2_000
SEED = 5
"""Fixed, so that a red run is red again; `scripts/full at_times` goes by any seed."""


@pytest.fixture(scope="module")
def at() -> Iterator[Oracle]:
    """Debian's own."""
    with oracle() as made:
        yield made


def test_generated_expressions(at: Oracle) -> None:
    report = compare(at, cases(Random(SEED), EXPRESSIONS))
    print(report)
    assert not report.differences
    assert not report.missed
    assert min(report.verdicts[word] for word in ("at", "past", "garbled")) > EXPRESSIONS // 20


@pytest.mark.parametrize(
    ("now", "tz", "expression"),
    [
        (1_700_000_000, "Europe/Madrid", "now é and what you will"),
        (1_698_530_000, "Europe/Madrid", "now + 10 hours"),
        (1_698_530_000, "Europe/Madrid", "2:30 tomorrow"),
        (1_711_810_000, "Europe/Madrid", "2:30 tomorrow"),
        (1_709_164_800, "America/New_York", "29 feb + 1 year"),
        (1_706_659_200, "UTC", "now + 1 month"),
        (1_582_916_825, "Pacific/Apia", "friday + 120 weeks"),
        (1_538_281_353, "Pacific/Apia", "tomorrow + 2019 weeks"),
        (1_700_000_000, "UTC0", "10:60"),
        (1_700_000_000, "UTC0", "2460 31 feb"),
        (1_700_000_000, "UTC0", "10002030"),
        (1_700_000_000, "UTC0", "1.1.1900"),
    ],
)
def test_odd_verdicts(at: Oracle, now: int, tz: str, expression: str) -> None:
    question = Question(now, tz, tuple(expression.split()))
    assert [ours(question)] == at.ask([question])


def test_a_wrong_answer_would_be_seen(at: Oracle) -> None:
    """The comparison's own control: asked at another minute, `at` says something else."""
    question = Question(1_700_000_000, "UTC0", ("now",))
    assert at.ask([question]) == [Verdict("at", 1_699_999_980)]
    assert ours(Question(question.now + 60, "UTC0", ("now",))) != at.ask([question])[0]
