"""One visit to a server: list the desktops, or connect to one and show it until it ends."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TypeAlias

from appliance.client.choice import choose, list_refusal, refusal
from appliance.client.connection import LIST_TIMEOUT_S, Connection
from appliance.client.failures import ChoiceError, ConnectionFailedError
from appliance.client.nxproxy import keyboard, nxproxy
from appliance.client.options import Options
from appliance.client.relay import Stream, join
from appliance.client.reporter import Reporter
from appliance.client.wire import (
    Credentials,
    Desktop,
    Progress,
    Reply,
    Switched,
    connect_request,
    desktops,
    list_request,
)

Ask: TypeAlias = Callable[[list[Desktop]], Awaitable[Desktop | None]]
"""Asks the user which of several desktops is meant; None if there is nobody to ask."""


async def fetch_list(connection: Connection, credentials: Credentials) -> list[Desktop]:
    """The user's desktops.

    :raises ClientError: the server refused
    """
    await connection.send(list_request(credentials))
    while isinstance(event := await connection.event(LIST_TIMEOUT_S), Progress):
        pass
    if isinstance(event, Switched):
        raise ConnectionFailedError("the server answered the question for desktops with something else")
    if event.status != 200:
        raise list_refusal(event)
    return desktops(event.body)


async def pick(found: list[Desktop], options: Options, ask: Ask) -> Desktop:
    """The desktop that the options mean, or that the user names when asked."""
    try:
        return choose(found, options.vm, take_first=options.take_first)
    except ChoiceError:
        answer = await ask(found)
        if answer is None:
            raise
        return answer


async def attach(
    connection: Connection,
    credentials: Credentials,
    desktop: Desktop,
    parameters: Mapping[str, str],
    reporter: Reporter,
) -> Switched:
    """Have the server connect us to `desktop`, saying what it does meanwhile.

    :raises ClientError: it refused
    """
    reporter.say(f"asking for {desktop.name} ({desktop.state})")
    reporter.mark("asked", desktop.name)
    await connection.send(connect_request(credentials, desktop.vm_id, parameters))
    while isinstance(event := await connection.event(), Progress):
        reporter.say(event.text)
        reporter.mark("102", event.text)
    if isinstance(event, Reply):
        raise refusal(event)
    reporter.mark("101")
    return event


async def show(
    connection: Connection,
    switched: Switched,
    environment: Mapping[str, str],
    reporter: Reporter,
    over: Callable[[], Awaitable[None]],
) -> None:
    """Draw the desktop until the session ends; `over` is called at once then, before the window goes.

    :raises ClientError: nxproxy failed, or the connection broke
    """
    async with nxproxy(environment) as drawing:
        reporter.say("showing the desktop")
        ending = await join(
            Stream(connection.reader, connection.writer),
            drawing.stream,
            switched.leftover,
            lambda: reporter.mark("first-nx-bytes"),
        )
        await over()
        await drawing.ended()
        reporter.mark("ended")
        if ending.by_server and ending.error is not None:
            raise ConnectionFailedError(f"the connection to the server was lost: {ending.error}")
        drawing.check(ended_by_server=ending.by_server)
    reporter.say("the server ended the session" if ending.by_server else "the session ended")


async def parameters(options: Options, environment: Mapping[str, str]) -> dict[str, str]:
    """What the guest must know about this client: all five are expected (protocol.md 1.7)."""
    return {
        "qvd.client.os": "linux",
        "qvd.client.link": "lan",
        "qvd.client.keyboard": await keyboard(environment),
        "qvd.client.geometry": options.geometry,
        "qvd.client.fullscreen": "1" if options.fullscreen else "0",
    }
