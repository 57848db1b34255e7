"""Guests as LXC containers: detached from the daemon, found again by their processes.

Nothing here is remembered that cannot be read back: the configuration, the mark and the logs of a
container are in its folder below `path.run.lxc`, its processes in /proc, its limits in its control
groups. LXC's own tools are asked for nothing but the start.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import shutil
import signal
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from appliance import proc
from appliance.clock import SystemClock, Timers
from appliance.errors import BackendError, HostError, ImageError, NetworkError, PoolFullError, VolumeError
from appliance.log import facts
from appliance.model import NO_DI, SUBID_COUNT, SUBID_FIRST, InstallationId, Mark, Usage, VmId
from appliance.runtime import bridge, lxc_command, lxc_config, lxc_console, lxc_launch, lxc_process
from appliance.runtime.backend import Departure, GuestSpec, Sighting
from appliance.runtime.cgroups import NO_WEIGHTS, Cgroups, tell_weightless
from appliance.runtime.followed import Followed
from appliance.runtime.lxc_console import Line
from appliance.runtime.lxc_process import Found
from appliance.runtime.lxc_watch import Watch
from appliance.storage import marks, openat, root_lock
from appliance.storage.paths import Paths
from appliance.threads import in_thread

logger = logging.getLogger(__name__)

START_S = 30.0
LOOK_S = 0.002
DYING_S = 2.0
APPARMOR_PROFILE = "lxc-container-default-cgns"
KILL_S = 20.0
IMAGE_FAULTS = (
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ELOOP,
    errno.ENXIO,
    errno.EACCES,
    errno.EEXIST,
)
"""What a path in a root can be wrong with; any other error is the disk's or the kernel's."""
TOOLS = ("lxc-start", "setpriv", "unshare", "nsenter", "ip", "nft", "btrfs", "tar")


@dataclass(frozen=True, slots=True)
class Reboot:
    """A guest has a new init, a new link and new control groups, though nobody here ordered so."""

    vm_id: VmId


class Lxc:
    """The `Backend` of containers."""

    sees_departures = True

    def __init__(self, paths: Paths, installation: InstallationId, *, timers: Timers | None = None) -> None:
        self._paths = paths
        self._installation = installation
        self._timers = timers or SystemClock()
        self._cgroups = Cgroups(paths.cgroup)
        self._guests: dict[VmId, GuestSpec] = {}
        self._followed = Followed[Watch, Line, Reboot]()

    async def check(self) -> None:
        """Whether containers can work here.

        :raises BackendError: with the remedy
        """
        missing = [tool for tool in TOOLS if shutil.which(tool) is None]
        if missing:
            raise BackendError(f"programs are missing: {', '.join(missing)}", hint="run scripts/setup")
        version = (await proc.run(["lxc-start", "--version"])).stdout.decode().strip()
        if not version.startswith("5."):
            raise BackendError(f"LXC {version} is installed", hint="this program speaks to LXC 5")
        self._cgroups.layout()
        for file in (Path("/etc/subuid"), Path("/etc/subgid")):
            check_range(file)
        await asyncio.to_thread(check_apparmor, Path("/sys"))

    async def survey(self) -> Mapping[VmId, Sighting]:
        """What runs here with our installation's mark, whoever started it and in whichever namespace."""
        found = await asyncio.to_thread(lxc_process.find_all, self._installation)
        return {vm_id: self._sighting(vm_id, guest) for vm_id, guest in found.items()}

    async def adopt(self, guest: GuestSpec) -> None:
        """Follow a guest found running and make its link a port of our bridge; one that is gone departs."""
        found = await self._find(guest.vm_id)
        if found is None:
            self._followed.ended(guest.vm_id)
            return
        self._guests[guest.vm_id] = guest
        if guest.vm_id not in self._followed.watches:
            self._watch(guest.vm_id, found)
        if found.init is not None:
            if not await bridge.exists(guest.interface):
                await bridge.relink(
                    guest.interface,
                    init=found.init,
                    mac=guest.mac,
                    address=guest.address,
                    gateway=guest.gateway,
                )
            await bridge.attach(guest.interface, guest.bridge)

    async def define(self, guest: GuestSpec) -> None:
        """Write the container's configuration, and its names and addresses into its root.

        :raises ImageError: the root has no init, or no proper /etc
        """
        await in_thread(self._write, guest)
        self._guests[guest.vm_id] = guest
        if guest.io_weight is not None and self._cgroups.layout().io_weight is None:
            tell_weightless(NO_WEIGHTS)

    async def launch(self, vm_id: VmId) -> None:
        """Start a defined container; returns when its init runs, under the limits that were asked for.

        :raises BackendError: it cannot, or something already runs on that root
        """
        guest = self._guests.get(vm_id)
        if guest is None:
            raise BackendError(f"VM {vm_id} is not defined")
        container, folder = self._container(vm_id), self._folder(vm_id)
        with root_lock.locked(self._paths.root_lock(vm_id)) as lock:
            await self._sweep(vm_id, guest)
            view = lxc_launch.view(self._paths.rootfs(vm_id), self._paths.homefs(vm_id))
            keeper = await lxc_launch.launch(container, view, lock=lock, folder=folder)
        try:
            found = await self._running(container, keeper)
            try:
                self._verify(guest, found)
                await bridge.isolate(guest.interface)
            except HostError as exc:
                # An init that ends takes its groups and its link along, and is gone a moment later.
                if await self._ends(found):
                    raise lxc_launch.ended_at_once() from exc
                raise
            self._watch(vm_id, found)
        except BaseException:
            _kill_now(keeper)
            raise

    async def stop(self, vm_id: VmId) -> None:
        """Send the image's init the signal at which it powers off."""
        with self._over(vm_id, await self._find(vm_id)) as watch:
            if watch is not None:
                watch.halt()

    async def kill(self, vm_id: VmId) -> None:
        """Kill init, then whatever is left; returns when nothing runs and the root is free.

        :raises BackendError: something survives
        """
        lock = self._paths.root_lock(vm_id)
        try:
            async with asyncio.timeout(KILL_S):
                while (found := await self._find(vm_id)) or (lock.exists() and root_lock.is_locked(lock)):
                    with self._over(vm_id, found) as watch:
                        if watch is None:
                            await self._timers.sleep(LOOK_S)
                            continue
                        watch.kill()
                        await asyncio.shield(watch.done)
        except TimeoutError as exc:
            raise BackendError(f"VM {vm_id} cannot be killed: {found or lock} is still there") from exc

    async def erase(self, vm_id: VmId) -> None:
        """Remove the container's folder, logs, lock, and what a dead monitor left.

        :raises BackendError: it still runs
        """
        lock = self._paths.root_lock(vm_id)
        with root_lock.locked(lock):
            await self._sweep(vm_id, self._guests.get(vm_id))
            await in_thread(shutil.rmtree, self._folder(vm_id), ignore_errors=True)
            lock.unlink(missing_ok=True)
        self._guests.pop(vm_id, None)

    async def departures(self) -> AsyncIterator[Departure]:
        """Every container launched or adopted here, once, when its monitor has cleaned up.

        Whoever waits here also has those that reboot put under their limits again.
        """
        while True:
            news = await self._followed.news.get()
            if isinstance(news, Departure):
                yield news
            else:
                await self._hold_again(news.vm_id)

    def console(self, vm_id: VmId) -> Line:
        """The line to the getty on the guest's tty1."""
        make = partial(Line, self._container(vm_id), partial(self._monitor, vm_id))
        return self._followed.line(vm_id, make)

    async def console_tail(self, vm_id: VmId, lines: int) -> str:
        """The last lines of what the guest wrote to /dev/console."""
        return await asyncio.to_thread(lxc_console.tail, self._paths.console_log(vm_id), lines)

    async def sample(self, vm_id: VmId) -> Usage:
        """What the guest's control groups have counted.

        :raises BackendError: it does not run
        """
        watch = self._followed.watches.get(vm_id)
        init = watch.init if watch else None
        if init is None:
            raise BackendError(f"VM {vm_id} does not run here")
        try:
            return Usage(cpu_s=self._cgroups.cpu_s(init), memory_bytes=self._cgroups.memory_bytes(init))
        except OSError as exc:
            raise BackendError(f"VM {vm_id} ended while it was measured") from exc

    def close(self) -> None:
        """Let go of every guest; they run on."""
        self._followed.close()

    def _monitor(self, vm_id: VmId) -> int:
        watch = self._followed.watches.get(vm_id)
        if watch is None or watch.monitor is None:
            raise BackendError(f"VM {vm_id} does not run here")
        return watch.monitor

    async def _running(self, container: str, keeper: int) -> Found:
        """The processes of a container that was just launched, once its init runs."""
        while True:
            try:
                connection = lxc_command.dial(container)
                break
            except ConnectionRefusedError:
                if lxc_process.started(keeper) is None:
                    raise self._not_started(container) from None
                await self._timers.sleep(LOOK_S)
        with connection:
            monitor = lxc_command.peer(connection)
            if lxc_process.parent(monitor) != keeper:
                raise BackendError(f"process {monitor} pretends to be the monitor of {container}")
            connection.settimeout(START_S)
            try:
                state = await asyncio.to_thread(lxc_command.state, connection)
            except BackendError:
                state = -1
        found = lxc_process.of_monitor(monitor, container)
        if state != lxc_command.RUNNING or found.init is None:
            raise self._not_started(container)
        return found

    async def _ends(self, found: Found) -> bool:
        """Whether an init is about to be gone."""
        begun = self._timers.monotonic()
        while found.init is not None and lxc_process.started(found.init) is not None:
            if self._timers.monotonic() > begun + DYING_S:
                return False
            await self._timers.sleep(LOOK_S)
        return True

    def _not_started(self, container: str) -> BackendError | ImageError:
        return lxc_launch.failure(container, lxc_config.directory(self._paths, container))

    def _verify(self, guest: GuestSpec, found: Found) -> None:
        assert found.init is not None
        wanted = lxc_config.limits(guest, self._cgroups.layout())
        if unmet := self._cgroups.unmet(found.init, wanted):
            raise BackendError(f"the limits of VM {guest.vm_id} are not in force: {'; '.join(unmet)}")

    async def _find(self, vm_id: VmId) -> Found | None:
        if vm_id in self._followed.watches:
            watch = self._followed.watches[vm_id]
            if watch.monitor is not None:
                return lxc_process.of_monitor(watch.monitor, watch.container)
        return (await asyncio.to_thread(lxc_process.find_all, self._installation)).get(vm_id)

    def _watch(self, vm_id: VmId, found: Found) -> None:
        ended = partial(self._followed.ended, vm_id)
        rebooted = partial(self._followed.news.put_nowait, Reboot(vm_id))
        self._followed.watches[vm_id] = Watch(found, ended, rebooted)

    async def _hold_again(self, vm_id: VmId) -> None:
        """See to the new link and the new control groups of a guest that has rebooted; else end it."""
        watch = self._followed.watches.get(vm_id)
        init = watch.init if watch else None
        if watch is None or init is None:
            return
        try:
            wanted = lxc_config.written_limits(await in_thread((self._folder(vm_id) / "config").read_text))
            unmet = self._cgroups.unmet(init, wanted)
            if interface := self._recorded_interface(vm_id):
                await bridge.isolate(interface)
        except (BackendError, NetworkError, OSError) as exc:
            unmet = [str(exc)]
        if unmet and watch.init == init:
            logger.error(
                "guest rebooted and escaped its limits: killed",
                extra=facts(vm=vm_id, unmet="; ".join(unmet)),
            )
            watch.kill()

    def _over(self, vm_id: VmId, found: Found | None) -> AbstractContextManager[Watch | None]:
        return self._followed.over(vm_id, partial(Watch, found, lambda: None) if found else None)

    async def _sweep(self, vm_id: VmId, guest: GuestSpec | None) -> None:
        begun = self._timers.monotonic()
        while True:
            try:
                await in_thread(self._clear, vm_id)
                break
            except BackendError:
                # What was killed a moment ago is counted until the kernel has taken it apart.
                if self._timers.monotonic() > begun + DYING_S:
                    raise
                await self._timers.sleep(LOOK_S)
        if interface := guest.interface if guest else self._recorded_interface(vm_id):
            await bridge.remove(interface)

    def _recorded_interface(self, vm_id: VmId) -> str | None:
        with suppress(OSError):
            return (self._folder(vm_id) / "interface").read_text()
        return None

    def _write(self, guest: GuestSpec) -> None:
        root = self._paths.rootfs(guest.vm_id)
        with _blamed(f"the image of VM {guest.vm_id} has no /sbin/init"):
            program = openat.resolved(root, "/sbin/init").name
        for point in lxc_config.MOUNT_POINTS:
            with _blamed(f"/{point} in the image of VM {guest.vm_id} is unusable"):
                openat.check_directory(root, point)
        with _blamed(f"/etc in the image of VM {guest.vm_id} is unusable"):
            for name, text in lxc_config.host_files(guest, openat.read_text(root, "/etc/hosts")).items():
                openat.write_text(root, "/etc", name, text)
        init = lxc_config.Init.of(program)
        text = lxc_config.render(guest, self._paths, init, self._cgroups.layout())
        folder = self._folder(guest.vm_id)
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._paths.consoles.mkdir(mode=0o700, parents=True, exist_ok=True)
            (folder / "mark").write_bytes(marks.encoded(guest.mark))
            (folder / "interface").write_text(guest.interface)
            (folder / "config").write_text(text)
            (folder / "seccomp").write_text(lxc_config.SECCOMP_PROFILE)
        except OSError as exc:
            raise BackendError(f"the configuration of VM {guest.vm_id} cannot be written: {exc}") from exc

    def _clear(self, vm_id: VmId) -> None:
        """Remove the groups and the logs of earlier runs."""
        self._cgroups.sweep(self._container(vm_id))
        console = self._paths.console_log(vm_id)
        for file in (console, *console.parent.glob(f"{console.name}.*")):
            file.unlink(missing_ok=True)
        for name in ("lxc.log", "start.log"):
            (self._folder(vm_id) / name).unlink(missing_ok=True)

    def _sighting(self, vm_id: VmId, found: Found) -> Sighting:
        started = lxc_process.started(found.init) if found.init is not None else None
        init = found.init if started is not None else None
        return Sighting(mark=self._mark(vm_id), init_pid=init, init_started=started)

    def _mark(self, vm_id: VmId) -> Mark:
        """The mark beside the configuration, else that of the root; without either, one that fits no row."""
        with suppress(OSError, ValueError):
            return marks.decoded((self._folder(vm_id) / "mark").read_bytes())
        with suppress(VolumeError):
            if mark := marks.mark_of(self._paths.rootfs(vm_id)):
                return mark
        return Mark(installation=self._installation, vm_id=vm_id, vm_uuid="", di_id=NO_DI)

    def _container(self, vm_id: VmId) -> str:
        return lxc_config.name(self._installation, vm_id)

    def _folder(self, vm_id: VmId) -> Path:
        return lxc_config.directory(self._paths, self._container(vm_id))


