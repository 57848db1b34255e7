"""Which objects have changed since a moment: reads the journal that `changes.py` has SQLite keep.

A program that shows ten thousand rows asks here after each commit, and reads again only what it is told.

Nothing here loads SQLAlchemy: a screen must be there at once.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Noun(StrEnum):
    """What an entry of the journal is about, and whose id it gives."""

    VM = "vm"
    """A VM: its settings, its runtime row, its properties."""
    USER = "user"
    OSF = "osf"
    DI = "di"
    TAG = "tag"
    """A tag; the id is that of its OSF."""
    HOST = "host"
    SETTING = "setting"
    """Any setting; the id is 0."""
    ALARM = "alarm"
    OPERATION = "operation"


@dataclass(frozen=True, slots=True)
class Changes:
    """What happened after a moment, up to another."""

    seq: int
    """The newest entry that is in here: where to go on."""
    objects: Mapping[str, frozenset[int]]
    """For each noun the ids of what was added, altered or removed; nouns without any are not there."""


class ChangeReader:
    """Reads the journal on an open connection; others may write meanwhile.

    To miss nothing, ask `newest` first, then read all rows, then ask `since` that number again and again.
    What changes between two of these is told once more, never left out: SQLite lets one writer at a time
    in, so entries are numbered in the order of their commits, and none appears below one already seen. (The
    numbers of a transaction that was rolled back are given again; nobody but its writer saw them.)

    Every method raises `sqlite3.Error` if the database cannot be read, or has no journal.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def newest(self) -> int:
        """The number of the newest entry there ever was; 0 if there was none."""
        row = self._connection.execute(_NEWEST).fetchone()
        return int(row[0])

    def since(self, seq: int) -> Changes | None:
        """What has changed after entry `seq`; None: nobody knows, read everything anew, from `newest` on.

        The journal does not know if it no longer reaches back that far, or has never come to `seq`: then
        another database has taken its place.
        """
        rows = self._connection.execute(_SINCE, (seq,)).fetchall()
        newest, first, *_ = rows[0]
        if first is None:  # Not even `seq` is there: nothing came after it, unless it is not ours.
            return Changes(seq, {}) if newest == seq else None
        if first > seq + 1:
            return None
        objects: defaultdict[str, set[int]] = defaultdict(set)
        for _, number, noun, object_id in rows:
            if number > seq:
                objects[noun].add(object_id)
        return Changes(rows[-1][1], {noun: frozenset(ids) for noun, ids in objects.items()})


_NEWEST = "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'changes'"
_SINCE = """
    SELECT given.seq, changes.seq, noun, object_id
    FROM (SELECT coalesce(max(seq), 0) AS seq FROM sqlite_sequence WHERE name = 'changes') AS given
    LEFT JOIN changes ON changes.seq >= ?
    ORDER BY changes.seq
"""
"""One statement, so that it sees one moment. It finds the entry asked about, too: while that is there, none
after it is gone."""
