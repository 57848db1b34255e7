"""Hooks of the host on the other side: executables that write down what they are told, and a web server."""

from __future__ import annotations

import asyncio
import http.server
import json
import ssl
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from appliance.clock import SystemClock
from appliance.config import Settings
from appliance.model import HookEvent, InstallationId, Notice, NoticeState
from appliance.ops import notices
from appliance.runtime.hooks import Hooks
from appliance.storage.migrate import upgrade
from appliance.storage.store import Store
from tests.support.mortal import mortal
from tests.support.store import url

PATIENCE_S = 20.0
PAUSE_S = 0.02
INSTALLATION = InstallationId("abc123")
QUICK = {"internal.hook.delay.first": "0.05", "internal.hook.delay.max": "0.2", "hook.retries": "2"}


@dataclass
class Outbox:
    """A database, and the hooks that are told what is in it."""

    store: Store
    settings: dict[str, str]

    async def put(self, event: HookEvent, **concerned: Any) -> None:
        """Something happens."""
        async with self.store.write() as tx:
            await notices.put(tx, event, concerned)

    async def found(self) -> list[Notice]:
        """The whole outbox."""
        async with self.store.read() as tx:
            return await tx.notices.find()

    async def until(self, *states: NoticeState) -> list[Notice]:
        """The outbox, once its notices are in these states."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                found = await self.found()
                if [notice.state for notice in found] == list(states):
                    return found
                await asyncio.sleep(PAUSE_S)

    @asynccontextmanager
    async def delivering(self) -> AsyncIterator[None]:
        """The part of the daemon that tells hooks is at work."""
        hooks = Hooks(self.store, lambda: Settings({}, self.settings), INSTALLATION, SystemClock(), PAUSE_S)
        async with mortal() as tasks:
            tasks.create_task(hooks.run())
            yield


@asynccontextmanager
async def outbox(directory: Path, **settings: str) -> AsyncIterator[Outbox]:
    """An empty outbox; `hook__tag_moved=…` sets hook.tag_moved."""
    upgrade(url(directory))
    store = await Store.open(url(directory), SystemClock())
    try:
        yield Outbox(store, QUICK | {name.replace("__", "."): text for name, text in settings.items()})
    finally:
        await store.close()


@asynccontextmanager
async def telling(directory: Path, **settings: str) -> AsyncIterator[Outbox]:
    """An outbox from which hooks are told."""
    async with outbox(directory, **settings) as made, made.delivering():
        yield made


@dataclass(frozen=True)
class Script:
    """An executable that keeps what it reads, a line for each time it is run."""

    path: Path
    heard: Path

    @classmethod
    def make(cls, directory: Path, name: str = "hook", then: str = "") -> Script:
        """It goes on with the shell's `then`."""
        path, heard = directory / name, directory / f"{name}.heard"
        path.write_text(f"#!/bin/sh\ncat >> {heard}\n{then}\n")
        path.chmod(0o755)
        return cls(path, heard)

    def told(self) -> list[dict[str, Any]]:
        """What it was told, each time."""
        lines = self.heard.read_text().splitlines() if self.heard.exists() else []
        return [json.loads(line) for line in lines]

    def wait(self, times: int) -> list[dict[str, Any]]:
        """What it was told, once it has been so many times."""
        wait_for(lambda: len(self.told()) >= times)
        return self.told()


def wait_for(condition: Callable[[], object]) -> None:
    """Return when it holds."""
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "it does not come true"
        time.sleep(PAUSE_S)


@dataclass
class Web:
    """A web server that keeps what is posted to it."""

    port: int
    posts: list[tuple[str, Mapping[str, str], bytes]] = field(default_factory=list)
    """Path, headers and body of each."""
    answers: list[tuple[int, Mapping[str, str], bytes]] = field(default_factory=list)
    """What the next ones are answered; then 204."""
    holds: threading.Event | None = None
    """If it is there, nobody is answered before it is set."""


@contextmanager
def web(context: ssl.SSLContext | None = None) -> Iterator[Web]:
    """A web server on loopback."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            made.posts.append((self.path, dict(self.headers.items()), body))
            if made.holds is not None:
                made.holds.wait(PATIENCE_S)
            status, headers, said = made.answers.pop(0) if made.answers else (204, {}, b"")
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Say nothing."""

    class Server(http.server.ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            """Clients may leave early, or never speak TLS."""

    server = Server(("127.0.0.1", 0), Handler)
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    made = Web(server.server_address[1])
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield made
    finally:
        if made.holds is not None:
            made.holds.set()
        server.shutdown()
        thread.join()
        server.server_close()
