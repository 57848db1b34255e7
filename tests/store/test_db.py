"""What is special about SQLite, and what becomes of its errors."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from pathlib import Path

import pytest

from appliance.errors import StoreError
from appliance.storage.db import CommitWatch
from appliance.storage.migrate import upgrade
from appliance.storage.store import Store, Tx
from tests.support.store import StillCalendar, fresh_store, url


async def test_commits_of_others_are_noticed_once(tmp_path: Path) -> None:
    async with fresh_store(tmp_path) as store:
        commits = await store.watch_commits()
        assert [await commits.changed(), await commits.changed()] == [True, False]
        async with store.write() as tx:
            await tx.settings.set({"a": "b"})
        assert [await commits.changed(), await commits.changed()] == [True, False]
        async with store.write() as tx:
            await tx.settings.delete(["nothing of this name"])
        assert not await commits.changed(), "a transaction that changed nothing is no commit"
        await commits.close()


async def test_a_database_that_cannot_be_watched_any_more_is_told_in_our_words(tmp_path: Path) -> None:
    file = tmp_path / "any.db"
    with sqlite3.connect(file) as other:
        other.execute("CREATE TABLE a (b)")
    other.close()
    commits = await CommitWatch.open(file)
    file.write_bytes(b"no database" * 1000)
    with pytest.raises(StoreError, match="cannot be read"):
        await commits.changed()
    await commits.close()


async def test_a_damaged_database_is_told_in_our_words(tmp_path: Path) -> None:
    upgrade(url(tmp_path))
    with sqlite3.connect(tmp_path / "qvd.db") as other:
        (page,) = other.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'configs'").fetchone()
        (size,) = other.execute("PRAGMA page_size").fetchone()
    other.close()
    with (tmp_path / "qvd.db").open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"x" * size)
    store = await Store.open(url(tmp_path), StillCalendar())
    with pytest.raises(StoreError, match="malformed"):
        async with store.read() as tx:
            await tx.settings.all()
    await store.close()


async def test_a_watch_given_up_while_it_opens_leaves_no_thread(tmp_path: Path) -> None:
    file = tmp_path / "any.db"
    sqlite3.connect(file).close()
    before = set(threading.enumerate())
    opening = asyncio.create_task(CommitWatch.open(file))
    await asyncio.sleep(0)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    for thread in set(threading.enumerate()) - before:
        await asyncio.to_thread(thread.join, 10)
        assert thread.daemon or not thread.is_alive()


@pytest.mark.parametrize("lasting", [True, False])
@pytest.mark.parametrize("at_once", [True, False])
async def test_a_writer_given_up_at_any_moment_leaves_no_lock(
    tmp_path: Path, lasting: bool, at_once: bool
) -> None:
    async with fresh_store(tmp_path) as store:

        async def work(tx: Tx) -> None:
            await tx.settings.set({"a": "b"})
            await tx.settings.all()

        async def write() -> None:
            if at_once:
                await store.at_once(work, lasting=lasting)
                return
            async with store.write(lasting=lasting) as tx:
                await work(tx)

        for moment in range(60):
            writing = asyncio.create_task(write())
            await asyncio.sleep(moment / 20_000)
            writing.cancel()
            await asyncio.wait([writing])
            with sqlite3.connect(tmp_path / "qvd.db", timeout=0, isolation_level=None) as other:
                other.execute("BEGIN IMMEDIATE")
                other.execute("ROLLBACK")
            other.close()


async def test_what_does_not_last_is_seen_by_everybody_at_once(tmp_path: Path) -> None:
    async with fresh_store(tmp_path) as store:
        async with store.write(lasting=False) as tx:
            await tx.settings.set({"a": "b"})
        with sqlite3.connect(tmp_path / "qvd.db") as other:
            assert other.execute("SELECT value FROM configs WHERE key = 'a'").fetchone() == ("b",)
        other.close()


async def test_what_is_done_at_once_is_done_whole_or_not_at_all(tmp_path: Path) -> None:
    async with fresh_store(tmp_path) as store:

        async def half(tx: Tx) -> None:
            await tx.settings.set({"a": "b"})
            raise ValueError("no more")

        async def elsewhere(tx: Tx) -> None:
            await tx.settings.set({"a": "b"})
            await asyncio.sleep(0)

        async def whole(tx: Tx) -> str:
            await tx.settings.set({"a": "c"})
            return (await tx.settings.all())["a"]

        with pytest.raises(ValueError, match="no more"):
            await store.at_once(half)
        with pytest.raises(RuntimeError, match="not the database"):
            await store.at_once(elsewhere)
        async with store.read() as tx:
            assert await tx.settings.all() == {}
        assert await store.at_once(whole) == "c"
        async with store.read() as tx:
            assert await tx.settings.all() == {"a": "c"}
