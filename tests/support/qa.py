"""An installation without containers in a directory of its own, and `qa` called on it in this process."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import io
import json
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from appliance import config
from appliance.clock import SystemClock
from appliance.config import Settings
from appliance.model import InstallationId, Secret, UserId
from appliance.qa.main import main
from appliance.storage.store import Store, Tx

NODE_CONF = {
    "nodename": "node1",
    "vm.hypervisor": "nothing",
    "vm.network.ip.start": "10.9.0.2",
    "vm.network.netmask": "29",
    "vm.network.gateway": "10.9.0.1",
}
"""Guests get 10.9.0.2 to 10.9.0.6: few enough to run out of."""


@dataclass(frozen=True)
class Said:
    """What one call of `qa` said."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Installation:
    """A directory with a node.conf, and `qa`."""

    def __init__(self, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.directory = directory
        self.config = directory / "node.conf"
        self._capsys = capsys
        self.write_config()

    def write_config(self, **changes: str) -> None:
        """Write node.conf; `l7r__port="1"` sets l7r.port."""
        values = NODE_CONF | {
            "path.run": str(self.directory / "run"),
            "path.storage.root": str(self.directory / "storage"),
            **{name.replace("__", "."): value for name, value in changes.items()},
        }
        self.config.write_text("".join(f"{key} = {value}\n" for key, value in values.items()))

    @property
    def storage(self) -> Path:
        """Root of everything stored."""
        return self.settings[config.PATH_STORAGE_ROOT]

    @property
    def settings(self) -> Settings:
        """The settings of the file."""
        return config.read_file(self.config)

    def __call__(self, *words: str) -> Said:
        self._capsys.readouterr()
        status = main(["--config", str(self.config), *words])
        said = self._capsys.readouterr()
        return Said(status, said.out, said.err)

    def ok(self, *words: str) -> Said:
        """Call `qa` and insist on success."""
        said = self(*words)
        assert said.status == 0, said.err
        return said

    def listed(self, noun: str, filter_: str = "") -> list[dict[str, Any]]:
        """What `list -o json` says."""
        rows: list[dict[str, Any]] = self.ok(noun, "list", "-f", filter_, "-o", "json").json
        return rows

    def founded(self) -> Installation:
        """The same after `qa admin init`: a copy of one that was founded in this process before."""
        shutil.copytree(_founded(), self.directory, dirs_exist_ok=True)
        self.write_config()
        return self

    def with_vm(self) -> Installation:
        """The same with user alice, OSF desktop, and VM web-1."""
        self.ok("user", "add", "login=alice", f"password-file={self.password('secret')}")
        self.ok("osf", "add", "name=desktop")
        self.ok("vm", "add", "name=web-1", "user=alice", "osf=desktop")
        return self

    def password(self, text: str) -> Path:
        """A file with a password."""
        file = self.directory / "password"
        file.write_text(text + "\n")
        return file

    def archive(self, name: str = "desktop.tar") -> Path:
        """A file that an OSF of `nothing` takes as an image."""
        file = self.directory / name
        file.write_bytes(b"image " * 1000)
        return file

    @asynccontextmanager
    async def store(self) -> AsyncIterator[Store]:
        """The database, opened."""
        store = await Store.open(self.settings[config.DATABASE_URL], SystemClock())
        try:
            yield store
        finally:
            await store.close()

    @asynccontextmanager
    async def write(self) -> AsyncIterator[Tx]:
        """A transaction of somebody else."""
        async with self.store() as store, store.write() as tx:
            yield tx


@cache
def _founded() -> Path:
    """A directory with an installation that nobody has used, for copies."""
    directory = Path(tempfile.mkdtemp(prefix="qvd-founded-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    silent = mock.Mock(readouterr=lambda: mock.Mock(out="", err=""))
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        Installation(directory, silent).ok("admin", "init", "--yes")
    return directory


def stored_password(qa: Installation, user_id: int) -> Secret | None:
    """The hash that the database holds of a user's password."""

    async def read() -> Secret | None:
        async with qa.store() as store, store.read() as tx:
            return await tx.users.password_hash(UserId(user_id))

    return asyncio.run(read())


def identity(qa: Installation) -> InstallationId:
    """Whose marks are the installation's."""

    async def read() -> InstallationId:
        async with qa.store() as store, store.read() as tx:
            return await tx.settings.installation()

    return asyncio.run(read())
