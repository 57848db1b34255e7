"""One client's connection: request after request, until it becomes a stream or ends.

The order of the checks is the client's contract (protocol.md 1.5 to 1.8): it decides which status is seen.
Who owns a VM is checked before anything is told about it or written (trap T2).
"""

from __future__ import annotations

import asyncio
import logging

from appliance import config
from appliance.errors import ApplianceError, NotFoundError, ProtocolError
from appliance.filters import Filter
from appliance.l7r.calls import (
    ConnectToVm,
    ListOfVm,
    Ping,
    StopVm,
    list_body,
    parse_call,
    parse_credentials,
)
from appliance.l7r.forwarder import Peer
from appliance.l7r.gate import Place
from appliance.l7r.performer import Performer
from appliance.l7r.services import Services
from appliance.l7r.session import Refuse
from appliance.l7r.stopping import stop_and_wait
from appliance.l7r.wire import JSON, ClientWire, Request
from appliance.log import facts
from appliance.model import Host, HostState, User, Vm, VmId
from appliance.storage.store import Tx

logger = logging.getLogger(__name__)

STRANGER_S = 60.0
"""How long somebody who has not logged in may take for a request: no longer, for they cost a place."""
LOGIN_SHOWN = 64
"""How much of the login of somebody unknown is logged: they may choose its length, and ask again at once."""
INTERNAL = "the server has a problem, about which its log says more"


class Connection:
    """A conversation with one client."""

    def __init__(self, services: Services, client: Peer, place: Place) -> None:
        self._services = services
        self._client = client
        self._place = place
        self._wire = ClientWire()
        self._seal = b""

    async def serve(self) -> None:
        """Answer until the client leaves, errs, idles too long, or its session ends."""
        try:
            while True:
                request = await self._next_request(self._patience_s())
                if request is None or await self._answer(request):
                    return
        except ProtocolError as exc:
            logger.info("not a request: %s", exc, extra=facts(client=self._client.address))
            self._refuse(exc.status, exc.message)
        except TimeoutError:
            logger.debug("idle client dropped", extra=facts(client=self._client.address))

    def _patience_s(self) -> float:
        idle_s = self._services.settings()[config.L7R_TIMEOUT_IDLE]
        return min(STRANGER_S, idle_s) if self._place.stranger else idle_s

    async def _next_request(self, patience_s: float) -> Request | None:
        async with asyncio.timeout(patience_s):
            await self._client.room()
            data = b""
            while True:
                for request in self._wire.feed(data):
                    return request
                data = await self._client.read()
                if not data:
                    return None

    async def _answer(self, request: Request) -> bool:
        """Carry out one request; whether the connection is spent."""
        try:
            match parse_call(request):
                case Ping():
                    await self._ping()
                case ListOfVm():
                    await self._list_of_vm(request)
                case ConnectToVm() as call:
                    return await self._connect_to_vm(request, call)
                case StopVm() as call:
                    await self._stop_vm(request, call)
        except ProtocolError as exc:
            self._refuse(exc.status, exc.message)
        except ApplianceError as exc:
            logger.error(
                "the request failed: %s", exc, extra=facts(client=self._client.address, path=request.path)
            )
            self._refuse(500, INTERNAL)
        except Exception:
            logger.exception(
                "the request failed", extra=facts(client=self._client.address, path=request.path)
            )
            self._refuse(500, INTERNAL)
            return True
        return False

    # -- the calls

    async def _ping(self) -> None:
        async with self._services.store.read() as tx:
            host = await self._host(tx)
        _check_serving(host)
        self._reply(b"I am alive!\r\n")

    async def _list_of_vm(self, request: Request) -> None:
        host, user = await self._admit(request)
        _check_serving(host)
        async with self._services.store.read() as tx:
            vms = await tx.vms.find(Filter.where(user_id=user.id))
        self._reply(list_body(vms), JSON)

    async def _connect_to_vm(self, request: Request, call: ConnectToVm) -> bool:
        host, user = await self._admit(request)
        _check_serving(host)
        vm_id, params = call.target()
        vm = await self._vm_of(user, vm_id)
        if vm.runtime.blocked:
            raise ProtocolError(403, "this desktop is under maintenance")
        performer = Performer(
            self._services,
            client=self._client,
            wire=self._wire,
            vm=vm,
            user=user,
            params=params,
        )
        end = await performer.run()
        if not isinstance(end, Refuse):
            return True
        text = f"The desktop {vm.name} cannot be shown now: {end.cause}. Please try again in a moment."
        self._refuse(end.status, text)
        return False

    async def _stop_vm(self, request: Request, call: StopVm) -> None:
        host, user = await self._admit(request)
        _check_serving(host)
        vm = await self._vm_of(user, call.target())
        await stop_and_wait(
            self._services,
            vm,
            by=user.login,
            tell=lambda text: self._client.write(self._wire.progress(text)),
            left=lambda: self._client.ended,
        )
        self._reply(b"Machine stopped\r\n")

    # -- the checks

    async def _admit(self, request: Request) -> tuple[Host, User]:
        """The node and the authenticated user; counts as protocol.md 5.10 says.

        :raises ProtocolError: 503, the node is not registered; 401
        """
        settings, store = self._services.settings(), self._services.store
        async with store.read() as tx:
            await self._host(tx)
        counters = ["http_requests"]
        user: User | None = None
        credentials = parse_credentials(request.headers.get("authorization"))
        if credentials is not None:
            verdict = await self._services.authenticator.authenticate(
                settings, credentials, self._seal, origin=self._place.origin
            )
            user, self._seal = verdict.user, verdict.seal
            if not verdict.repeated:
                counters += ["auth_attempts", *(["auth_ok"] if user is not None else [])]
        async with store.write() as tx:
            for counter in counters:
                await tx.hosts.count(self._services.host_id, counter)
            host = await self._host(tx)
        if user is None:
            login = None if credentials is None else credentials.login[:LOGIN_SHOWN]
            logger.info("log-in refused", extra=facts(client=self._client.address, login=login))
            raise ProtocolError(401, "login or password are wrong")
        self._place.known()
        return host, user

    async def _vm_of(self, user: User, vm_id: VmId) -> Vm:
        try:
            async with self._services.store.read() as tx:
                vm = await tx.vms.get(vm_id)
        except NotFoundError as exc:
            raise ProtocolError(404, "this desktop does not exist (any more)") from exc
        if vm.user_id != user.id:
            raise ProtocolError(403, "this desktop belongs to somebody else")
        return vm

    async def _host(self, tx: Tx) -> Host:
        try:
            return await tx.hosts.get(self._services.host_id)
        except NotFoundError as exc:
            raise ProtocolError(503, "this node is not registered") from exc

    # -- the replies

    def _reply(self, body: bytes, content_type: str = "text/plain") -> None:
        for portion in self._wire.reply(200, body, content_type):
            self._client.write(portion)

    def _refuse(self, status: int, text: str) -> None:
        for portion in self._wire.refusal(status, text):
            self._client.write(portion)


def _check_serving(host: Host) -> None:
    if host.blocked:
        raise ProtocolError(503, "this node is under maintenance")
    if host.state is not HostState.RUNNING:
        raise ProtocolError(503, f"this node is {host.state}")
