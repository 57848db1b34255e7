"""Decides what runs the processors of virtual machines, by letting a small guest run on KVM first.

That /dev/kvm is there says little: under some hypervisors it opens, and a guest then hangs or takes an hour.
The trial's guest does what every system does at its start: it comes through the firmware to a boot sector,
counts in 16 bits, waits in `hlt` for two interrupts of the timer, goes to 64 bits with paging, counts again,
asks `cpuid`, and says so by QEMU's exit status. On real processors it takes half a second.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path

from appliance import proc
from appliance.errors import BackendError, HostError, ToolError
from appliance.log import facts

logger = logging.getLogger(__name__)

QEMU = "qemu-system-x86_64"
DEVICE = Path("/dev/kvm")
TRIAL_S = 5.0
SUCCESS = 0x2A << 1 | 1
"""QEMU's exit status when the guest writes 0x2a to its debug-exit port."""
SECTOR = bytes.fromhex(
    "fafc31c08ed88ec08ed0bc007c66b980969800664975fcfb668b1e6c04f466a16c046629d86683f8"
    "0272f2fabf00106631c0b9000c66f3ab66c70600100320000066c70600200330000066c706003083"
    "0000000f20e00c200f22e066b8001000000f22d866b9800000c00f3280cc010f30660f0116b07c0f"
    "20c0660d010000800f22c066ea8b7c00000800b980969800ffc975fc31c00fa2b02ae6f4f4ebfd90"
    "0000000000000000ffff0000009aaf000f00a07c0000"
).ljust(510, b"\0") + bytes.fromhex("55aa")
"""The guest; its source is tests/kvm/trial.S, and a test compares the two."""


@dataclass(frozen=True, slots=True)
class Choice:
    """`kvm` or `tcg`, and why."""

    accel: str
    reason: str


async def choose(wanted: str) -> Choice:
    """What `vm.kvm.accel` comes to on this host.

    :raises BackendError: `kvm` is wanted, and guests do not run on it
    """
    if wanted == "tcg":
        return Choice("tcg", "vm.kvm.accel says so")
    failure = await trial("kvm")
    if failure is None:
        return Choice("kvm", "a trial guest ran on it")
    if wanted == "kvm":
        raise BackendError(
            f"vm.kvm.accel is kvm, and {failure}",
            hint="turn virtualization on in the firmware, or set vm.kvm.accel=auto for slow guests",
        )
    return Choice("tcg", failure)


async def trial(accel: str) -> str | None:
    """Let the small guest run; why it did not get to its end, or None if it did."""
    if accel == "kvm" and not os.access(DEVICE, os.R_OK | os.W_OK):
        return f"{DEVICE} cannot be used"
    processor = "host" if accel == "kvm" else "max"
    descriptor = os.memfd_create("trial")
    try:
        os.write(descriptor, SECTOR)
        disk = f"file=/proc/self/fd/{descriptor},format=raw,if=ide"
        words = [
            *(QEMU, "-machine", f"pc,accel={accel}", "-cpu", processor, "-m", "32", "-display", "none"),
            *("-no-user-config", "-nodefaults", "-no-reboot", "-drive", disk),
            *("-device", "isa-debug-exit,iobase=0xf4,iosize=1"),
        ]
        done = await proc.run(words, timeout_s=TRIAL_S, check=False, pass_fds=(descriptor,))
    except ToolError:
        return f"a trial guest on {accel} did not end within {TRIAL_S:g} s"
    except HostError as exc:
        return f"a trial guest cannot be started: {exc.message}"
    finally:
        os.close(descriptor)
    if done.status == SUCCESS:
        return None
    said = done.stderr.decode(errors="replace").strip().splitlines()
    logger.debug("trial guest failed", extra=facts(accel=accel, status=done.status, said=said))
    return f"a trial guest on {accel} failed with status {done.status}{f': {said[0]}' if said else ''}"
