"""What the TUI follows, read by hand: thousands of rows quickly, then only those that changed.

The repositories of this package read whole records through SQLAlchemy, which takes longer to import than the
first screen may take, and a hundred times as long for ten thousand desktops as this. So the few lists that
a screen follows have their SQL here. Nothing here writes: the connection is opened read-only.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from appliance.errors import StoreError
from appliance.model import VmState
from appliance.storage.change_reader import ChangeReader

BUSY_TIMEOUT_S = 2.0
MANY = 2000
"""From so many changed rows on, reading all is quicker."""
EVENTS_SHOWN = 2000
JOINED = frozenset({"user", "osf", "di", "tag", "host"})
"""Nouns whose names and links show in the lines of desktops."""


class VmLine(NamedTuple):
    """A desktop as lists show it. Times are as stored: UTC, `YYYY-MM-DD HH:MM:SS[.ffffff]`."""

    id: int
    name: str
    user: str
    real_user: str | None
    user_ip: str | None
    osf: str
    backend: str
    tag: str
    ip: str | None
    host: str | None
    state: str
    phase: str
    cmd: str | None
    restart: int
    state_ts: str | None
    started_by: str | None
    user_state: str
    user_state_ts: str | None
    user_cmd: str | None
    di_id: int | None
    di: str | None
    next_di_id: int | None
    next_di: str | None
    next_blocked: int | None
    soft: str | None
    hard: str | None
    postponed: int
    asked: int
    blocked: int
    block_cause: str | None
    failure: str | None
    failures: int
    waits_for: str | None

    @property
    def outdated(self) -> bool:
        """Whether the next start would boot another image than the one that runs."""
        return None not in (self.di_id, self.next_di_id) and self.di_id != self.next_di_id

    @property
    def runs(self) -> bool:
        """Whether there is a guest, be it on its way up or down."""
        return self.state != VmState.STOPPED

    @property
    def has_user(self) -> bool:
        """Whether somebody is at it, or about to be."""
        return self.user_state != "disconnected"


class UserLine(NamedTuple):
    """An owner of desktops."""

    id: int
    login: str
    enabled: int
    uid: int
    vms: int
    running: int
    connected: int
    """At how many of their own desktops somebody is."""


class EventLine(NamedTuple):
    """One line of the audit log."""

    id: int
    at: str
    by: str
    what: str
    object: str
    was: str | None
    now: str | None


class AlarmLine(NamedTuple):
    """What somebody must look after."""

    id: int
    kind: str
    object: str
    text: str
    raised: str
    last: str
    times: int


_VMS = """
SELECT v.id, v.name, u.login, ru.login, r.user_ip, o.name, o.backend, v.di_tag, v.ip, h.name,
       r.vm_state, r.vm_phase, r.vm_cmd, r.restart, r.vm_state_ts, r.started_by,
       r.user_state, r.user_state_ts, r.user_cmd,
       r.current_di_id, d.version, n.id, n.version, n.blocked,
       r.vm_expiration_soft, r.vm_expiration_hard, r.expire_postponed, r.expire_asked,
       r.blocked, r.block_cause, r.failure, r.failures, r.waits_for
FROM vms v
JOIN vm_runtimes r ON r.vm_id = v.id
JOIN users u ON u.id = v.user_id
JOIN osfs o ON o.id = v.osf_id
LEFT JOIN users ru ON ru.id = r.real_user_id
LEFT JOIN hosts h ON h.id = r.host_id
LEFT JOIN dis d ON d.id = r.current_di_id
LEFT JOIN di_tags t ON t.osf_id = v.osf_id AND t.tag = v.di_tag
LEFT JOIN dis n ON n.id = t.di_id
"""
_THESE_VMS = f"{_VMS} WHERE v.id IN (SELECT value FROM json_each(?))"  # noqa: S608 - a constant
"""One text for any number of ids: SQLite takes longer to plan the statement than to run it."""
_USERS = """
SELECT u.id, u.login, u.enabled, u.uid, count(v.id),
       coalesce(sum(r.vm_state <> 'stopped'), 0), coalesce(sum(r.user_state <> 'disconnected'), 0)
