"""Who gets to the control socket, as the kernel tells it."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from appliance.control import ControlServer, Request, Stream, open_stream
from appliance.control_frames import FrameKind
from appliance.errors import AdminError

pytestmark = pytest.mark.host

NOBODY = 65_534


@contextmanager
def somebody_else() -> Iterator[None]:
    """Act as an ordinary user."""
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


async def greet(stream: Stream, request: Request) -> None:
    stream.offer(FrameKind.EVENT, {"hello": stream.peer.uid})


async def test_another_user_is_kept_out_by_the_mode_of_the_socket_and_by_the_daemon() -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        path = Path(folder) / "appliance.sock"
        async with asyncio.TaskGroup() as tasks, ControlServer(path, {"greet": greet}, tasks):
            with somebody_else(), pytest.raises(AdminError, match="is not for this user"):
                await open_stream(path, {"want": "greet"})
            path.chmod(0o666)
            with somebody_else():
                stream = await open_stream(path, {"want": "greet"})
            with pytest.raises(AdminError, match="only root and the user of the daemon"):
                await stream.receive()
            await stream.close()
            async with await open_stream(path, {"want": "greet"}) as stream:
                assert await stream.receive() is not None
