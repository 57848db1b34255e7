"""What a guest is called at its hypervisor, and which VM a name belongs to. Pure."""

from __future__ import annotations

import re

from appliance.model import InstallationId, VmId


def name(installation: InstallationId, vm_id: VmId) -> str:
    """The guest's name: of its container, or of its domain."""
    return f"qvd-{installation}-{vm_id}"


def vm_of(installation: InstallationId, guest: str) -> VmId | None:
    """The VM whose guest has this name; None if it is not one of this installation."""
    match = re.fullmatch(rf"qvd-{re.escape(installation)}-([1-9][0-9]*)", guest)
    return VmId(int(match[1])) if match else None
