"""Damage that is done to an installation on purpose, and what the checker of invariants must say of it."""

from __future__ import annotations

import asyncio
import os
import re
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from scripts.trial import BELONGS
from tests.support.invariants import Grounds
from tests.support.ordeal import Ordeal

Damage = Callable[[Grounds], Iterator[None]]
"""Does it, waits, and undoes it."""
SEEN_WITHIN_S = 20.0


class Damages:
    """Kinds of damage, each by the expression that the checker's line must match."""

    def __init__(self) -> None:
        self._made: list[tuple[str, Damage]] = []

    def add(self, seen_as: str) -> Callable[[Damage], Damage]:
        """Register something that the checker must tell by this expression."""

        def register(made: Damage) -> Damage:
            self._made.append((seen_as, made))
            return made

        return register

    def rewritten(self, seen_as: str, change: str, back: str) -> None:
        """Register a change of the database."""

        def made(grounds: Grounds) -> Iterator[None]:
            execute(grounds, change)
            yield
            execute(grounds, back)

        self.add(seen_as)(made)

    def created(self, seen_as: str, where: Callable[[Grounds], Path], *, folder: bool = False) -> None:
        """Register a file or folder too many."""

        def made(grounds: Grounds) -> Iterator[None]:
            path = where(grounds)
            if folder:
                path.mkdir()
            else:
                path.touch()
            yield
            if folder:
                path.rmdir()
            else:
                path.unlink()

        self.add(seen_as)(made)

    def started(self, seen_as: str, begin: Callable[[Grounds], subprocess.Popen[bytes]]) -> None:
        """Register a process too many."""

        def made(grounds: Grounds) -> Iterator[None]:
            process = begin(grounds)
            yield
            process.kill()
            process.wait()

        self.add(seen_as)(made)

    def filtered(self, link: str, family: str) -> None:
        """Register a link that the packet filter knows and should not."""

        def made(_: Grounds) -> Iterator[None]:
            tool("nft", f"add table {family} extra; add set {family} extra s {{ type ifname; {elements} }}")
            yield
            tool("nft", f"delete table {family} extra")

        elements = f"elements = {{ {link} }};"
        self.add(f"the packet filter knows {link}")(made)

    async def are_named(self, on: Ordeal) -> None:
        """Do each of them, have it told, and undo it.

        :raises AssertionError: one is not told
        """
        for seen_as, made in self._made:
            with contextmanager(made)(on.grounds):
                await named_soon(on, seen_as)


def left_behind(grounds: Grounds) -> subprocess.Popen[bytes]:
    """A process of the installation that nobody needs."""
    return subprocess.Popen(["sleep", "60"], env={**os.environ, BELONGS: str(grounds.directory)})


async def named_soon(on: Ordeal, seen_as: str) -> None:
    """Wait until the checker says what matches: a new process needs a moment to be itself.

    :raises AssertionError: it does not
    """
    found: list[str] = []
    try:
        async with asyncio.timeout(SEEN_WITHIN_S):
            while not any(re.search(seen_as, line) for line in found):
                found = await asyncio.to_thread(on.violations)
    except TimeoutError:
        raise AssertionError(f"not seen: {seen_as}; but {found}") from None


def execute(grounds: Grounds, statement: str) -> None:
    """Change the database without its rules."""
    with closing(sqlite3.connect(grounds.paths.root / "qvd.db", isolation_level=None)) as connection:
        connection.execute("PRAGMA ignore_check_constraints = ON")
        connection.execute(statement)


def tool(*words: str) -> str:
    """Run a tool that must succeed; what it prints."""
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()
