#!/usr/bin/python3
"""Build the small LXC desktop image: one command, one root tarball, the same bytes each time.

The image is a Debian root with nxagent, openbox, xterm, a full python3, busybox as init and the VMA.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from images import debian

BUSYBOX_COMMANDS = ("init", "poweroff", "reboot", "halt")
LINKS = " ".join(f'ln -sf ../bin/busybox "$1/usr/sbin/{name}";' for name in BUSYBOX_COMMANDS)


def main(argv: Sequence[str] | None = None) -> int:
    """Build the image named on the command line; 1 if that fails."""
    parser = argparse.ArgumentParser(description="Build the small LXC desktop image.")
    parser.add_argument("output", type=Path, metavar="OUTPUT.tar.zst")
    parser.add_argument("--include", metavar="PKG,…", default="", help="further Debian packages")
    parser.add_argument(
        "--without-vma", action="store_true", help="leave the VMA out (to test what then happens)"
    )
    options = parser.parse_args(argv)
    if not options.output.name.endswith(".tar.zst"):
        parser.error(f"{options.output}: the name must end in .tar.zst")
    root = debian.Root(
        packages=sorted({*debian.DESKTOP, *filter(None, options.include.split(","))}),
        overlays=(debian.OVERLAY, debian.HERE / "overlay-lxc"),
        extra=debian.agent(not options.without_vma),
        finish=LINKS,
        form="tar",
    )
    try:
        debian.build(
            options.output.resolve(), root, [Path(__file__)], "root.tar.zst", lambda packed, _: packed
        )
    except (debian.BuildError, OSError, subprocess.CalledProcessError) as exc:
        print(f"build_lxc: {exc}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
