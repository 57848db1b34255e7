"""The listener: accepts clients, gives each a task, and never lets one client end another.

`L7r` is what the daemon sees of the broker.
"""

from __future__ import annotations

import asyncio
import logging
import resource
import socket
from collections.abc import Callable

from appliance import config
from appliance.clock import Clock
from appliance.config import Settings
from appliance.errors import NetworkError
from appliance.l7r.connection import Connection
from appliance.l7r.forwarder import LINGER_S, Peer
from appliance.l7r.services import Do, RowReader, Services, make_authenticator
from appliance.l7r.tls import server_context
from appliance.log import facts
from appliance.model import HostId
from appliance.signals import ChangeFeed
from appliance.storage.store import Store

logger = logging.getLogger(__name__)

HANDSHAKE_S = 15.0
BACKLOG = 512
DESCRIPTORS_EACH = 4
"""For a client, its guest, and others that are coming or going meanwhile."""
DESCRIPTORS_ELSE = 1024
"""For all that is not the broker: without them the HKD would take its guests for dead."""
EVERY_ADDRESS = "0.0.0.0"  # noqa: S104  that is what `*` asks for


def claim_port(settings: Settings) -> socket.socket:
    """The broker's port, bound but not open yet: so a daemon that cannot have it learns so before all else.

    :raises NetworkError: it is taken, or the address is not ours
    """
    address = settings[config.L7R_ADDRESS]
    place = (EVERY_ADDRESS if address == "*" else address, settings[config.L7R_PORT])
    try:
        family, *_ = socket.getaddrinfo(*place, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        claimed = socket.socket(family, socket.SOCK_STREAM)
        try:
            claimed.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            claimed.bind(place)
        except BaseException:
            claimed.close()
            raise
    except OSError as exc:
        raise _busy(settings, exc) from exc
    claimed.setblocking(False)
    return claimed


def _busy(settings: Settings, exc: OSError) -> NetworkError:
    address, port = settings[config.L7R_ADDRESS], settings[config.L7R_PORT]
    return NetworkError(
        f"the L7R cannot listen on {address}:{port}: {exc.strerror or exc}",
        hint=f"see who does with ss -ltnp 'sport = {port}', or set l7r.address and l7r.port",
    )


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
    """The broker: one listening port and its clients."""

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
        self._server: asyncio.Server | None = None
        self._serving: set[asyncio.Task[None]] = set()

    async def listen(self, port: socket.socket | None = None) -> None:
        """Open the port, which may have been claimed before.

        :raises NetworkError: it is taken, or the address is not ours
        :raises ConfigError: there is no usable certificate
        """
        settings = self._services.settings()
        reserve_descriptors(settings[config.L7R_MAX_CONNECTIONS])
        tls = await server_context(self._services.store, settings) if settings[config.L7R_USE_SSL] else None
        try:
            self._server = await asyncio.get_running_loop().create_server(
                lambda: Peer(self._accept),
                sock=port or claim_port(settings),
                backlog=BACKLOG,
                ssl=tls,
                ssl_handshake_timeout=HANDSHAKE_S if tls else None,
                ssl_shutdown_timeout=LINGER_S if tls else None,
            )
        except OSError as exc:
            raise _busy(settings, exc) from exc
        address, number = settings[config.L7R_ADDRESS], settings[config.L7R_PORT]
        logger.info("listening", extra=facts(address=address, port=number, tls=tls is not None))

    async def close(self) -> None:
        """Close the port, end every session, and give their rows back."""
        if self._server is not None:
            self._server.close()
            self._server = None
        serving = set(self._serving)
        for task in serving:
            task.cancel()
        if serving:
            await asyncio.wait(serving)
        self._services.authenticator.close()

    def _accept(self, client: Peer) -> None:
        limit = self._services.settings()[config.L7R_MAX_CONNECTIONS]
        if len(self._serving) >= limit or self._server is None:
            logger.warning("client turned away", extra=facts(client=client.address, connections=limit))
            client.abort()
            return
        task = self._tasks.create_task(self._serve(client), name=f"client {client.address}")
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(self, client: Peer) -> None:
        try:
            await Connection(self._services, client).serve()
        except Exception:
            logger.exception("the connection failed", extra=facts(client=client.address))
        finally:
            client.finish()
