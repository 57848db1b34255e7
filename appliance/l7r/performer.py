"""Does what the session machine orders, for one client and one VM: the shell around `session.step`.

One action runs at a time, as a task whose outcome goes to the mailbox; two watchers, one of the row and one
of the client, post news there. An outcome of an action that was given up is dropped by its number. Whatever
way it ends, the connection to nxagent is closed first and the row given back after, so that port 4100 never
has two connections.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping
from uuid import uuid4

from appliance import config
from appliance.clock import Timers
from appliance.config import Settings
from appliance.errors import (
    AdminError,
    ApplianceError,
    GuestError,
    StoreError,
    VmaRefusedError,
    VmaUnreachableError,
)
from appliance.l7r import session as machine
from appliance.l7r.forwarder import Peer, dial, forward
from appliance.l7r.services import Services
from appliance.l7r.session import Action, Event, Limits, Phase, Session
from appliance.l7r.wire import ClientWire
from appliance.l7r.xparams import EXTRA_ARGS, fresh_slave_key, safe_extra_args, x_parameters
from appliance.log import facts
from appliance.model import SessionId, User, Vm
from appliance.ops import sessions
from appliance.ops.sessions import Claimant
from appliance.signals import Watch
from appliance.storage.sessions import SessionRow
from appliance.vma.wire import XState
from appliance.vma_client import VmaClient

logger = logging.getLogger(__name__)

FOLLOW_CONNECTED_S = 30.0
GUEST_CLOSE_S = 5.0
RELEASE_TRIES = 5
LISTENS_WITHIN_S, DIALS_AGAIN_S = 2.0, 0.05
"""How long an nxagent that says that it listens may refuse connections, and how often it is tried."""
OUR_FAULT = "the server has a problem, about which its log says more"


class Performer:
    """One client's session on one VM, from the permission to the end."""

    def __init__(
        self,
        services: Services,
        *,
        client: Peer,
        wire: ClientWire,
        vm: Vm,
        user: User,
        params: Mapping[str, str],
    ) -> None:
        self._services = services
        self._clock: Timers = services.clock
        self._settings = services.settings()
        self._client = client
        self._wire = wire
        self._vm = vm
        self._params = params
        self._claimant = Claimant(
            session=SessionId(str(uuid4())),
            vm_id=vm.id,
            user=user,
            user_ip=client.address,
            host_id=services.host_id,
            pid=os.getpid(),
        )
        self._slave_key = fresh_slave_key()
        self._x_params: Mapping[str, str] | None = None
        self._asked = self._clock.monotonic()
        self._session = Session(id=self._claimant.session, limits=_limits(self._settings), since=self._asked)
        self._guest: Peer | None = None
        self._begun: float | None = None
        self._received_before = 0
        self._lasted_s: float | None = None
        """How long the stream lasted, if it ended by itself."""
        self._mailbox: asyncio.Queue[tuple[int | None, Event]] = asyncio.Queue()
        self._effect = services.around(self._do)

    async def run(self) -> machine.Refuse | machine.Close:
        """Carry the session through; how it ended. After a refusal nothing but 102s has been sent."""
        newest, feed, vm_id = self._services.newest, self._services.feed, self._vm.id
        newest[vm_id] = self._session.id
        feed.announce(vm_id)
        self._client.on_end = self._client_left
        end: machine.Refuse | machine.Close = machine.Close(cause="the server gives up")
        try:
            with feed.watch(vm_id) as turn, feed.watch(vm_id) as news:
                async with asyncio.TaskGroup() as tasks:
                    following = tasks.create_task(self._follow(news), name=f"follow vm {vm_id}")
                    end = await self._conduct(tasks, turn)
                    following.cancel()
            return end
        finally:
            self._client.on_end = None
            if newest.get(vm_id) == self._session.id:
                del newest[vm_id]
            await self._leave(end.cause)

    # -- the loop

    async def _conduct(self, tasks: asyncio.TaskGroup, turn: Watch) -> machine.Refuse | machine.Close:
        event: Event = machine.Asked(at=self._asked)
        if self._client.ended:
            self._client_left()
        number = 0
        while True:
            self._session, action = machine.step(self._session, event)
            if action.say is not None:
                self._client.write(self._wire.progress(action.say))
            if isinstance(action, machine.Refuse | machine.Close):
                return action
            number += 1
            under_way = tasks.create_task(self._outcome(number, action, turn), name=type(action).__name__)
            event = await self._next_event(number)
            under_way.cancel()
            await asyncio.wait({under_way})

    async def _next_event(self, number: int) -> Event:
        while True:
            ordered_under, event = await self._mailbox.get()
            match event:
                case machine.RowSeen(row=row) if ordered_under is None:
                    if machine.concerns(self._session, row):
                        return event
                case _ if ordered_under in (None, number):
                    return event

    async def _outcome(self, number: int, action: Action, turn: Watch) -> None:
        try:
            event = await self._effect(action, turn)
        except AdminError as exc:
            event = machine.Failed(at=self._clock.monotonic(), cause=exc.message)
        except ApplianceError as exc:
            logger.error("the session cannot go on: %s", exc, extra=self._facts())
            event = machine.Failed(at=self._clock.monotonic(), cause=OUR_FAULT)
        self._mailbox.put_nowait((number, event))

    async def _follow(self, news: Watch) -> None:
        pause = self._session.limits.poll_vm_s
        while True:
            await news.changed(FOLLOW_CONNECTED_S if self._session.phase is Phase.CONNECTED else pause)
            if self._session.phase is Phase.TAKING:
                continue
            try:
                row = await self._services.rows.read(self._vm.id)
            except StoreError as exc:
                logger.warning("the row cannot be read, trying again: %s", exc, extra=self._facts())
                continue
            if machine.concerns(self._session, row):
                self._mailbox.put_nowait((None, machine.RowSeen(at=self._clock.monotonic(), row=row)))

    def _client_left(self) -> None:
        self._mailbox.put_nowait((None, machine.ClientLeft(at=self._clock.monotonic())))

    # -- the actions

    async def _do(self, action: Action, turn: Watch) -> Event:
        match action:
            case machine.TakeOver(wait_s=wait_s):
                return await self._take_over(turn, wait_s)
            case machine.WishStart():
                return await self._wish_start()
            case machine.AwaitRow(at_most_s=at_most_s):
                await self._clock.sleep(at_most_s)
                row = await self._services.rows.read(self._vm.id)
                return machine.RowSeen(at=self._clock.monotonic(), row=row)
            case machine.StartX(after_s=after_s):
                return await self._start_x(after_s)
            case machine.LookAtX(after_s=after_s):
                return await self._look_at_x(after_s)
            case machine.Dial():
                return await self._dial()
            case machine.Commit():
                return await self._commit()
            case machine.Switch():
                return await self._switch()
        raise AssertionError(f"no way to do {action}")

    async def _take_over(self, turn: Watch, wait_s: float) -> Event:
        if wait_s:
            await turn.changed(wait_s)
        if self._services.newest.get(self._vm.id, self._session.id) != self._session.id:
            return machine.Outrun(at=self._clock.monotonic())
        async with self._services.store.write() as tx:
            row = await sessions.take_over(tx, self._claimant)
        if row is None:
            self._services.feed.announce(self._vm.id)
            return machine.Contended(at=self._clock.monotonic())
        self._services.bell()
        return machine.Taken(at=self._clock.monotonic(), row=row)

    async def _wish_start(self) -> Event:
        async with self._services.store.write() as tx:
            row = await sessions.wish_start(tx, self._claimant)
        self._services.bell()
        return machine.RowSeen(at=self._clock.monotonic(), row=row)

    async def _start_x(self, after_s: float) -> Event:
        await self._clock.sleep(after_s)
        if self._x_params is None:
            self._x_params = await self._parameters()
        try:
            await self._vma().x_start(self._x_params)
        except (VmaRefusedError, VmaUnreachableError) as exc:
            logger.info("X does not start yet: %s", exc, extra=self._facts())
            refused = isinstance(exc, VmaRefusedError)
            return machine.XAsked(at=self._clock.monotonic(), failure=exc.message, refused=refused)
        return machine.XAsked(at=self._clock.monotonic())

    async def _look_at_x(self, after_s: float) -> Event:
        await self._clock.sleep(after_s)
        state: XState | None = None
        try:
            state = await self._vma().x_state()
        except GuestError as exc:
            logger.info("the state of X is not known: %s", exc, extra=self._facts())
        if state is XState.LISTENING and self._session.phase is Phase.AWAITING_X:
            logger.info("X listens", extra=self._facts())
        return machine.XSeen(at=self._clock.monotonic(), state=state)

    async def _dial(self) -> Event:
        row = self._placed_row()
        assert row.vm_address is not None
        assert row.vm_x_port is not None
        async with self._services.store.write() as tx:
            await tx.hosts.count(self._claimant.host_id, "nx_attempts")
        failure: str | None = None
        try:
            async with asyncio.timeout(self._settings[config.L7R_TIMEOUT_VMA]):
                self._guest = await self._reach(row.vm_address, row.vm_x_port)
        except TimeoutError:
            failure = "no answer in time"
        except OSError as exc:
            failure = exc.strerror or str(exc)
        return machine.Dialed(at=self._clock.monotonic(), failure=failure)

    async def _reach(self, address: str, port: int) -> Peer:
        """Connect to nxagent. It says that it listens shortly before it does; on a slow guest we are first.

        :raises OSError: it cannot be reached
        """
        begun = self._clock.monotonic()
        while True:
            try:
                return await dial(address, port)
            except ConnectionRefusedError:
                if self._clock.monotonic() - begun > LISTENS_WITHIN_S:
                    raise
            await self._clock.sleep(DIALS_AGAIN_S)

    async def _commit(self) -> Event:
        async with self._services.store.write() as tx:
            await tx.hosts.count(self._claimant.host_id, "nx_ok")
            ours = await tx.sessions.connected(self._vm.id, self._session.id)
        return machine.Committed(at=self._clock.monotonic(), ours=ours)

    async def _switch(self) -> Event:
        assert self._guest is not None
        self._begun, self._received_before = self._clock.monotonic(), self._client.received
        took = f"{self._begun - self._asked:.2f}s"
        logger.info("session begins", extra=self._facts(client=self._claimant.user_ip, took=took))
        self._client.on_end = None
        self._client.write(self._wire.switch(self._slave_key))
        cause = await forward(self._client, self._guest, self._wire.leftover())
        now = self._clock.monotonic()
        self._lasted_s = now - self._begun
        return machine.StreamEnded(at=now, cause=cause)

    # -- the end

    async def _leave(self, cause: str) -> None:
        if self._guest is not None:
            self._guest.abort()
            await asyncio.wait({self._guest.closed}, timeout=GUEST_CLOSE_S)
        self._report(cause)
        for left in reversed(range(RELEASE_TRIES)):
            try:
                await self._release()
                return
            except StoreError as exc:
                level = logging.WARNING if left else logging.ERROR
                logger.log(level, "the session cannot be given back: %s", exc, extra=self._facts())
                await self._clock.sleep(1.0)

    async def _release(self) -> None:
        async with self._services.store.write() as tx:
            await tx.sessions.release(self._vm.id, self._session.id)
            if self._lasted_s is not None and self._lasted_s < self._settings[config.L7R_SHORT_SESSION]:
                await tx.hosts.count(self._claimant.host_id, "short_sessions")
        self._services.feed.announce(self._vm.id)

    def _report(self, cause: str) -> None:
        if self._begun is None:
            logger.info("no session", extra=self._facts(reason=cause))
            return
        logger.info(
            "session ends",
            extra=self._facts(
                reason=cause,
                lasted=f"{self._clock.monotonic() - self._begun:.1f}s",
                to_guest=self._client.received - self._received_before,
                to_client=0 if self._guest is None else self._guest.received,
            ),
        )

    # -- what the actions need

    def _placed_row(self) -> SessionRow:
        assert self._session.row is not None
        return self._session.row

    def _vma(self) -> VmaClient:
        row = self._placed_row()
        assert row.vm_address is not None
        assert row.vm_vma_port is not None
        timeout_s = self._settings[config.L7R_TIMEOUT_VMA]
        return VmaClient(row.vm_address, row.vm_vma_port, timeout_s=timeout_s)

    async def _parameters(self) -> Mapping[str, str]:
        async with self._services.store.read() as tx:
            owner = await tx.users.get(self._vm.user_id)
            properties = await tx.properties.merged(
                osf_id=self._vm.osf_id,
                di_id=self._placed_row().current_di_id,
                user_id=self._vm.user_id,
                vm_id=self._vm.id,
            )
        _, dropped = safe_extra_args(self._params.get(EXTRA_ARGS, ""))
        if dropped:
            logger.warning("options of the client dropped", extra=self._facts(options=",".join(dropped)))
        return x_parameters(self._params, properties, owner, self._slave_key)

    def _facts(self, **more: object) -> dict[str, dict[str, object]]:
        return facts(vm=self._vm.id, user=self._claimant.user.login, cause=self._session.id[:8], **more)


def _limits(settings: Settings) -> Limits:
    return Limits(
        takeover_s=settings[config.L7R_TIMEOUT_TAKEOVER],
        vm_start_s=settings[config.L7R_TIMEOUT_VM_START],
        x_start_s=settings[config.L7R_TIMEOUT_X_START],
        x_retries=settings[config.L7R_RETRY_X_START],
        poll_vm_s=settings[config.L7R_POLL_VM],
        poll_x_s=settings[config.L7R_POLL_X],
    )
