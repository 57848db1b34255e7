"""What a monitor is shown."""

from __future__ import annotations

from pathlib import Path

from appliance.runtime.lxc_launch import view


def test_paths_are_written_as_fstab_wants_them() -> None:
    lines = view(Path("/pool/my roots/#7\\fs"), Path("/pool/homes\tof/7-fs")).splitlines()
    assert lines[-2:] == [
        r"/pool/my\040roots/\0437\134fs /mnt/root none bind,X-mount.mkdir 0 0",
        r"/pool/homes\011of/7-fs /mnt/home none bind,X-mount.mkdir 0 0",
    ]
