"""The real daemon with failpoints in it: `python -m tests.support.faulty_daemon NODE_CONF`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import uvloop

from appliance.daemon import Around, serve
from appliance.runtime.actions import ACTION_TYPES, Background
from tests.support.faults import LIMIT, PLAN, Faults

if __name__ == "__main__":
    for kind in ACTION_TYPES if LIMIT in os.environ else ():
        if not issubclass(kind, Background):
            kind.limit_s = min(kind.limit_s, float(os.environ[LIMIT]))
    faults = Faults(Path(os.environ[PLAN]))
    uvloop.run(serve(Path(sys.argv[1]), Around(orders=faults.orders, sessions=faults.sessions)))
