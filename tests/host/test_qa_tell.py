"""`qa vm message` and `qa vm log` on guests whose agents are real, and on one that is not there."""

from __future__ import annotations

import asyncio
import contextlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select, update

from appliance.storage.schema import events, vm_runtimes
from appliance.vma import wire
from tests.support.loopback_vma import LoopbackVma, loopback_vma, wait_for
from tests.support.qa import Installation

pytestmark = pytest.mark.host


@pytest.fixture
def vma(tmp_path: Path) -> Iterator[LoopbackVma]:
    work = tmp_path / "guest"
    work.mkdir()
    with loopback_vma(work) as found:
        hook = found.script("hook", "echo hello from the hook")
        found.settings(**{"vma.on_action.message": hook, "vma.on_action.stop": hook})
        found.boot()
        yield found


@pytest.fixture
def qa(tmp_path: Path, vma: LoopbackVma, capsys: pytest.CaptureFixture[str]) -> Installation:
    """Desktops web-1, which is stopped, web-2, whose agent answers, and web-3, whose does not."""
    place = tmp_path / "host"
    place.mkdir()
    found = Installation(place, capsys)
    found.ok("admin", "init")
    found.with_vm()
    for name in ("web-2", "web-3"):
        found.ok("vm", "add", f"name={name}", "user=alice", "osf=desktop")
    asyncio.run(run_at(found, {2: vma.port, 3: 1}))
    return found


async def run_at(qa: Installation, ports: dict[int, int]) -> None:
    async with qa.write() as tx:
        for vm_id, port in ports.items():
            place = {"vm_state": "running", "vm_address": "127.0.0.1", "vm_vma_port": port}
            await tx.connection.execute(
                update(vm_runtimes).where(vm_runtimes.c.vm_id == vm_id).values(**place)
            )


@contextlib.contextmanager
def told_guest() -> Iterator[int]:
    """An agent that shows every message; its port."""

    class Told(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.wfile.write(wire.success(wire.TOLD))

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Told) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def test_who_could_not_be_told_is_named_with_the_reason(qa: Installation) -> None:
    said = qa("vm", "message", "text=Coffee?", "--yes")
    assert said.status == 1, "nobody was told"
    assert said.out == "Told 0 of 3 desktops.\n"
    assert "web-1 was not told: it is stopped\n" in said.err
    assert "web-2 was not told: nobody has a session there\n" in said.err
    assert "web-3 was not told: VMA 127.0.0.1:1: message: " in said.err
    rows = qa("vm", "message", "text=Coffee?", "-f", "name=web-1", "-o", "json").json
    assert rows == [{"id": 1, "name": "web-1", "told": False, "reason": "it is stopped"}]
    assert qa.ok("vm", "message", "text=x", "-f", "name=nobody").err == "Nothing matches.\n"


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["text=a\x1b[31mb"], "U+001B"),
        (["text=\u202eabc"], "U+202E"),
        (["text= "], "it is empty"),
        ([f"text={'x' * 1001}"], "it has 1001 characters, 1000 are allowed"),
        (["text=a", "title=b\nc"], "U+000A"),
        ([], "text"),
    ],
)
def test_only_plain_text_of_bounded_length_is_sent(qa: Installation, words: list[str], reason: str) -> None:
    said = qa("vm", "message", *words, "--yes")
    assert said.status == 2
    assert reason in said.err


def test_who_was_told_what_is_logged(qa: Installation, vma: LoopbackVma) -> None:
    with told_guest() as port:
        asyncio.run(run_at(qa, {2: port}))
        said = qa.ok("vm", "message", "text=Coffee & cake <b>now</b>", "title=Kitchen", "-f", "name=web-2")
    assert said.out == "Told 1 of 1 desktops.\n"

    async def logged() -> list[tuple[str, str, str | None]]:
        async with qa.store() as store, store.read() as tx:
            columns = (events.c.what, events.c.object, events.c.now)
            rows = await tx.connection.execute(select(*columns).where(events.c.what == "vm message"))
            return [(row.what, row.object, row.now) for row in rows]

    assert asyncio.run(logged()) == [("vm message", "vm 2", "Coffee & cake <b>now</b>")]


def test_the_logs_of_a_guest_are_shown(qa: Installation, vma: LoopbackVma) -> None:
    asyncio.run(vma.client.x_stop())
    wait_for(lambda: "hello" in vma.logs(), vma.logs)
    said = qa.ok("vm", "log", "lines=5", "-f", "name=web-2")
    assert said.out == (
        "What its hooks have printed:\n  hello from the hook\n\nWhat its agent says:\n  (nothing)\n"
    )
    rows = qa.ok("vm", "log", "-f", "name=web-2", "-o", "json").json
    assert rows == {"id": 2, "name": "web-2", "hooks": ["hello from the hook"], "vma": []}
    assert "web-1 is stopped, and has no address now" in qa("vm", "log", "-f", "name=web-1").err
    assert qa("vm", "log", "-f", "name=web-3").status == 1
    assert qa("vm", "log", "lines=501", "-f", "name=web-2").status == 2
