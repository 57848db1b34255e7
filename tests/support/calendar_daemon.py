"""The real daemon under a calendar that a test moves; the last argument is its configuration."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import uvloop

from appliance.daemon import Around, serve
from tests.support.moved import DAYS, ClockOfFile

if __name__ == "__main__":
    uvloop.run(serve(Path(sys.argv[-1]), Around(clock=ClockOfFile(Path(os.environ[DAYS])))))
