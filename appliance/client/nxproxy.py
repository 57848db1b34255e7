"""Runs nxproxy, which draws the desktop: it connects to us on loopback and we hand it the NX bytes.

nxproxy gets a home of its own, so that it leaves nothing in the user's, and a no-op for the dialogs it
would open. It ends with us.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from appliance import proc
from appliance.client.failures import ClientError, RefusedError
from appliance.client.loopback import is_ours
from appliance.client.options import PASSWORD
from appliance.client.relay import Stream
from appliance.client.wire import printable
from appliance.errors import HostError, MissingToolError

logger = logging.getLogger(__name__)

FIRST_PORT = 4000
"""`localhost:N` means TCP port 4000 + N to nxproxy (protocol.md 2.1)."""
DRAWING = "Established X server connection"
"""In nxproxy's log once it has opened the display and the far agent has answered."""
_TELLING = ("Info:", "Error:", "Warning:", "Session:")
START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 4.0


class NxProxy:
    """A running nxproxy that has connected to us: `stream` is its end of the NX bytes."""

    def __init__(self, process: asyncio.subprocess.Process, stream: Stream, log: Path) -> None:
        self._process = process
        self._log = log
        self.stream = stream

    async def ended(self) -> None:
        """Wait, not long, until it has closed its windows by itself."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await self._process.wait()

    def check(self, *, ended_by_server: bool) -> None:
        """Whether it has drawn: its log tells, its exit status does not.

        :raises ClientError: it gave up by itself
        :raises RefusedError: the server ended the session before there was anything to draw
        """
        lines = self._log.read_text(errors="replace").splitlines()
        for line in lines:
            if line.startswith(_TELLING):
                logger.debug("nxproxy: %s", line)
        if any(DRAWING in line for line in lines):
            return
        words = last_words(self._log)
        if ended_by_server:
            raise RefusedError(f"the session ended before there was a picture: {words}", hint="try again")
        raise ClientError(f"nxproxy could not draw on the display: {words}")


@asynccontextmanager
async def nxproxy(environment: Mapping[str, str]) -> AsyncIterator[NxProxy]:
    """Start nxproxy on the display of `environment`; it is gone afterwards, and so are its files.

    :raises ClientError: it is missing, failed, or did not connect
    """
    with tempfile.TemporaryDirectory(prefix="qvd-client-") as home:
        log = Path(home) / "nxproxy.log"
        connected: asyncio.Future[Stream] = asyncio.get_running_loop().create_future()

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if connected.done() or not is_ours(writer):
                writer.close()
            else:
                connected.set_result(Stream(reader, writer))

        listener = await asyncio.start_server(accept, "127.0.0.1", 0)
        try:
            port = listener.sockets[0].getsockname()[1]
            process = await _spawn(port, environment, home, log)
            try:
                stream = await _first(connected, process, log)
                listener.close()
                try:
                    yield NxProxy(process, stream, log)
                finally:
                    stream.writer.close()
            finally:
                await _end(process)
        finally:
            listener.close()


async def _spawn(
    port: int, environment: Mapping[str, str], home: str, log: Path
) -> asyncio.subprocess.Process:
    try:
        return await proc.spawn(
            ["nxproxy", "-S", f"localhost:{port - FIRST_PORT}"],
            output=log,
            env=surroundings(environment, home),
        )
    except MissingToolError as exc:
        raise ClientError(
            "nxproxy is missing: it draws the desktop", hint="install the package nxproxy"
        ) from exc


def surroundings(environment: Mapping[str, str], home: str) -> dict[str, str]:
    """The environment of nxproxy: ours with a home of its own, without our password."""
    # The X authority is found through HOME when nothing names it.
    authority = environment.get("XAUTHORITY") or str(Path(environment.get("HOME", "/")) / ".Xauthority")
    own = {"HOME": home, "NX_HOME": home, "NX_TEMP": home, "NX_CLIENT": "/bin/true", "XAUTHORITY": authority}
    return {name: value for name, value in environment.items() if name != PASSWORD} | own


async def _first(connected: asyncio.Future[Stream], process: asyncio.subprocess.Process, log: Path) -> Stream:
    """The connection of nxproxy, unless it ends first or takes too long."""
    async with asyncio.TaskGroup() as group:
        ended = group.create_task(process.wait(), name="nxproxy's end")
        either: set[asyncio.Future[Stream] | asyncio.Future[int]] = {connected, ended}
        await asyncio.wait(either, timeout=START_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED)
        ended.cancel()
    if connected.done():
        return connected.result()
    if process.returncode is not None:
        raise ClientError(f"nxproxy ended before it connected: {last_words(log)}", hint="is DISPLAY right?")
    raise ClientError(f"nxproxy did not connect within {START_TIMEOUT_S:g} s: {last_words(log)}")


async def _end(process: asyncio.subprocess.Process) -> None:
    """Ask the child to end; insist after a while."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await process.wait()
        except TimeoutError:
            proc.kill_session(process.pid)
            await process.wait()


def last_words(log: Path) -> str:
    """The last line of nxproxy's output that tells an error, else the last line."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("Error:")]
    return printable((errors or lines or ["it said nothing"])[-1])


def display(environment: Mapping[str, str]) -> str:
    """The X display to draw on.

    :raises ClientError: there is none
    """
    name = environment.get("DISPLAY", "")
    if not name:
        raise ClientError(
            "there is no display to show the desktop on: DISPLAY is not set",
            hint="run it in a graphical session, or use -l to list desktops",
        )
    return name


async def keyboard(environment: Mapping[str, str]) -> str:
    """The keyboard of the display as `model/layout`, or a common one if the display does not say.

    :raises ClientError: there is no such display, or it does not let us in
    """
    try:
        asked = await proc.run(["setxkbmap", "-query"], env=environment, timeout_s=5, check=False)
    except HostError:
        return parse_keyboard("")
    if asked.status != 0 and b"open display" in asked.stderr:
        reason = "nothing answers there, or it refuses us (xauth)"
        raise ClientError(f"cannot open the display {environment.get('DISPLAY')}: {reason}")
    return parse_keyboard(asked.stdout.decode(errors="replace"))


def parse_keyboard(query: str) -> str:
    """`model/layout` out of `setxkbmap -query`; of several layouts the first: no comma is allowed there."""
    found = {}
    for line in query.splitlines():
        name, _, value = line.partition(":")
        found[name.strip()] = value.strip().partition(",")[0]
    return f"{_word(found.get('model'), 'pc105')}/{_word(found.get('layout'), 'us')}"


def _word(text: str | None, default: str) -> str:
    return (
        text
        if text and all(letter.isascii() and (letter.isalnum() or letter in "_-+") for letter in text)
        else default
    )
