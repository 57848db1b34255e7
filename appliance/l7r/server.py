"""The broker as the daemon sees it: opens the port, and keeps to the settings and certificate in force.

Another certificate, or another address, is taken over while all that is connected goes on (trap T28). What
cannot be taken over is told once, and all stays as it was.
"""

from __future__ import annotations

import asyncio
import logging
import resource
from collections.abc import Awaitable, Callable

from appliance import config
from appliance.clock import Clock
from appliance.config import Settings
from appliance.errors import ApplianceError, NetworkError
from appliance.l7r.connection import Connection
from appliance.l7r.expiry import CertificateWatch
from appliance.l7r.forwarder import Peer
from appliance.l7r.gate import Place
from appliance.l7r.listening import Claim, claim_port, place_of
from appliance.l7r.reception import Reception
from appliance.l7r.services import Do, RowReader, Services, make_authenticator
from appliance.l7r.tls import TlsWishes, make_context, tls_wishes
from appliance.log import facts
from appliance.model import HostId
from appliance.signals import ChangeFeed
from appliance.storage.store import Store
from appliance.threads import in_thread

logger = logging.getLogger(__name__)

LOOK_S = 60.0
"""Pause between looks at settings and certificate that no commit asked for."""
DESCRIPTORS_EACH = 4
"""For a client, its guest, and others that are coming or going meanwhile."""
DESCRIPTORS_ELSE = 1024
"""For all that is not the broker: without them the HKD would take its guests for dead."""


def reserve_descriptors(clients: int) -> None:
    """See to it that `clients` connections leave the rest of the process enough descriptors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS_EACH * clients + DESCRIPTORS_ELSE
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard), hard))
    if hard < wanted:
        logger.warning(
            "too few open files are allowed for so many clients: raise LimitNOFILE,"
            " or lower internal.l7r.max_connections",
            extra=facts(clients=clients, wanted=wanted, allowed=hard),
        )


class L7r:
    """The broker: one port on one or more addresses, and its clients."""

    def __init__(
        self,
        store: Store,
        settings: Callable[[], Settings],
        host_id: HostId,
        feed: ChangeFeed,
        bell: Callable[[], None],
        clock: Clock,
        tasks: asyncio.TaskGroup,
        around: Callable[[Do], Do] = lambda do: do,
    ) -> None:
        """Clients are served by tasks of `tasks`; `bell` is rung after each wish written.

        `around` is put between the actions of sessions and their effects.

        :raises ConfigError: `l7r.auth.plugins` is wrong
        """
        self._services = Services(
            store=store,
            settings=settings,
            host_id=host_id,
            feed=feed,
            bell=bell,
            clock=clock,
            authenticator=make_authenticator(settings(), store, clock),
            rows=RowReader(store),
            around=around,
        )
        self._tasks = tasks
        self._reception = Reception(self._serve, settings, clock, tasks)
        self._certificate = CertificateWatch(store, clock)
        self._wishes: TlsWishes | None = None
        self._clients = 0
        self._following: asyncio.Task[None] | None = None
        self._complaints: dict[str, str] = {}

    async def listen(self, claim: Claim | None = None) -> None:
        """Open the port, which may have been claimed before, and follow the settings from then on.

        :raises NetworkError: it is taken, or an address is not ours
        :raises ConfigError: there is no usable certificate
        """
        await self._take_over_tls()
        self._reserve()
        self._open(claim or claim_port(self._services.settings()))
        self._following = self._tasks.create_task(self._follow(), name="settings of the broker")

    async def close(self) -> None:
        """Close the port, end every session, and give their rows back."""
        if self._following is not None:
            self._following.cancel()
            await asyncio.wait({self._following})
        await self._reception.close()
        self._services.authenticator.close()

    async def _serve(self, client: Peer, place: Place) -> None:
        await Connection(self._services, client, place).serve()

    # -- what may change while clients are connected

    async def _follow(self) -> None:
        with self._services.feed.watch(None) as news:
            while True:
                await self._try("TLS stays as it was", self._take_over_tls)
                await self._try("the port stays as it was", self._move)
                self._reserve()
                await news.changed(LOOK_S)

    async def _try(self, otherwise: str, change: Callable[[], Awaitable[None]]) -> None:
        """Make a change that may be impossible; if so, say it once."""
        try:
            await change()
        except ApplianceError as exc:
            if self._complaints.get(otherwise) != str(exc):
                logger.error("%s", otherwise, extra=facts(reason=exc))
            self._complaints[otherwise] = str(exc)
        else:
            self._complaints.pop(otherwise, None)

    async def _take_over_tls(self) -> None:
        settings = self._services.settings()
        wishes = await tls_wishes(self._services.store, settings)
        if wishes is not None:
            await self._certificate.look(wishes.cert)
        if wishes != self._wishes:
            self._reception.tls = None if wishes is None else make_context(wishes, settings)
            self._wishes = wishes
            if self._reception.claim is not None:
                logger.info("another certificate, or other settings of TLS, for new clients")

    async def _move(self) -> None:
        """Listen elsewhere, if that is wanted.

        :raises NetworkError: that is not possible
        """
        settings, here = self._services.settings(), self._reception.claim
        if here is not None and here.place == place_of(settings):
            return
        try:
            claim = await in_thread(claim_port, settings)
            await self._reception.shut()
        except NetworkError:
            # Perhaps it is we who are in the way: `*` and one address exclude each other on one port.
            await self._reception.shut()
            try:
                claim = await in_thread(claim_port, settings)
            except NetworkError:
                if here is not None:
                    self._open(await in_thread(here.again))
                raise
        self._open(claim)

    def _open(self, claim: Claim) -> None:
        self._reception.open(claim)
        for each in claim.sockets:
            address, port, *_ = each.getsockname()
            tls = self._reception.tls is not None
            logger.info("listening", extra=facts(address=address, port=port, tls=tls))

    def _reserve(self) -> None:
        clients = self._services.settings()[config.L7R_MAX_CONNECTIONS]
        if clients != self._clients:
            self._clients = clients
            reserve_descriptors(clients)
