"""From a request to a typed call: what is asked, by whom, with which parameters (protocol.md 1.4 to 1.8).

Pure. The checks that need the database (node, credentials, VM) stand between the ones made here, and
their order decides which status a client sees; so what a connect asks for is checked in steps.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias
from urllib.parse import unquote_to_bytes

from appliance.errors import ProtocolError
from appliance.l7r.wire import Request
from appliance.model import Secret, UserState, Vm, VmId, VmRuntime

OWN_PARAMETERS = ("id", "file_name")
NAMESPACES = ("qvd.client.", "custom.")
MAX_ID_DIGITS = 18


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who somebody claims to be."""

    login: str
    password: Secret


@dataclass(frozen=True, slots=True)
class Ping:
    """Health check: neither authenticated nor counted."""


@dataclass(frozen=True, slots=True)
class ListOfVm:
    """Authentication, and the user's desktops."""


@dataclass(frozen=True, slots=True)
class ConnectToVm:
    """A desktop, please."""

    query: Mapping[str, str]
    upgrades: bool

    def target(self) -> tuple[VmId, Mapping[str, str]]:
        """The VM, and the parameters meant for its VMA.

        :raises ProtocolError: 426, 422 or 403, in this order
        """
        if not self.upgrades:
            raise ProtocolError(426, "this server wants a newer client: the request does not ask for QVD/1.0")
        vm_id = _vm_id(self.query)
        params = {name: value for name, value in self.query.items() if name not in OWN_PARAMETERS}
        for name in params:
            if not name.startswith(NAMESPACES):
                raise ProtocolError(403, f"the parameter {name} is not allowed")
        return vm_id, params


@dataclass(frozen=True, slots=True)
class StopVm:
    """Stop a desktop, and say when it has stopped."""

    query: Mapping[str, str]

    def target(self) -> VmId:
        """The VM.

        :raises ProtocolError: 422
        """
        return _vm_id(self.query)


Call: TypeAlias = Ping | ListOfVm | ConnectToVm | StopVm


def parse_call(request: Request) -> Call:
    """What a request asks for.

    :raises ProtocolError: 404, there is no such thing
    """
    if request.method == "GET":
        match request.path:
            case "/qvd/ping":
                return Ping()
            case "/qvd/list_of_vm":
                return ListOfVm()
            case "/qvd/connect_to_vm":
                upgrades = (
                    request.headers.get("connection") == "Upgrade"
                    and request.headers.get("upgrade") == "QVD/1.0"
                )
                return ConnectToVm(parse_query(request.query), upgrades)
            case "/qvd/stop_vm":
                return StopVm(parse_query(request.query))
    raise ProtocolError(404, "there is nothing here by that name")


def parse_credentials(authorization: str | None) -> Credentials | None:
    """Login and password of a `Basic` header; None for anything else."""
    scheme, _, encoded = (authorization or "").partition(" ")
    if scheme != "Basic":
        return None
    try:
        decoded = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        return None
    login, colon, password = _text(decoded).partition(":")
    if not colon or not login.strip():
        return None
    return Credentials(login, Secret(password))


def parse_query(query: str) -> Mapping[str, str]:
    """`a=1&b=&c` as a mapping: `+` and `%XX` decoded, the last of a repeated name counts."""
    pairs = (part.partition("=") for part in query.split("&") if part)
    return {_decoded(name): _decoded(value) for name, _, value in pairs}


def list_body(vms: Iterable[Vm]) -> bytes:
    """The reply to `list_of_vm`: ids and flags as integers, or the clients read garbage (trap T5).

    `presence` is ours, for the client that waits for a restart; others ignore it (protocol.md 1.6).
    """
    rows = [
        {
            "id": int(vm.id),
            "name": vm.name,
            "state": str(vm.runtime.vm_state),
            "blocked": int(vm.runtime.blocked),
            "is_application": 0,
            "presence": _presence(vm.runtime),
        }
        for vm in vms
    ]
    return json.dumps(rows, ensure_ascii=True).encode("ascii")


def _presence(runtime: VmRuntime) -> int:
    """1 if the desktop is on its way back, and 2 more if a client has it or is about to."""
    return int(runtime.is_coming_back) + 2 * int(runtime.user_state is not UserState.DISCONNECTED)


def _vm_id(query: Mapping[str, str]) -> VmId:
    written = query.get("id", "")
    if not written:
        raise ProtocolError(422, "the parameter id is missing")
    if not (written.isascii() and written.isdigit() and len(written) <= MAX_ID_DIGITS):
        raise ProtocolError(422, "the parameter id is not the number of a desktop")
    return VmId(int(written))


def _decoded(text: str) -> str:
    return _text(unquote_to_bytes(text.replace("+", " ").encode("latin-1")))


def _text(encoded: bytes) -> str:
    try:
        return encoded.decode()
    except UnicodeDecodeError:
        return encoded.decode("latin-1")
