"""What desktops and host use now, for tables and dashboard; the same stream that `qa vm top` shows."""

from appliance.qa.samples import HostUse, Round, VmUsage, samples

__all__ = ["HostUse", "Round", "VmUsage", "samples"]
