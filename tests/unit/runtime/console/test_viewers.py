"""Who looks at a console: what each may do, and what each is told of the others."""

from __future__ import annotations

import asyncio
import contextlib
import os

import pytest

from appliance.control_frames import FrameKind
from appliance.errors import ConflictError, UsageError
from appliance.runtime import console
from tests.support.console_bench import Bench, eventually, list_of
from tests.support.lines import PtyLine


async def test_keys_reach_the_guest_and_its_answer_everybody(bench: Bench, line: PtyLine) -> None:
    async with bench.viewer() as one, bench.viewer() as two:
        await one.type(b"ls\r")
        typed = b""
        while b"\r" not in typed:
            typed += line.typed()
            await asyncio.sleep(0.005)
        assert typed == b"ls\r"
        line.print(b"files\r\n")
        await one.until(lambda: one.output == b"files\r\n")
        await two.until(lambda: two.output == b"files\r\n")


async def test_there_is_one_writer_and_everybody_knows_who(bench: Bench, line: PtyLine) -> None:
    async with bench.viewer(who="alice on pts/1") as alice:
        await alice.until(lambda: alice.state.get("you_write") is True)
        async with bench.viewer(who="bob on pts/2") as bob:
            me = f"(pid {os.getpid()})"
            await bob.until(lambda: bob.state.get("writer") == f"alice on pts/1 {me}")
            assert bob.state["you_write"] is False
            assert bob.state["others"] == [f"alice on pts/1 {me}"]
            await bob.type(b"nonsense")
            await bob.until(lambda: bool(bob.notices))
            assert bob.notices == [f"not sent: alice on pts/1 {me} writes here, you watch"]
            await bob.order("take")
            await alice.until(lambda: alice.state.get("writer") == f"bob on pts/2 {me}")
            await bob.type(b"b")
            await eventually(lambda: line.typed() == b"b")
            await bob.order("release")
            await alice.until(lambda: alice.state.get("writer") is None)
            await alice.type(b"a")
            await eventually(lambda: line.typed() == b"a")
            await bob.until(lambda: bob.state.get("writer") == f"alice on pts/1 {me}")
        await alice.until(lambda: alice.state.get("others") == [])


async def test_a_viewer_may_take_the_role_as_it_comes_or_never_have_it(bench: Bench, line: PtyLine) -> None:
    async with bench.viewer(write="never") as watcher:
        await watcher.until(lambda: "writer" in watcher.state)
        assert watcher.state["writer"] is None
        await watcher.type(b"x")
        await watcher.until(lambda: bool(watcher.notices))
        async with bench.viewer() as first, bench.viewer(write="take") as second:
            await second.until(lambda: second.state.get("you_write") is True)
            await first.until(lambda: len(list_of(first.state.get("others"))) == 2)
            assert first.state["you_write"] is False
        await watcher.order("take")
        with pytest.raises(UsageError, match="only watches"):
            await watcher.until(lambda: False)
    assert line.typed() == b""


async def test_who_comes_to_write_later_takes_a_free_role_and_no_other(bench: Bench) -> None:
    async with bench.viewer(write="later") as late:
        await late.until(lambda: "writer" in late.state)
        assert late.state["writer"] is None
        async with bench.viewer() as first:
            await first.until(lambda: first.state.get("you_write") is True)
            await late.order("claim")
            await late.order("resize", rows=1, columns=1)
        await late.until(lambda: late.state["others"] == [])
        assert late.state["writer"] is None
        await late.order("claim")
        await late.until(lambda: late.state["you_write"] is True)


async def test_the_guests_terminal_has_the_size_of_the_writers(bench: Bench, line: PtyLine) -> None:
    async with bench.viewer(rows=40, columns=120) as one, bench.viewer(rows=25, columns=81) as two:
        await eventually(lambda: line.size == (40, 120))
        await two.order("resize", rows=26, columns=82)
        await one.order("resize", rows=41, columns=121)
        await eventually(lambda: line.size == (41, 121))
        await two.order("take")
        await eventually(lambda: line.size == (26, 82))


async def test_everybody_knows_the_size_of_the_guests_terminal(bench: Bench, line: PtyLine) -> None:
    async with bench.viewer(write="never", rows=10, columns=20) as seen:
        await seen.until(lambda: "size" in seen.state)
        assert seen.state["size"] is None
        async with bench.viewer(rows=40, columns=120) as writer:
            await seen.until(lambda: seen.state["size"] == [40, 120])
            await writer.order("resize", rows=41, columns=121)
            await seen.until(lambda: seen.state["size"] == [41, 121])
            assert line.size == (41, 121)


async def test_a_crowd_of_viewers_fits_into_an_event(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "MOST_NAMED", 2)
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(4):
            await stack.enter_async_context(bench.viewer())
        last = await stack.enter_async_context(bench.viewer())
        await last.until(lambda: "others" in last.state)
        assert len(list_of(last.state["others"])) == 2


@pytest.mark.parametrize(
    "order",
    [
        {"do": "explode"},
        {"do": "resize", "rows": -1, "columns": 80},
        {"do": "resize", "rows": 10**9, "columns": 80},
        {"do": "resize", "rows": True, "columns": "80"},
        {},
    ],
)
async def test_a_malformed_order_ends_that_view_alone(bench: Bench, order: dict[str, object]) -> None:
    async with bench.viewer() as other, bench.viewer() as rude:
        await rude.stream.send(FrameKind.ORDER, order)
        with pytest.raises(UsageError):
            await rude.until(lambda: False)
        await other.until(lambda: other.state.get("others") == [])


@pytest.mark.parametrize("wrong", [{"vm": "7"}, {"vm": None}, {"write": "always"}, {"history_bytes": -1}])
async def test_a_malformed_request_is_refused(bench: Bench, wrong: dict[str, object]) -> None:
    async with bench.viewer(**wrong) as seen:
        with pytest.raises(UsageError):
            await seen.until(lambda: False)


async def test_a_vm_that_does_not_run_has_no_console(bench: Bench) -> None:
    async with bench.viewer(vm=8) as seen:
        with pytest.raises(ConflictError, match="VM 8 does not run here"):
            await seen.until(lambda: False)
