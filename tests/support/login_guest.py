"""The quickest guest at whose console somebody can log in, and edit a file with vi."""

from __future__ import annotations

from pathlib import Path

from tests.support.pool import tiny_root
from tests.support.quick_guest import INIT, SERVERS, VMA, XSESSION

LOGIN, PASSWORD = "root", "open sesame"
HASH = "$6$qvdtestsalt$xZio5xNBewAGymqfCMeEFSUUs7GKZJ1qmOgU8Ey7enk6EkG2WFu8YB/iMb4zypO0Ig9yqcBDunaW4xuZQ9KrW0"
"""Of that password, by crypt(3)."""
GETTY = "while :; do setsid getty 0 tty1 linux; sleep 1; done &\n"
FOLDERS = "mkdir -p /root /tmp\n"
VI = '#!/bin/sh\nexec busybox vi "$@"\n'


def login_image(archive: Path, *, version: str) -> Path:
    """Pack the guest; its file /etc/version says which image it is of."""
    programs = {
        "sbin/init": INIT % (FOLDERS + SERVERS + GETTY),
        "bin/vma": VMA,
        "bin/xsession": XSESSION,
        "bin/vi": VI,
        "bin/setsid": '#!/bin/sh\nexec busybox setsid "$@"\n',
        "etc/passwd": f"root:{HASH}:0:0:root:/root:/bin/sh\n",
        "etc/version": f"{version}\n",
    }
    return tiny_root(archive, without="sbin/init", programs=programs)
