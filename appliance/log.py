"""Logging set-up and context: one line per fact, to stderr, for the journal, and to a file if one is named.

The message is a short constant sentence; facts go in as keyword context and come out as
`key=value`, in the order given. Secrets show as `***`. The journal gets each line with its priority in
front, as sd-daemon(3) wants it, and no time, which it has of its own.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from logging.handlers import WatchedFileHandler
from pathlib import Path
from typing import TextIO

from appliance.errors import ConfigError

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
PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}
"""Ours in the words of syslog(3)."""
FILE_MODE = 0o600
LONGEST_LINE = 8192
"""Characters. journald cuts a line of 48 KiB in two, and takes the rest, a stranger's words perhaps, for a
record of its own; and whoever may send long words must not fill the disk with them."""


def facts(**context: object) -> dict[str, dict[str, object]]:
    """The `extra` of a logging call: `logger.info("phase changed", extra=facts(vm=12))`."""
    return {"facts": context}


class FactFormatter(logging.Formatter):
    """Appends the facts of a record to its message as `key=value`, quoting values with blanks."""

    def format(self, record: logging.LogRecord) -> str:
        words = [*self.head(record), record.name.removeprefix("appliance.")]
        words.append(_harmless(record.getMessage()))
        words += _rendered(getattr(record, "facts", {}).items())
        lines = [" ".join(words)]
        if record.exc_info:
            # Set in, so that no word of a stranger in it can pass for a record.
            lines += [f"    {_harmless(line)}" for line in self.formatException(record.exc_info).splitlines()]
        return "\n".join(self.mark(record) + _bounded(line) for line in lines)

    def head(self, record: logging.LogRecord) -> list[str]:
        """What stands before the name of the logger: when, and how grave."""
        instant = datetime.fromtimestamp(record.created, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3]
        return [f"{instant}Z", record.levelname]

    def mark(self, record: logging.LogRecord) -> str:
        """What stands before each line of a record."""
        return ""


class JournalFormatter(FactFormatter):
    """For stderr if it leads to the journal, which knows the time and wants the priority as a number."""

    def head(self, record: logging.LogRecord) -> list[str]:
        return []

    def mark(self, record: logging.LogRecord) -> str:
        return f"<{PRIORITIES.get(record.levelno, 6)}>"


def _rendered(items: Iterable[tuple[str, object]]) -> list[str]:
    shown = []
    for key, value in items:
        if value is None:
            continue
        text = str(value)
        plain = text.isprintable() and " " not in text and text
        shown.append(f"{key}={text}" if plain else f"{key}={text!r}")
    return shown


def _bounded(line: str) -> str:
    return line if len(line) <= LONGEST_LINE else f"{line[:LONGEST_LINE]}…"


def _harmless(message: str) -> str:
    """`message` as one line that no terminal obeys: strangers' words may be in it."""
    if message.isprintable():
        return message
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in message)


def leads_to_journal(stream: TextIO, environment: Mapping[str, str] = os.environ) -> bool:
    """Whether what is written to `stream` goes to the journal, as systemd has told in `$JOURNAL_STREAM`."""
    told = environment.get("JOURNAL_STREAM", "")
    try:
        there = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return told == f"{there.st_dev}:{there.st_ino}"


def set_up(level: str, file: Path | None = None) -> None:
    """Send every logger's records to stderr and, if given, append them to `file`.

    The file may be renamed or removed at any time, as logrotate(8) does: a new one takes its place.

    :raises ConfigError: the file cannot be written
    """
    errors = logging.StreamHandler(sys.stderr)
    errors.setFormatter(JournalFormatter() if leads_to_journal(sys.stderr) else FactFormatter())
    handlers: list[logging.Handler] = [errors]
    if file is not None:
        try:
            os.close(os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, FILE_MODE))
            handlers.append(WatchedFileHandler(file))
        except OSError as exc:
            raise ConfigError(
                f"log.filename = {file}: the file cannot be written: {exc.strerror}",
                hint="make its directory, or set log.filename to another file",
            ) from exc
        handlers[-1].setFormatter(FactFormatter())
    root = logging.getLogger()
    root.handlers[:] = handlers
    root.setLevel(LEVELS.get(level.upper(), logging.INFO))
    for chatty in ("alembic", "aiosqlite", "asyncio", "httpcore", "httpx", "pyroute2", "sqlalchemy"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
