"""The connection to libvirtd: calls with a time limit, events, and a new connection whenever one is lost.

This is the one module that imports libvirt. Its calls block, some for as long as libvirtd does not answer,
so they are made by a crew of threads of their own, and nobody waits for one beyond its limit. Events do not
come by libvirt's adapter to asyncio: whatever thread makes a call would change the loop's descriptors and
timers behind its back, which neither loop allows (ADR 13). libvirt's own event loop runs in one thread of
this process instead, and what it tells is handed to our loop.

When libvirtd goes, calls fail at once, guests run on, and the link dials until it is back. What happened
meanwhile is not told afterwards: whoever is told `back` compares what it knows with `domains()`.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import libvirt

from appliance.errors import BackendError
from appliance.log import facts
from appliance.runtime.kvm_domain import METADATA, PERIOD_US, Limits
from appliance.threads import Crew, within

logger = logging.getLogger(__name__)

THREADS = 8
KEEPALIVE_S, KEEPALIVE_COUNT = 5, 3
DIAL_FIRST_S, DIAL_LONGEST_S = 0.2, 5.0
REMEDY = "systemctl status libvirtd; guests that run go on"

T = TypeVar("T")


class AwayError(BackendError):
    """libvirtd is not there, or does not answer."""


class UnsupportedError(BackendError):
    """libvirtd cannot do here what a domain asks for."""


class RefusedForNowError(BackendError):
    """libvirtd does not do it now: it may not be done yet with an earlier domain of that name."""


KINDS: Mapping[int, type[BackendError]] = {
    libvirt.VIR_ERR_CONFIG_UNSUPPORTED: UnsupportedError,
    libvirt.VIR_ERR_OPERATION_FAILED: RefusedForNowError,
}


@dataclass(frozen=True, slots=True)
class Seen:
    """A domain that runs: its name, and our element of its metadata if it has one."""

    name: str
    metadata: str | None


@dataclass(frozen=True, slots=True)
class Told:
    """Something that libvirtd told about a domain."""

    name: str
    paused_for_io: bool
    """Whether it waits because a disk could not be written."""


class Link:
    """One connection to libvirtd, made when it is first needed, and made again."""

    def __init__(self, uri: str, *, limit_s: float, start_limit_s: float) -> None:
        self._uri = uri
        self._limit_s = limit_s
        self._start_limit_s = start_limit_s
        self._crew = Crew("libvirt", THREADS)
        self._dialling = threading.Lock()
        self._connection: Any = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        self.told: Callable[[Told], None] = lambda told: None
        """Called on the loop for what happens to domains."""
        self.back: Callable[[], None] = lambda: None
        """Called on the loop when there is a new connection in place of one that was lost."""

    async def capabilities(self) -> str:
        """What libvirtd can do here, as XML.

        :raises AwayError: it does not answer
        """
        return await self._call("tell its capabilities", lambda link: str(link.getCapabilities()))

    async def version(self) -> str:
        """The versions of libvirtd and of its QEMU.

        :raises BackendError: it does not answer, or has no QEMU
        """

        def versions(link: Any) -> str:
            return f"libvirt {_dotted(link.getLibVersion())}, QEMU {_dotted(link.getVersion())}"

        return await self._call("tell its version", versions)

    async def domains(self) -> list[Seen]:
        """Every domain that runs, whoever started it.

        :raises AwayError: libvirtd does not answer
        """

        def listed(link: Any) -> list[Seen]:
            seen = (_seen(domain) for domain in link.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE))
            return [domain for domain in seen if domain is not None]

        return await self._call("list domains", listed)

    async def find(self, name: str) -> Seen | None:
        """The domain of that name, if it runs or is about to.

        :raises AwayError: libvirtd does not answer
        """
        return await self._call(f"find {name}", lambda link: _with(link, name, _seen))

    async def create(self, xml: str) -> None:
        """Start a transient domain. One that starts when nobody waits any longer is ended at once.

        :raises UnsupportedError: libvirtd cannot do what it asks for
        :raises RefusedForNowError: it may start later
        :raises BackendError: it does not start
        """
        given_up = threading.Event()

        def start(link: Any) -> None:
            domain = link.createXML(xml)
            if given_up.is_set():
                domain.destroy()

        try:
            await self._call("start a domain", start, limit_s=self._start_limit_s)
        except BaseException:
            given_up.set()
            raise

    async def limits(self, name: str, *, weighed: bool = False) -> Limits | None:
        """What is in force for a domain, its weight only if it was given one; None if it is gone.

        :raises BackendError: it cannot be told
        """

        def in_force(domain: Any) -> Limits:
            _, most_kib, _, vcpus, _ = domain.info()
            scheduler = domain.schedulerParameters()
            quota, period = int(scheduler["vcpu_quota"]), int(scheduler["vcpu_period"])
            unlimited = quota <= 0 or quota > period
            weight = int(domain.blkioParameters()["weight"]) if weighed else None
            return Limits(most_kib >> 10, vcpus, None if unlimited else quota * PERIOD_US // period, weight)

        return await self._call(f"tell the limits of {name}", lambda link: _with(link, name, in_force))

    async def destroy(self, name: str) -> None:
        """End a domain, if it is there; returns when it is gone.

        :raises BackendError: it cannot be ended
        """
        await self._call(
            f"end {name}",
            lambda link: _with(link, name, lambda domain: domain.destroy()),
            limit_s=self._start_limit_s,
        )

    async def shut_down(self, name: str) -> None:
        """Press a domain's power button, if it is there.

        :raises BackendError: it cannot be pressed
        """
        await self._call(f"shut down {name}", lambda link: _with(link, name, _press))

    def press_again(self, name: str) -> None:
        """Press the power button without waiting for what comes of it."""
        self._let(lambda link: _with(link, name, _press))

    def resume(self, name: str) -> None:
        """Let a paused domain go on, without waiting for what comes of it."""
        self._let(lambda link: _with(link, name, lambda domain: domain.resume()))

    def close(self) -> None:
        """Let go of the connection; guests run on."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._crew.submit(self._hang_up)
        self._crew.close()

    async def _call(self, what: str, work: Callable[[Any], T], *, limit_s: float | None = None) -> T:
        """The result of `work`, which is given the connection.

        :raises AwayError: libvirtd is not there, or does not answer in time
        :raises BackendError: it refuses
        """
        self._loop = asyncio.get_running_loop()
        limit = self._limit_s if limit_s is None else limit_s
        try:
            return await within(limit, self._crew.submit(functools.partial(self._carry_out, what, work)))
        except TimeoutError:
            raise AwayError(f"libvirtd gave no answer within {limit:g} s: {what}", hint=REMEDY) from None

    def _let(self, work: Callable[[Any], object]) -> None:
        def quietly() -> None:
            with contextlib.suppress(BackendError):
                self._carry_out("", work)

        self._crew.submit(quietly)

    def _carry_out(self, what: str, work: Callable[[Any], T]) -> T:
        connection = self._dial()
        try:
            return work(connection)
        except libvirt.libvirtError as exc:
            raise self._translated(what, connection, exc) from exc

    def _translated(self, what: str, connection: Any, exc: libvirt.libvirtError) -> BackendError:
        if not _is_alive(connection):
            return AwayError(f"libvirtd went away and did not {what}", hint=REMEDY)
        kind = KINDS.get(exc.get_error_code(), BackendError)
        return kind(f"libvirtd does not {what}: {_reason(exc)}")

    def _dial(self) -> Any:
        """The connection, made anew if there is none or it is dead."""
        with self._dialling:
            if self._connection is not None and _is_alive(self._connection):
                return self._connection
            if self._closed:
                raise AwayError("the link to libvirtd is closed")
            _run_events()
            try:
                connection = libvirt.open(self._uri)
                connection.setKeepAlive(KEEPALIVE_S, KEEPALIVE_COUNT)
                connection.registerCloseCallback(self._on_close, None)
                kind = libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE
                connection.domainEventRegisterAny(None, kind, self._on_event, None)
            except libvirt.libvirtError as exc:
                reason = _reason(exc)
                raise AwayError(f"libvirtd is not reached at {self._uri}: {reason}", hint=REMEDY) from exc
            self._connection = connection
            return connection

    def _hang_up(self) -> None:
        with self._dialling:
            connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(libvirt.libvirtError):
                connection.unregisterCloseCallback()
            with contextlib.suppress(libvirt.libvirtError):
                connection.close()

    # What follows is called by the thread of libvirt's event loop.

    def _on_close(self, _connection: Any, _reason: int, _opaque: object) -> None:
        self._on_loop(self._lost)

    def _on_event(self, _connection: Any, domain: Any, event: int, detail: int, _opaque: object) -> None:
        paused = (event, detail) == (
            libvirt.VIR_DOMAIN_EVENT_SUSPENDED,
            libvirt.VIR_DOMAIN_EVENT_SUSPENDED_IOERROR,
        )
        told = Told(str(domain.name()), paused)
        self._on_loop(lambda: self.told(told))

    def _on_loop(self, call: Callable[[], None]) -> None:
        if self._loop is not None and not self._closed:
            with contextlib.suppress(RuntimeError):  # the loop has been closed
                self._loop.call_soon_threadsafe(call)

    # And this by ours.

    def _lost(self) -> None:
        if not self._closed:
            logger.error("libvirtd is gone: guests go on, nothing can be ordered", extra=facts(uri=self._uri))
            self._dial_again(DIAL_FIRST_S)

    def _dial_again(self, pause_s: float) -> None:
        def dialled() -> None:
            try:
                self._dial()
            except BackendError:
                self._on_loop(lambda: self._dial_again(min(2 * pause_s, DIAL_LONGEST_S)))
            else:
                self._on_loop(self._is_back)

        if self._loop is not None and not self._closed:
            self._timer = self._loop.call_later(pause_s, self._crew.submit, dialled)

    def _is_back(self) -> None:
        logger.info("libvirtd is back", extra=facts(uri=self._uri))
        self.back()


