"""`qvd-tui`: the administrator's screen. What must be right before the first picture is checked here."""

from __future__ import annotations

import argparse
import getpass
import locale
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from appliance import config
from appliance.clock import SystemClock
from appliance.errors import ApplianceError

DONE, FAILED, USAGE = 0, 1, 2
SIZES = ("COLUMNS", "LINES")
"""Variables of the environment that Textual would believe more than the terminal."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the TUI; returns the exit status."""
    try:
        options = _parser().parse_args(argv)
    except SystemExit as exc:
        return USAGE if exc.code else DONE
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        print("Error: qvd-tui needs a terminal (qa does the same without one)", file=sys.stderr)
        return USAGE
    _let_the_terminal_tell_its_size()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # an end, with the terminal given back
    try:
        return _run(options.config, read_only=options.readonly)
    except ApplianceError as exc:
        print(f"Error: {exc}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:  # before Textual takes the keys
        return FAILED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="qvd-tui", description="Shows desktops, images and sessions live, and works on them."
    )
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="the configuration; else $QVD_CONFIG, else /etc/qvd/node.conf",
    )
    parser.add_argument("--readonly", action="store_true", help="look, and change nothing")
    return parser


def _let_the_terminal_tell_its_size() -> None:
    """Forget sizes that somebody has exported, unless the terminal knows none, as on a serial line."""
    if all(os.get_terminal_size(sys.stdout.fileno())):
        for name in SIZES:
            os.environ.pop(name, None)


def _run(config_file: Path | None, *, read_only: bool) -> int:
    from appliance.tui.columns import Scene
    from appliance.tui.glyphs import glyphs_for
    from appliance.tui.opening import Opening
    from appliance.tui.remembered import Remembered, usual_file
    from appliance.tui.where import database_path

    settings = config.read_file(config.find_file(config_file))
    config.vetted(settings.written, settings.source)
    clock = SystemClock()
    glyphs = glyphs_for(os.environ, locale.getencoding())
    remembered = Remembered.read(usual_file(os.environ))
    opening = Opening(
        database_path(settings),
        remembered,
        Scene(clock.now(), glyphs),
        node=settings[config.NODENAME],
        read_only=read_only,
    )
    with opening:
        from appliance.tui.app import QvdTui
        from appliance.tui.calls import Caller
        from appliance.tui.database import Database
        from appliance.tui.site import Site

        site = Site(
            config_file=config_file,
            settings=settings,
            database=Database(settings),
            caller=Caller(config_file),
            calendar=clock,
            glyphs=glyphs,
            read_only=read_only,
            who=_who(),
            tally=opening.tally,
            _reader=opening.reader,
        )
        app = QvdTui(site, clock, remembered)
        app.driver_class = opening.driver() or app.driver_class
        app.run()
    return app.return_code or DONE


def _who() -> str:
    name = os.environ.get("SUDO_USER") or getpass.getuser()
    try:
        return f"{name} on {os.ttyname(0)}"
    except OSError:
        return name


if __name__ == "__main__":
    sys.exit(main())
