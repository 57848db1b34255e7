"""The command line of `qvd-client`, and the environment that fills its gaps."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from appliance.model import Secret

DEFAULT_PORT = 8443
DEFAULT_GEOMETRY = "1024x768"
PASSWORD = "QVDPASSWORD"  # noqa: S105  the name of a variable


@dataclass(frozen=True, slots=True)
class Options:
    """What the user wants, apart from a password that must still be read."""

    host: str
    port: int
    login: str
    password: Secret | None
    password_file: str | None
    ca: Path | None
    vm: str | None
    geometry: str
    fullscreen: bool
    list_only: bool
    as_json: bool
    take_first: bool
    verify: bool
    reconnect: bool
    debug: bool


def parse(argv: Sequence[str], environment: Mapping[str, str]) -> Options:
    """The options in `argv`; QVDHOST, QVDLOGIN and QVDPASSWORD stand in for absent ones.

    Ends the program with status 2 and a usage line where they make no sense.
    """
    parser = _parser()
    words = parser.parse_args(argv)
    host = words.host or environment.get("QVDHOST")
    login = words.login or environment.get("QVDLOGIN")
    password = words.password if words.password is not None else environment.get(PASSWORD)
    if words.password is not None and words.password_file is not None:
        parser.error("-w and --password-file exclude each other")
    if not host:
        parser.error("no server: give -h HOST or set QVDHOST")
    if not login:
        parser.error("no login: give -u LOGIN or set QVDLOGIN")
    if ":" in login:
        parser.error("a login has no colon")
    return Options(
        host=host,
        port=words.port,
        login=login,
        password=None if password is None or words.password_file is not None else Secret(password),
        password_file=words.password_file,
        ca=words.ca,
        vm=words.vm,
        geometry=words.geometry,
        fullscreen=words.fullscreen,
        list_only=words.list or words.json,
        as_json=words.json,
        take_first=words.first,
        verify=not words.no_verify,
        reconnect=not words.no_reconnect,
        debug=words.debug,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="qvd-client",
        description="Show a QVD desktop on $DISPLAY, or list the desktops of a user.",
        epilog="Environment: QVDHOST, QVDLOGIN, QVDPASSWORD. Exit status: 0 the session ended normally, "
        "1 no display or nxproxy failed, 2 wrong usage, 3 wrong credentials, 4 no such or blocked desktop, "
        "5 refused or timed out, 6 certificate, 7 connection.",
        add_help=False,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--help", action="help", help="show this help")
    add("-h", "--host", metavar="HOST", help="the server")
    add("-p", "--port", type=_port, default=DEFAULT_PORT, help=f"its TCP port (default {DEFAULT_PORT})")
    add("-u", "--login", metavar="LOGIN", help="the user")
    add("-w", "--password", metavar="PASSWORD", help="the password; others on this machine can see it")
    add("--password-file", metavar="F", help="a file whose first line is the password; - is standard input")
    add(
        "--ca",
        type=Path,
        metavar="FILE",
        help="trust this certificate, or what it signed, instead of the system's",
    )
    add("--vm", metavar="NAME|ID", help="the desktop, if there are several")
    add("-l", "--list", action="store_true", help="list the desktops and end")
    add("--json", action="store_true", help="the list as JSON (implies -l)")
    add(
        "-g",
        "--geometry",
        type=_geometry,
        default=DEFAULT_GEOMETRY,
        metavar="WxH",
        help="size of the desktop",
    )
    add("-f", "--fullscreen", action="store_true", help="use the whole screen")
    add("-o", "--first", action="store_true", help="take the first desktop if there are several")
    add("-n", "--no-verify", action="store_true", help="accept any certificate: unsafe")
    add(
        "--no-reconnect",
        action="store_true",
        help="end when the desktop is restarted, and do not wait for it",
    )
    add("-d", "--debug", action="store_true", help="show details, and TIMELINE lines for programs")
    return parser


def _port(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise argparse.ArgumentTypeError(f"{text!r} is no TCP port")
    return int(text)


def _geometry(text: str) -> str:
    if not re.fullmatch(r"[1-9][0-9]{1,4}x[1-9][0-9]{1,4}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no size; write it as 1024x768")
    return text
