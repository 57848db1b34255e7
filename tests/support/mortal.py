"""Tasks that die with the block in which they were begun."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator


class SuddenDeath(Exception):
    """The block has ended."""


@contextlib.asynccontextmanager
async def mortal() -> AsyncIterator[asyncio.TaskGroup]:
    """A group whose tasks are cancelled at the end: they alone, and nothing that they wait for shielded."""
    try:
        async with asyncio.TaskGroup() as tasks:
            yield tasks
            raise SuddenDeath
    except* SuddenDeath:
        pass
