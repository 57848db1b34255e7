"""What both sides of a benchmark of starts are watched with: when a link appears, and when a VMA answers."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from appliance.vma import wire
from scripts.trial import command

LOOK_S = 0.002
LINKS = Path("/sys/class/net")
DIAL_S = 0.05
ANSWER_S = 120.0
PING = f"GET /vma/{wire.PING} HTTP/1.1\r\nHost: vma\r\n\r\n".encode()


class Prober:
    """Sees the links of this namespace appear, for all who wait at the price of one look."""

    def __init__(self, *, within_s: float = ANSWER_S) -> None:
        """Nobody is waited for longer than `within_s`."""
        self._within_s = within_s
        self._awaited: dict[str, asyncio.Future[None]] = {}
        self._looking: asyncio.Task[None] | None = None

    async def answered(self, address: str, link: str, begun: float) -> float:
        """Seconds since `begun` until the VMA at `address`, behind `link`, answers a ping.

        :raises TimeoutError: it does not
        """
        async with asyncio.timeout(self._within_s):
            await self._appears(link)
            while not await pings(address):
                await asyncio.sleep(LOOK_S)
        return time.monotonic() - begun

    async def _appears(self, link: str) -> None:
        appears = self._awaited[link] = asyncio.get_running_loop().create_future()
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look())
        try:
            await appears
        finally:
            self._awaited.pop(link, None)

    async def _look(self) -> None:
        while self._awaited:
            for link in self._awaited.keys() & {link.name for link in LINKS.iterdir()}:
                self._awaited.pop(link).set_result(None)
            await asyncio.sleep(LOOK_S)


async def pings(address: str) -> bool:
    """Whether the VMA answers now."""
    try:
        async with asyncio.timeout(DIAL_S):
            reader, writer = await asyncio.open_connection(address, wire.PORT)
    except OSError:
        return False
    try:
        writer.write(PING)
        async with asyncio.timeout(5):
            return b" 200 " in await reader.readline()
    except OSError:
        return False
    finally:
        writer.close()


def neighbour(address: str, mac: str, link: str) -> None:
    """Know where an address is beforehand: a question asked too early is asked again after a second only."""
    command("ip", "neigh", "replace", address, "lladdr", mac, "dev", link, "nud", "permanent")
