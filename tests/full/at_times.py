"""`scripts/full at_times`: 20,000 expressions, judged by Debian's at(1) and by the appliance.

FULL_AT_TIMES says how many, AT_TIMES_SEED plays a seed again.
"""

from __future__ import annotations

import os
import random
import sys
import time

from tests.full.measurements import append
from tests.support.at_oracle import oracle
from tests.support.at_times import cases, compare

EXPRESSIONS = 20_000


def main() -> int:
    """Compare, tell, and write the figures down; 1 if anything differs or a production was not met."""
    seed = int(os.environ.get("AT_TIMES_SEED") or random.randrange(1 << 32))
    count = int(os.environ.get("FULL_AT_TIMES") or EXPRESSIONS)
    print(f"seed {seed}, {count} expressions")
    begun = time.monotonic()
    with oracle() as at:
        report = compare(at, cases(random.Random(seed), count))
    print(f"at_times: {report}")
    if report.differences or report.missed:
        print(*report.differences, *(f"not met: {one}" for one in report.missed), sep="\n", file=sys.stderr)
        return 1
    append(
        "Time expressions against at(1) (`scripts/full at_times`)",
        f"Seed {seed}: {report}; {time.monotonic() - begun:.0f} s.",
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
