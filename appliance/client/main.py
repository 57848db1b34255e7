"""`qvd-client`: the entry, the password, signals, and exit statuses."""

from __future__ import annotations

import asyncio
import getpass
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from appliance import log
from appliance.client.again import coming_back
from appliance.client.certificate import tls_context
from appliance.client.choice import as_json, as_table, choose
from appliance.client.connection import Connection, connect
from appliance.client.failures import (
    ClientError,
    ConnectionFailedError,
    CredentialsError,
    DesktopError,
    RefusedError,
)
from appliance.client.nxproxy import display
from appliance.client.options import Options, parse
from appliance.client.reporter import Reporter
from appliance.client.session import attach, fetch_list, parameters, pick, show
from appliance.client.wire import Credentials, Desktop, Switched
from appliance.clock import SystemClock
from appliance.errors import ApplianceError
from appliance.model import Secret


def main(argv: Sequence[str] | None = None) -> int:
    """Run the client; the exit status says how it ended."""
    options = parse(sys.argv[1:] if argv is None else argv, os.environ)
    log.set_up("DEBUG" if options.debug else "WARN")
    try:
        credentials = Credentials(options.login, password(options, os.environ))
        return asyncio.run(_interruptible(options, credentials))
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except ApplianceError as exc:
        print(f"qvd-client: {exc}", file=sys.stderr)
        return exc.exit_status if isinstance(exc, ClientError) else 1


def password(options: Options, environment: Mapping[str, str]) -> Secret:
    """The password: given, or the first line of a file or of standard input, or asked for on a terminal.

    :raises CredentialsError: there is none to be had
    """
    if options.password is not None:
        return options.password
    try:
        if options.password_file == "-":  # noqa: S105
            return Secret(sys.stdin.readline().rstrip("\r\n"))
        if options.password_file is not None:
            with Path(options.password_file).open(encoding="utf-8") as file:
                return Secret(file.readline().rstrip("\r\n"))
        if sys.stdin.isatty():
            return Secret(getpass.getpass(f"Password of {options.login} on {options.host}: "))
    except (OSError, UnicodeDecodeError) as exc:
        raise CredentialsError(f"cannot read the password from {options.password_file}: {exc}") from exc
    except EOFError:
        pass
    raise CredentialsError("no password", hint="use --password-file, or - for standard input, or QVDPASSWORD")


async def _interruptible(options: Options, credentials: Credentials) -> int:
    """Run until the end or a signal; a signal ends everything in good order and is the exit status."""
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    assert task is not None
    received: list[signal.Signals] = []

    def stop(number: signal.Signals) -> None:
        if not received:  # a second signal must not interrupt the clean-up that the first one began
            task.cancel()
        received.append(number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop, number)
    try:
        return await _visit(options, credentials)
    except asyncio.CancelledError:
        if not received:
            raise
        task.uncancel()
        return 128 + received[0]


async def _visit(options: Options, credentials: Credentials) -> int:
    reporter = Reporter(SystemClock(), debug=options.debug)
    environment = dict(os.environ)
    if not options.list_only:
        display(environment)
    if not options.verify:
        reporter.warn(
            f"-n: nobody checks that {options.host} is the server you mean; your password may be stolen"
        )
    async with _connected(options) as connection:
        found = await fetch_list(connection, credentials)
        if options.list_only:
            print(as_json(found) if options.as_json else as_table(found))
            return 0
        desktop = await pick(found, options, _ask_user)
        about_us = await parameters(options, environment)
        switched = await attach(connection, credentials, desktop, about_us, reporter)
        again = await _session(options, credentials, desktop, connection, switched, environment, reporter)
    while again is not None:
        reporter.say(f"{again.name} is restarted: waiting for it")
        reporter.mark("again", again.name)
        async with _connected(options) as connection:
            switched = await attach(connection, credentials, again, about_us, reporter)
            again = await _session(options, credentials, again, connection, switched, environment, reporter)
    return 0


@asynccontextmanager
async def _connected(options: Options) -> AsyncIterator[Connection]:
    connection = await connect(options.host, options.port, tls_context(options.ca, verify=options.verify))
    try:
        yield connection
    finally:
        await connection.close()


async def _session(
    options: Options,
    credentials: Credentials,
    desktop: Desktop,
    connection: Connection,
    switched: Switched,
    environment: Mapping[str, str],
    reporter: Reporter,
) -> Desktop | None:
    """Show the desktop until the session ends; the desktop again if it comes back.

    :raises ClientError: the session failed, and the desktop does not come back
    """
    again: list[Desktop] = []

    async def look() -> Desktop | None:
        async with _connected(options) as asking:
            found = await fetch_list(asking, credentials)
        return next((one for one in found if one.vm_id == desktop.vm_id), None)

    async def over() -> None:
        if not options.reconnect:
            return
        try:
            found = await coming_back(look, SystemClock())
        except ClientError as exc:
            reporter.mark("unknown", str(exc))  # the session ends as it would have without the question
            return
        again.extend([found] if found is not None else [])

    try:
        await show(connection, switched, environment, reporter, over)
    except (ConnectionFailedError, RefusedError):
        if not again:
            raise
    return again[0] if again else None


async def _ask_user(found: list[Desktop]) -> Desktop | None:
    """Let the user choose, if there is a terminal."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return None
    print(as_table(found), file=sys.stderr)
    while True:
        print("Which desktop (name or id)? ", end="", file=sys.stderr, flush=True)
        answer = await _line_of_input()
        if not answer:
            return None
        try:
            return choose(found, answer.strip(), take_first=False)
        except DesktopError as exc:
            print(exc, file=sys.stderr)


async def _line_of_input() -> str:
    """A line from the terminal; a signal interrupts the waiting."""
    ready = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(sys.stdin, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(sys.stdin)
    return sys.stdin.readline()


if __name__ == "__main__":
    sys.exit(main())
