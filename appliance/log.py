"""Logging set-up and context: one line per fact, to stderr, for the journal.

The message is a short constant sentence; facts go in as keyword context and come out as
`key=value`, in the order given. Secrets show as `***`.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

LEVELS = {
    "ALL": logging.DEBUG,
    "TRACE": logging.DEBUG,
    "DEBUG": logging.DEBUG,
    "INFO": logging.INFO,
    "WARN": logging.WARNING,
    "WARNING": logging.WARNING,
    "ERROR": logging.ERROR,
    "FATAL": logging.CRITICAL,
    "OFF": logging.CRITICAL + 10,
}
"""The level words of Log4perl, which QVD's `log.level` uses."""


def facts(**context: object) -> dict[str, dict[str, object]]:
    """The `extra` of a logging call: `logger.info("phase changed", extra=facts(vm=12))`."""
    return {"facts": context}


class FactFormatter(logging.Formatter):
    """Appends the facts of a record to its message as `key=value`, quoting values with blanks."""

    def format(self, record: logging.LogRecord) -> str:
        instant = datetime.fromtimestamp(record.created, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3]
        words = [f"{instant}Z", record.levelname, record.name.removeprefix("appliance.")]
        words.append(_harmless(record.getMessage()))
        words += _rendered(getattr(record, "facts", {}).items())
        line = " ".join(words)
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


def _rendered(items: Iterable[tuple[str, object]]) -> list[str]:
    shown = []
    for key, value in items:
        if value is None:
            continue
        text = str(value)
        plain = text.isprintable() and " " not in text and text
        shown.append(f"{key}={text}" if plain else f"{key}={text!r}")
    return shown


def _harmless(message: str) -> str:
    """`message` as one line that no terminal obeys: strangers' words may be in it."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in message)


def set_up(level: str, file: Path | None = None) -> None:
    """Send every logger's records to stderr and, if given, append them to `file`."""
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    if file is not None:
        handlers.append(logging.FileHandler(file, delay=True))
    for handler in handlers:
        handler.setFormatter(FactFormatter())
    root = logging.getLogger()
    root.handlers[:] = handlers
    root.setLevel(LEVELS.get(level.upper(), logging.INFO))
    for chatty in ("alembic", "aiosqlite", "asyncio", "pyroute2", "sqlalchemy"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
