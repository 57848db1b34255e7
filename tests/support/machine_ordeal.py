"""The installation that is put through faults, with virtual machines and a libvirtd of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
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
DESKTOPS = 2
"""VM 1 has the tiny guest. VM 2 has a boot sector, which has no agent and does not mind its power button."""


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
            trial.furnish(image, vm="desk1", memory=96, policy=POLICY)
            trial.qa("osf", "add", "name=mute", "memory=64", *POLICY)
            trial.qa("di", "add", f"path={sector_image(directory, 'deaf')}", "osf=mute")
            trial.qa("vm", "add", f"name=desk{DESKTOPS}", f"user={LOGIN}", "osf=mute")
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
async def machine_ordeal(directory: Path) -> AsyncIterator[Ordeal]:
    """The installation with its daemon at work; either VM has run once, and has a canary on its home."""
    with machine_grounds(directory) as (trial, grounds, image):
        async with at_work(trial, grounds, image, DESKTOPS) as made:
            yield made
