"""The installation that is put through faults, with virtual machines and a libvirtd of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from appliance.config import read_file
from scripts.trial import LOGIN, Trial
from tests.support import netns
from tests.support.boot_sector import sector_image
from tests.support.invariants import Grounds
from tests.support.libvirtd import Libvirtd
from tests.support.ordeal import SETTINGS, Ordeal, at_work
from tests.support.tiny_vm import tiny_image

POLICY = ("backend=kvm", "cpus=1", "user_storage_size=16")
DESK, MUTE = 1, 2
"""The VM of tiny guests, and that of boot sectors, which have no agent and do not mind their power button."""
SLOWER = 4.0
"""How much more patience emulated guests need than containers."""


@contextmanager
def machine_grounds(directory: Path) -> Iterator[tuple[Trial, Grounds, Path]]:
    """An installation laid out with the two VMs, inside whose network namespace the test is."""
    image = tiny_image()
    with Trial(directory, settings={**SETTINGS, "vm.hypervisor": "kvm", "vm.kvm.accel": "tcg"}) as trial:
        libvirtd = Libvirtd(trial.netns, trial.libvirt)
        trial.settings["vm.kvm.uri"] = libvirtd.uri
        try:
            trial.lay_out(pool_size="1G")
            libvirtd.start()
            trial.furnish(image, vm=f"desk{DESK}", memory=96, policy=POLICY)
            trial.qa("di", "duplicate", "di_id=1")
            trial.qa("osf", "add", "name=mute", "memory=64", *POLICY)
            trial.qa("di", "add", f"path={sector_image(directory, 'deaf')}", "osf=mute")
            trial.qa("vm", "add", f"name=desk{MUTE}", f"user={LOGIN}", "osf=mute")
            with netns.entered(trial.netns):
                yield (
                    trial,
                    Grounds(trial.directory, read_file(trial.config), trial.marker.read_text()),
                    image,
                )
        finally:
            trial.stop()
            libvirtd.remove()


@asynccontextmanager
async def machine_ordeal(directory: Path, *, answering: Collection[int] = (DESK,)) -> AsyncIterator[Ordeal]:
    """The installation with its daemon at work.

    The mute VM, and those that are to be `answering`, have run once and have a canary on their homes.
    """
    with machine_grounds(directory) as (trial, grounds, image):
        async with at_work(trial, grounds, image, answering=answering, mute=MUTE, slower=SLOWER) as made:
            yield made
