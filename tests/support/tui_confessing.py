"""`qvd-tui` that tells, when it is asked by SIGUSR1, what it holds: tasks, widgets, objects of ours.

Run as `python -m tests.support.tui_confessing FILE [ARGUMENTS of qvd-tui]`. Each time it is asked, it adds a
line to the file. Nothing else is different: the asking process looks at memory and descriptors from outside.
"""

from __future__ import annotations

import asyncio
import collections
import gc
import json
import signal
import sys
import time
from pathlib import Path

from appliance.tui import main as tui


def confess(file: Path) -> None:
    """Let every TUI of this process tell what it holds."""
    from appliance.tui.app import QvdTui

    begin = QvdTui.on_mount

    def on_mount(self: QvdTui) -> None:
        begin(self)
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, tell, self)

    def tell(self: QvdTui) -> None:
        gc.collect()
        kinds = collections.Counter(
            type(each).__name__
            for each in gc.get_objects()
            if str(type(each).__module__).startswith("appliance.")
        )
        told = {
            "tasks": len(asyncio.all_tasks()),
            "widgets": sum(len(screen.query("*")) for screen in self.screen_stack),
            "objects": len(gc.get_objects()),
            "ours": kinds.most_common(8),
            "at": time.monotonic(),
        }
        with file.open("a") as log:
            log.write(json.dumps(told) + "\n")

    QvdTui.on_mount = on_mount  # type: ignore[method-assign]


if __name__ == "__main__":
    confess(Path(sys.argv[1]))
    sys.exit(tui.main(sys.argv[2:]))
