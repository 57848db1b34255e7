"""Guests as virtual machines: domains of libvirtd, found again by their QEMU processes.

libvirtd starts and ends domains; whether a guest lives is what its QEMU says, whose process is followed. So
guests run on, and are seen, while libvirtd is away: what needs it then fails, blamed on the host, and is
tried again. Nothing here is remembered that cannot be read back: the mark is in the domain's metadata and,
with the whole domain, in a file below `path.run.kvm`.

What keeps two QEMUs from one disk: the root's lock from before anything is touched until the new QEMU has
its images open, and from then on QEMU's own locks on them (`image_lock`).
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import signal
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial

from appliance import config, console_log
from appliance.clock import SystemClock, Timers
from appliance.config import Settings
from appliance.errors import BackendError, HostError
from appliance.log import facts
from appliance.model import NO_DI, InstallationId, Mark, Usage, VmId
from appliance.runtime import bridge, kvm_accel, kvm_domain, kvm_launch, kvm_process, names
from appliance.runtime.backend import Departure, GuestSpec, Sighting
from appliance.runtime.cgroups import NO_WEIGHTS, Cgroups, tell_weightless
from appliance.runtime.followed import Followed
from appliance.runtime.kvm_console import Line
from appliance.runtime.kvm_domain import DiskFiles, Platform
from appliance.runtime.kvm_watch import Watch
from appliance.runtime.libvirt_link import AwayError, Link, RefusedForNowError, Seen, Told, UnsupportedError
from appliance.runtime.processes import started
from appliance.storage import admission, root_lock
from appliance.storage.paths import Paths
from appliance.threads import in_thread

logger = logging.getLogger(__name__)

LOOK_S = 0.02
KILL_S = 40.0
TERM_S = 3.0
"""How long a QEMU may take to write out its disks' tables when it is told to end."""
FORGET_S = 5.0
RESUME_S = 10.0
LOG_BYTES = 1 << 17
LONGEST_SOCKET = 107
"""What the kernel takes as the path of a Unix socket."""
TOOLS = (kvm_accel.QEMU, "qemu-img")


@dataclass(frozen=True, slots=True)
class Back:
    """libvirtd is there again."""