def _seen(domain: Any) -> Seen | None:
    try:
        name = str(domain.name())
        return Seen(name, str(domain.metadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, METADATA)))
    except libvirt.libvirtError as exc:
        if exc.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN_METADATA:
            return Seen(name, None)
        if exc.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
            return None
        raise


def _with(link: Any, name: str, work: Callable[[Any], T]) -> T | None:
    """What `work` makes of the domain of that name; None if it is gone before that, or meanwhile."""
    try:
        return work(link.lookupByName(name))
    except libvirt.libvirtError as exc:
        gone = (libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_OPERATION_INVALID)
        if exc.get_error_code() in gone:
            return None
        raise


def _press(domain: Any) -> None:
    domain.shutdownFlags(libvirt.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN)


def _is_alive(connection: Any) -> bool:
    try:
        return bool(connection.isAlive() == 1)
    except libvirt.libvirtError:
        return False


def _reason(exc: libvirt.libvirtError) -> str:
    """The last thing that libvirtd says: with a QEMU that ended, this is QEMU's own complaint."""
    said = [line.strip() for line in str(exc.get_error_message() or exc).splitlines() if line.strip()]
    return said[-1] if said else "it gave no reason"


def _dotted(number: int) -> str:
    return f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}"


@functools.cache
def _run_events() -> None:
    """Run libvirt's event loop in a thread for the rest of this process, before the first connection."""
    libvirt.registerErrorHandler(lambda _context, _error: None, None)
    libvirt.virEventRegisterDefaultImpl()

    def run() -> None:
        while True:
            libvirt.virEventRunDefaultImpl()

    threading.Thread(target=run, name="libvirt-events", daemon=True).start()