def _kill_now(keeper: int) -> None:
    """Kill a keeper and so, by their parent-death signals, its monitor and init."""
    with suppress(ProcessLookupError):
        os.kill(keeper, signal.SIGKILL)


@contextmanager
def _blamed(failure: str) -> Iterator[None]:
    """Tell an `OSError` met in a root as the image's fault if it is of its making, else as the storage's."""
    try:
        yield
    except OSError as exc:
        if exc.errno in PoolFullError.numbers:
            raise PoolFullError.of(failure) from exc
        if exc.errno in IMAGE_FAULTS:
            raise ImageError(f"{failure}: {exc.strerror}") from exc
        raise VolumeError(f"{failure}: {exc.strerror}") from exc


def check_apparmor(sys: Path) -> None:
    """A kernel that confines programs starts no container without the profile that comes with LXC.

    :raises BackendError: the profile is not loaded
    """
    enabled = sys / "module/apparmor/parameters/enabled"
    profiles = sys / "kernel/security/apparmor/profiles"
    with suppress(OSError):
        if enabled.read_text().strip() != "Y" or f"{APPARMOR_PROFILE} " in profiles.read_text():
            return
        raise BackendError(
            f"AppArmor is on, and its profile {APPARMOR_PROFILE} is not loaded",
            hint="apt-get install apparmor, then systemctl restart apparmor",
        )


def check_range(file: Path) -> None:
    """LXC asks these files if the package uidmap is installed, and also looks there without it."""
    needed = range(SUBID_FIRST, SUBID_FIRST + SUBID_COUNT)
    with suppress(OSError):
        for line in file.read_text().splitlines():
            owner, _, numbers = line.partition(":")
            first, _, count = numbers.partition(":")
            if owner in {"root", "0"} and first.isdigit() and count.isdigit():
                given = range(int(first), int(first) + int(count))
                if needed[0] in given and needed[-1] in given:
                    return
    raise BackendError(f"{file} gives root no range from {SUBID_FIRST}", hint="run scripts/setup")