FROM users u
LEFT JOIN vms v ON v.user_id = u.id
LEFT JOIN vm_runtimes r ON r.vm_id = v.id
GROUP BY u.id ORDER BY u.id
"""
_EVENTS = 'SELECT id, at, "by", what, object, was, now FROM events ORDER BY id DESC LIMIT ?'
_ALARMS = "SELECT id, kind, object, text, raised, last, count FROM alarms WHERE cleared IS NULL ORDER BY id"


@dataclass(frozen=True, slots=True)
class Delta:
    """What a look has found to be new."""

    whole: bool
    """Whether `vms` are all that there are; else only those that changed."""
    vms: Mapping[int, VmLine]
    gone: frozenset[int] = frozenset()
    nouns: frozenset[str] = field(default=frozenset())
    """The nouns of which something changed; with `whole`, everything may have."""


class LiveReader:
    """One read-only connection, used by one thread at a time."""

    def __init__(self, file: Path) -> None:
        """Open the database.

        :raises StoreError: there is none, or it cannot be read
        """
        try:
            file.stat()
        except FileNotFoundError:
            raise StoreError(f"there is no database {file}", hint="run qa admin init") from None
        except OSError as exc:
            raise StoreError(
                f"the database {file} cannot be read: {exc.strerror}", hint="run it as root"
            ) from exc
        self._file = file
        with self._explained():
            self._connection = sqlite3.connect(
                f"file:{quote(str(file))}?mode=ro",
                uri=True,
                isolation_level=None,
                check_same_thread=False,
                timeout=BUSY_TIMEOUT_S,
                cached_statements=64,
            )
            self._connection.execute("SELECT seq FROM changes LIMIT 1")
        self._identity = _identity(file)
        self._changes = ChangeReader(self._connection)
        self._version = -1
        self._seq: int | None = None

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    @property
    def is_replaced(self) -> bool:
        """Whether another file stands at the place of ours: what we read is of a file that is gone.

        :raises StoreError: there is none at all
        """
        if (identity := _identity(self._file)) is None:
            raise StoreError(f"there is no database {self._file} any more", hint="put it back")
        return identity != self._identity

    def look(self) -> Delta | None:
        """What changed since the last look, None if nothing was committed; everything at the first.

        :raises StoreError: the database cannot be read
        """
        with self._explained():
            version = self._connection.execute("PRAGMA data_version").fetchone()[0]
            if version == self._version:
                return None
            with self._moment():
                delta = self._changed()
            self._version = version
        return delta

    def users(self) -> list[UserLine]:
        """All users, by id."""
        return [UserLine._make(row) for row in self._all(_USERS)]

    def events(self, most: int = EVENTS_SHOWN) -> list[EventLine]:
        """The latest lines of the audit log, the newest first."""
        return [EventLine._make(row) for row in self._all(_EVENTS, most)]

    def alarms(self) -> list[AlarmLine]:
        """What is open."""
        return [AlarmLine._make(row) for row in self._all(_ALARMS)]

    def _all(self, sql: str, *values: object) -> list[tuple[object, ...]]:
        with self._explained():
            return self._connection.execute(sql, values).fetchall()

    def _changed(self) -> Delta:
        if self._seq is None or (found := self._changes.since(self._seq)) is None:
            newest = self._changes.newest()
            everything = self._vms(_VMS)
            self._seq = newest
            return Delta(True, everything)
        nouns = frozenset(found.objects)
        ids = found.objects.get("vm", frozenset())
        if nouns & JOINED or len(ids) > MANY:
            delta = Delta(True, self._vms(_VMS), nouns=nouns)
        else:
            vms = self._vms(_THESE_VMS, json.dumps(sorted(ids)))
            delta = Delta(False, vms, ids.difference(vms), nouns)
        self._seq = found.seq  # not before: what could not be read is read at the next look
        return delta

    def _vms(self, sql: str, *values: str) -> dict[int, VmLine]:
        return {row[0]: VmLine._make(row) for row in self._connection.execute(sql, values)}

    @contextmanager
    def _moment(self) -> Iterator[None]:
        """All that is read inside is of one moment."""
        self._connection.execute("BEGIN")
        try:
            yield
        finally:
            self._connection.execute("ROLLBACK")

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as exc:
            hint = "run qa admin init to migrate it" if "no such" in str(exc) else None
            raise StoreError(f"the database cannot be read: {exc} ({self._file})", hint=hint) from exc


def _identity(file: Path) -> tuple[int, int] | None:
    try:
        stat = file.stat()
    except OSError:
        return None
    return stat.st_dev, stat.st_ino
