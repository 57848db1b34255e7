"""A daemon's consoles behind a control socket, with a real pseudo terminal as the guest's line."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

from appliance.control import Stream, open_stream
from appliance.control_frames import FrameKind
from appliance.model import VmId
from appliance.runtime.consoles import Consoles
from tests.support.lines import PtyLine

VM = VmId(7)


class Bench:
    """A daemon's consoles behind a control socket."""

    def __init__(self, consoles: Consoles, path: Path, folder: Path) -> None:
        self.consoles = consoles
        self.path = path
        self.capture = folder / f"{VM}.tty"

    def captured(self) -> int:
        """How many bytes are kept in files."""
        return sum(file.stat().st_size for file in self.capture.parent.glob(f"{self.capture.name}*"))

    @contextlib.asynccontextmanager
    async def viewer(self, **request: object) -> AsyncIterator[Seen]:
        """Somebody who watches, and what is seen."""
        async with await open_stream(self.path, {"want": "console", "vm": VM, **request}) as stream:
            yield Seen(stream)


class Seen:
    """What one viewer has been sent so far."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.output = b""
        self.state: Mapping[str, object] = {}
        self.notices: list[object] = []

    async def until(self, reached: Callable[[], bool]) -> None:
        """Receive until `reached()`."""
        async with asyncio.timeout(30):
            while not reached():
                frame = await self.stream.receive()
                assert frame is not None, f"ended: {self.stream.farewell}"
                if frame.kind is FrameKind.DATA:
                    self.output += frame.payload
                elif "notice" in (event := frame.content()):
                    self.notices.append(event["notice"])
                else:
                    self.state = event

    async def until_it_ends(self, output: bytes) -> None:
        """Receive until the last thing seen is `output`."""
        await self.until(lambda: self.output.endswith(output))

    async def order(self, do: str, **values: object) -> None:
        await self.stream.send(FrameKind.ORDER, {"do": do, **values})

    async def type(self, keys: bytes) -> None:
        await self.stream.send(FrameKind.DATA, keys)


async def eventually(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not true():
            await asyncio.sleep(0.005)


async def arrived(line: PtyLine, end: bytes) -> bytes:
    """What the guest reads until something ends it."""
    typed = b""
    async with asyncio.timeout(30):
        while not typed.endswith(end):
            typed += line.typed()
            await asyncio.sleep(0.005)
    return typed


def list_of(value: object) -> list[object]:
    return value if isinstance(value, list) else []
