"""Command lines of programs that read what strangers have made: archives and disk images.

Such a program runs in namespaces of its own (mounts, processes, network, IPC, host name), below a root
that shows the host's programs read-only and, if it may write at all, one directory as `TARGET`; if it must
read a file by name, that one read-only as `SHOWN`. It is root with the few capabilities that it is given,
gains no others, and has nothing open but its inputs and outputs. Nothing here performs I/O.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

TARGET = "/target"
"""Where the confined program sees the directory it may write to."""
SHOWN = "/shown"
"""Where it sees the one file that it is shown."""

MEMORY = 1 << 30
"""Bytes for each program: honest archives take a tenth. An xz header may ask for 4 GiB, and tar remembers the
names of directories until its end."""

PREPARE = """
set -e
target=$1 shown=$2 top=/mnt; shift 2
mount -t tmpfs -o mode=755,size=64k,nosuid,nodev jail $top
show() { mount --bind -o X-mount.mkdir "$1" "$top$1"; mount -o "remount,bind,ro,nosuid,nodev" "$top$1"; }
show /usr
for folder in bin sbin lib lib32 lib64 libx32; do
    if [ -L /$folder ]; then cp -P /$folder $top/$folder; elif [ -d /$folder ]; then show /$folder; fi
done
if [ -n "$target" ]; then
    mount --bind -o X-mount.mkdir "$target" $top/target
    mount -o remount,bind,nosuid,nodev,noexec $top/target
fi
if [ -n "$shown" ]; then
    : >$top/shown
    mount --bind "$shown" $top/shown
    mount -o remount,bind,ro,nosuid,nodev,noexec $top/shown
fi
mkdir $top/old $top/proc
mount -t proc proc $top/proc
cd $top
pivot_root . old
cd /
umount -l /old /proc
rmdir old proc
exec "$@"
"""


def confined(
    program: Sequence[str],
    *,
    target: Path | None,
    capabilities: Sequence[str],
    longest_file: int,
    shown: Path | None = None,
) -> list[str]:
    """The command that runs `program` confined; no file that it writes grows beyond `longest_file` bytes."""
    granted = ",".join(["-all", *(f"+{name}" for name in capabilities)])
    alone = ("--mount", "--propagation", "private", "--net", "--ipc", "--uts", "--pid", "--fork")
    folders = (str(target or ""), str(shown or ""))
    return [
        *("unshare", *alone, "--kill-child", "sh", "-c", PREPARE, "jail", *folders),
        *("setpriv", "--no-new-privs", "--inh-caps=-all", f"--bounding-set={granted}"),
        *limited(program, longest_file=longest_file),
    ]


def limited(program: Sequence[str], *, longest_file: int) -> list[str]:
    """The command that runs `program` with little memory, though not confined."""
    return [
        *("prlimit", "--core=0", "--nofile=256", f"--as={MEMORY}", f"--fsize={longest_file}"),
        *program,
    ]