class Kvm:
    """The `Backend` of virtual machines."""

    sees_departures = True

    def __init__(
        self,
        paths: Paths,
        installation: InstallationId,
        settings: Settings,
        files: Callable[[Mark], DiskFiles],
        *,
        timers: Timers | None = None,
    ) -> None:
        """`files` tells where the disks of a guest are."""
        self._paths = paths
        self._installation = installation
        self._settings = settings
        self._files = files
        self._cgroups = Cgroups(paths.cgroup)
        self._timers = timers or SystemClock()
        self._platform: Platform | None = None
        self._guests: dict[VmId, GuestSpec] = {}
        self._followed = Followed[Watch, Line, Back]()
        self._link = Link(
            settings[config.KVM_URI],
            limit_s=settings[config.KVM_TIMEOUT],
            start_limit_s=settings[config.KVM_TIMEOUT_START],
        )
        self._link.told = self._told
        self._link.back = partial(self._followed.news.put_nowait, Back())

    async def check(self) -> None:
        """Whether virtual machines can work here, and by what.

        :raises BackendError: with the remedy
        """
        missing = [tool for tool in TOOLS if shutil.which(tool) is None]
        if missing:
            raise BackendError(f"programs are missing: {', '.join(missing)}", hint="run scripts/setup")
        longest = self._paths.serial(VmId(2**31))
        if len(os.fsencode(longest)) > LONGEST_SOCKET:
            raise BackendError(
                f"{self._paths.kvm} is too long for sockets to be below it",
                hint="give a shorter path.run.kvm",
            )
        version, capabilities = await self._link.version(), await self._link.capabilities()
        choice = await kvm_accel.choose(self._settings[config.KVM_ACCEL])
        if not kvm_domain.can_run(capabilities, choice.accel):
            raise BackendError(f"libvirtd runs no x86_64 guests by {choice.accel}", hint="run scripts/setup")
        owner = kvm_domain.qemu_owner(capabilities)
        self._platform = Platform(choice.accel, self._settings[config.KVM_CPUS], owner)
        logger.info(
            "virtual machines can run",
            extra=facts(by=choice.accel, because=choice.reason, version=version, user=owner[0]),
        )

    async def survey(self) -> Mapping[VmId, Sighting]:
        """What runs here with our installation's mark, whether libvirtd is there or not."""
        running = await in_thread(kvm_process.find_all, self._paths, self._installation)
        listed: dict[VmId, Seen] = {}
        try:
            for seen in await self._link.domains():
                if (vm_id := names.vm_of(self._installation, seen.name)) is not None:
                    listed[vm_id] = seen
        except AwayError as exc:
            logger.warning("surveyed without libvirtd", extra=facts(error=exc))
        sightings = {}
        for vm_id, pid in running.items():
            mark = self._mark(vm_id, listed.get(vm_id))
            if mark is None:
                logger.warning(
                    "a foreign domain has a name of ours: left alone", extra=facts(vm=vm_id, pid=pid)
                )
            elif (since := started(pid)) is not None:
                sightings[vm_id] = Sighting(mark=mark, init_pid=pid, init_started=since)
        return sightings

    async def adopt(self, guest: GuestSpec) -> None:
        """Follow a guest found running and make its tap a port of our bridge; one that is gone departs."""
        pid = await self._find(guest.vm_id)
        if pid is None:
            self._followed.ended(guest.vm_id)
            return
        self._guests[guest.vm_id] = guest
        if guest.vm_id not in self._followed.watches:
            self._watch(guest.vm_id, pid)
        if await bridge.exists(guest.interface):
            await bridge.attach(guest.interface, guest.bridge)
        else:
            # QEMU holds the tap that it was given, and nobody can give it another.
            logger.error(
                "guest has lost its network: restart it", extra=facts(vm=guest.vm_id, link=guest.interface)
            )

    async def define(self, guest: GuestSpec) -> None:
        """Write down the guest's domain, and make what its sockets and its log need.

        :raises BackendError: it cannot be written
        """
        if self._platform is None:
            await self.check()
        assert self._platform is not None
        if guest.io_weight is not None and await in_thread(self._cgroups.io_weight) is None:
            tell_weightless(NO_WEIGHTS)
            guest = replace(guest, io_weight=None)
        await in_thread(self._write, guest, self._platform)
        self._guests[guest.vm_id] = guest

    async def launch(self, vm_id: VmId) -> None:
        """Start a defined guest; returns when its QEMU runs, under the limits that were asked for.

        :raises BackendError: it cannot, or something already runs on that root
        :raises GuestError: its image is unusable
        """
        guest = self._guests.get(vm_id)
        if guest is None or self._platform is None:
            raise BackendError(f"VM {vm_id} is not defined")
        files = self._files(guest.mark)
        with self._root_locked(vm_id):
            if (pid := await self._find(vm_id)) is not None:
                raise BackendError(f"VM {vm_id} runs already, as process {pid}", hint="stop it first")
            await self._forgotten(vm_id)
            xml = await in_thread(self._made_ready, vm_id, files, self._platform)
            await bridge.tap(guest.interface, guest.bridge)
            logger.debug("domain is given to libvirtd", extra=facts(vm=vm_id))
            try:
                guest = await self._created(guest, xml, files)
                await self._verify(guest, self._platform)
                if (pid := await self._find(vm_id)) is None:
                    raise kvm_launch.ended_at_once()
                self._watch(vm_id, pid)
            except BaseException:
                await self._kill_now(vm_id)
                raise

    async def stop(self, vm_id: VmId) -> None:
        """Press the guest's power button, and again for a while: one that has just begun does not listen.

        :raises BackendError: libvirtd does not do it
        """
        with self._over(vm_id, await self._find(vm_id)) as watch:
            if watch is not None:
                name = self._name(vm_id)
                await self._link.shut_down(name)
                watch.press(lambda: self._link.press_again(name))

    async def kill(self, vm_id: VmId) -> None:
        """End the guest's QEMU, by libvirtd or without it; returns when nothing runs and its disks are free.

        :raises BackendError: something survives, or the domain of that name is not ours
        """
        lock = self._paths.root_lock(vm_id)
        try:
            async with asyncio.timeout(KILL_S):
                while (pid := await self._find(vm_id)) is not None:
                    with self._over(vm_id, pid) as watch:
                        if watch is not None:
                            await self._end(vm_id, watch)
                with suppress(AwayError):
                    await self._forgotten(vm_id)
                while lock.exists() and root_lock.is_locked(lock):
                    await self._timers.sleep(LOOK_S)
        except TimeoutError as exc:
            raise BackendError(
                f"VM {vm_id} cannot be killed: process {pid} or {lock} is still there"
            ) from exc

    async def erase(self, vm_id: VmId) -> None:
        """Remove the guest's tap, sockets, logs, lock and domain.

        :raises BackendError: it still runs
        """
        with self._root_locked(vm_id):
            if (pid := await self._find(vm_id)) is not None:
                raise BackendError(f"VM {vm_id} still runs, as process {pid}", hint="kill it first")
            if interface := self._interface(vm_id):
                await bridge.remove(interface)
            await in_thread(self._cgroups.sweep_domain, self._name(vm_id))
            await in_thread(self._clear, vm_id)
            await in_thread(shutil.rmtree, self._paths.sockets(vm_id), ignore_errors=True)
            for file in (self._paths.domain(vm_id), self._paths.line_lock(vm_id)):
                file.unlink(missing_ok=True)
            self._paths.root_lock(vm_id).unlink(missing_ok=True)
        self._guests.pop(vm_id, None)

    async def departures(self) -> AsyncIterator[Departure]:
        """Every guest launched or adopted here, once, when its QEMU is gone.

        Whoever waits here also has what libvirtd knows compared with what runs, when it has been away.
        """
        while True:
            news = await self._followed.news.get()
            if isinstance(news, Departure):
                yield news
            else:
                await self._compare()

    def console(self, vm_id: VmId) -> Line:
        """The line to the getty on the guest's ttyS0."""
        paths = self._paths
        make = partial(Line, f"VM {vm_id}", paths.serial(vm_id), paths.line_lock(vm_id))
        return self._followed.line(vm_id, make)

    async def console_tail(self, vm_id: VmId, lines: int) -> str:
        """The last lines of what firmware and guest wrote to the serial line."""
        log = self._paths.console_log(vm_id)
        return await in_thread(console_log.tail, (log.with_name(f"{log.name}.0"), log), lines)

    async def sample(self, vm_id: VmId) -> Usage:
        """What the guest's QEMU uses.

        :raises BackendError: it does not run
        """
        watch = self._followed.watches.get(vm_id)
        if watch is None or not watch.alive:
            raise BackendError(f"VM {vm_id} does not run here")
        cpu_s, memory = kvm_process.cpu_s(watch.pid), kvm_process.memory_bytes(watch.pid)
        if cpu_s is None or memory is None:
            raise BackendError(f"VM {vm_id} ended while it was measured")
        return Usage(cpu_s=cpu_s, memory_bytes=memory)

    def close(self) -> None:
        """Let go of every guest and of libvirtd; all of them run on."""
        self._followed.close()
        self._link.close()

    async def _end(self, vm_id: VmId, watch: Watch) -> None:
        """End a QEMU as orderly as it can be done: a disk's tables are then as the guest left its disk."""
        name = self._name(vm_id)
        try:
            seen = await self._link.find(name)
            if seen is not None and self._mark(vm_id, seen) is None:
                raise ForeignError(f"the domain {name} is not ours", hint=f"virsh domrename, or end {name}")
            await self._link.destroy(name)
        except ForeignError:
            raise
        except BackendError as exc:
            logger.warning("guest is ended without libvirtd", extra=facts(vm=vm_id, error=exc))
        if watch.alive:
            watch.signal(signal.SIGTERM)
            with suppress(TimeoutError):
                async with asyncio.timeout(TERM_S):
                    await asyncio.shield(watch.done)
        watch.signal(signal.SIGKILL)
        if watch.alive:
            await asyncio.shield(watch.done)

    async def _kill_now(self, vm_id: VmId) -> None:
        """End what a failed launch left: a libvirtd that dies while it starts a domain leaves a QEMU."""
        try:
            if (pid := await self._find(vm_id)) is not None:
                with self._over(vm_id, pid) as watch:
                    if watch is not None:
                        await self._end(vm_id, watch)
        except HostError as exc:
            logger.error("what was launched in vain cannot be ended", extra=facts(vm=vm_id, error=exc))

    async def _forgotten(self, vm_id: VmId) -> None:
        """Return when libvirtd knows no domain of that name; its QEMU must be gone.

        :raises BackendError: it goes on knowing one, or does not answer
        """
        name, begun = self._name(vm_id), self._timers.monotonic()
        while (seen := await self._link.find(name)) is not None:
            if self._mark(vm_id, seen) is None:
                raise ForeignError(f"there is a domain {name} that is not ours", hint=f"end {name}")
            if self._timers.monotonic() > begun + FORGET_S:
                raise BackendError(f"libvirtd does not forget the domain {name}", hint="restart libvirtd")
            if self._timers.monotonic() > begun + FORGET_S / 2:
                await self._link.destroy(name)
            await self._timers.sleep(LOOK_S)

    async def _created(self, guest: GuestSpec, xml: str, files: DiskFiles) -> GuestSpec:
        """The guest whose domain is started: without its weight if libvirtd has no control group for that."""
        try:
            await self._create(xml, files)
            return guest
        except UnsupportedError as exc:
            if guest.io_weight is None:
                raise
            reason = str(exc)
        unweighed = replace(guest, io_weight=None)
        await self.define(unweighed)
        await self._create(self._paths.domain(guest.vm_id).read_text(), files)
        tell_weightless(reason)
        return unweighed

    async def _create(self, xml: str, files: DiskFiles) -> None:
        """Start the domain, later if libvirtd has not wholly removed the one before that it knows no more."""
        begun = self._timers.monotonic()
        while True:
            try:
                await self._link.create(xml)
                return
            except AwayError:
                raise
            except RefusedForNowError as exc:
                if self._timers.monotonic() > begun + FORGET_S:
                    raise kvm_launch.blamed(exc, files) from exc
                await self._timers.sleep(LOOK_S)
            except BackendError as exc:
                raise kvm_launch.blamed(exc, files) from exc

    async def _verify(self, guest: GuestSpec, platform: Platform) -> None:
        wanted, weighed = kvm_domain.limits(guest, platform), guest.io_weight is not None
        found = await self._link.limits(self._name(guest.vm_id), weighed=weighed)
        if found is None:
            raise kvm_launch.ended_at_once()
        if found != wanted:
            raise BackendError(
                f"the limits of VM {guest.vm_id} are not in force: {found} instead of {wanted}",
                hint="libvirtd needs the control groups cpu and cpuacct",
            )

    async def _find(self, vm_id: VmId) -> int | None:
        watch = self._followed.watches.get(vm_id)
        if watch is not None and watch.alive:
            return watch.pid
        return (await in_thread(kvm_process.find_all, self._paths, self._installation)).get(vm_id)

    async def _compare(self) -> None:
        try:
            known = {seen.name for seen in await self._link.domains()}
        except BackendError as exc:
            logger.warning("libvirtd went again", extra=facts(error=exc))
            return
        for vm_id, watch in self._followed.watches.items():
            if watch.alive and self._name(vm_id) not in known:
                logger.error(
                    "libvirtd has lost a guest that runs: it can be killed, not shut down",
                    extra=facts(vm=vm_id, pid=watch.pid),
                )

    def _told(self, told: Told) -> None:
        vm_id = names.vm_of(self._installation, told.name)
        if vm_id is None or not told.paused_for_io:
            return
        logger.error(
            "guest waits because its disk cannot be written: the pool may be full", extra=facts(vm=vm_id)
        )
        asyncio.get_running_loop().call_later(RESUME_S, self._link.resume, told.name)

    def _watch(self, vm_id: VmId, pid: int) -> None:
        log = self._paths.console_log(vm_id)
        before = log.with_name(f"{log.name}.0")
        ended = partial(self._followed.ended, vm_id)
        self._followed.watches[vm_id] = Watch(pid, ended, partial(console_log.bound, log, before, LOG_BYTES))

    def _over(self, vm_id: VmId, pid: int | None) -> AbstractContextManager[Watch | None]:
        return self._followed.over(vm_id, partial(Watch, pid, lambda: None) if pid else None)

    @contextmanager
    def _root_locked(self, vm_id: VmId) -> Iterator[None]:
        lock = self._paths.root_lock(vm_id)
        with suppress(OSError):  # whoever opens the lock tells why it cannot
            lock.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with root_lock.locked(lock):
            yield

    def _mark(self, vm_id: VmId, seen: Seen | None) -> Mark | None:
        """The mark of a guest, by its domain's metadata, else by what we wrote; None if it is a stranger's.

        Without either it is one that fits no row.
        """
        if seen is not None:
            mark = kvm_domain.mark_of(seen.metadata) if seen.metadata is not None else None
            ours = mark is not None and (mark.installation, mark.vm_id) == (self._installation, vm_id)
            return mark if ours else None
        with suppress(OSError):
            if written := kvm_domain.kept(self._paths.domain(vm_id).read_text()):
                return written.mark
        return Mark(installation=self._installation, vm_id=vm_id, vm_uuid="", di_id=NO_DI)

    def _interface(self, vm_id: VmId) -> str | None:
        if guest := self._guests.get(vm_id):
            return guest.interface
        with suppress(OSError):
            if written := kvm_domain.kept(self._paths.domain(vm_id).read_text()):
                return written.interface
        return None

    def _write(self, guest: GuestSpec, platform: Platform) -> None:
        paths, sockets = self._paths, self._paths.sockets(guest.vm_id)
        try:
            paths.kvm.mkdir(parents=True, exist_ok=True)
            paths.kvm.chmod(0o711)
            sockets.mkdir(mode=0o700, exist_ok=True)
            os.chown(sockets, *platform.owner)
            admission.let_through(paths, platform.owner, sockets)
            paths.consoles.mkdir(mode=0o700, parents=True, exist_ok=True)
            text = kvm_domain.render(guest, self._files(guest.mark), paths, platform)
            domain = paths.domain(guest.vm_id)
            domain.touch(mode=0o600)
            domain.write_text(text)
        except (OSError, ValueError) as exc:
            raise BackendError(f"the domain of VM {guest.vm_id} cannot be written: {exc}") from exc

    def _made_ready(self, vm_id: VmId, files: DiskFiles, platform: Platform) -> str:
        """The guest's domain, its disks free and open to its QEMU, and no former run's logs."""
        kvm_launch.check_unused(files)
        written = kvm_launch.written(files)
        admission.admit(self._paths, platform.owner, reads=[files.base], writes=written)
        self._clear(vm_id)
        return self._paths.domain(vm_id).read_text()

    def _clear(self, vm_id: VmId) -> None:
        log = self._paths.console_log(vm_id)
        for file in (log, *log.parent.glob(f"{log.name}.*")):
            file.unlink(missing_ok=True)
        for socket in (self._paths.serial(vm_id), self._paths.vnc(vm_id)):
            socket.unlink(missing_ok=True)

    def _name(self, vm_id: VmId) -> str:
        return names.name(self._installation, vm_id)


class ForeignError(BackendError):
    """A domain with a name of ours carries another mark."""
