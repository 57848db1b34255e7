"""The real daemon with failpoints in it: `python -m tests.support.faulty_daemon NODE_CONF`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import uvloop

from appliance.daemon import Around, serve
from tests.support.faults import PLAN, Faults

if __name__ == "__main__":
    faults = Faults(Path(os.environ[PLAN]))
    uvloop.run(serve(Path(sys.argv[1]), Around(orders=faults.orders, sessions=faults.sessions)))
