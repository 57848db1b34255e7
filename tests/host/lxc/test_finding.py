"""Guests are found by their processes, whatever they call themselves, and nothing else is taken for one."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from appliance.runtime import lxc_config, lxc_process
from tests.support.contract import ONE
from tests.support.lxc_guests import LONGEST_S, processes
from tests.support.lxc_rig import Site

pytestmark = pytest.mark.host


@contextmanager
def imposter(site: Site, name: str, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A program of an ordinary user, root by itself as su is, that calls itself what root's are called."""
    program = folder / "setuid-cat"
    shutil.copy("/bin/cat", program)
    program.chmod(0o4755)
    folder.chmod(0o755)
    words = [name, "-n", lxc_config.name(site.installation, ONE), "lxc-start", "-"]
    with subprocess.Popen(
        words,
        executable=program,
        user=65534,
        group=65534,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("here\n")
        process.stdin.flush()
        assert "here" in process.stdout.readline()
        yield process
        process.kill()


@pytest.mark.parametrize("name", ["lxc-start", "sh"])
async def test_a_user_of_the_host_passes_for_no_guest(site: Site, name: str) -> None:
    # Not below pytest's folders: nobody else may go there.
    with tempfile.TemporaryDirectory(prefix="qvdt-") as folder, imposter(site, name, Path(folder)) as process:
        assert Path(f"/proc/{process.pid}").stat().st_uid == 0
        assert lxc_process.find_all(site.installation) == {}


HIDDEN = """
import ctypes, signal, threading
def hide():
    fields = open("/proc/self/stat").read().rpartition(")")[2].split()
    words = int(fields[45])  # where the command line begins (proc(5), field 48)
    assert ctypes.CDLL(None).munmap(ctypes.c_void_p(words & -4096), 4096) == 0
    print("hidden", flush=True)
    signal.pause()
threading.Thread(target=hide).start()
"""


FAR = ["-"] * 1024
"""So many words that their pointers keep the main thread's frames off the page that HIDDEN takes away."""


async def test_an_init_that_hides_its_command_line_is_found(site: Site) -> None:
    top = Path("/sys/fs/cgroup/pids")
    group = (top if top.is_dir() else top.parent) / f"lxc.payload.{lxc_config.name(site.installation, ONE)}"
    group.mkdir()
    try:
        enter = ["unshare", "--pid", "--fork", "--kill-child"]
        words = ["sh", "-c", 'echo $$ >"$1/cgroup.procs"; shift; exec "$@"', "sh", str(group), *enter]
        with subprocess.Popen(
            [*words, "/usr/bin/python3", "-I", "-c", HIDDEN, *FAR], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "hidden\n"
            found = processes(site)
            assert found.init is not None
            assert lxc_process.command(found.init) == []
            process.kill()
    finally:
        async with asyncio.timeout(LONGEST_S):
            while (group / "cgroup.procs").read_text():
                await asyncio.sleep(0.01)
        group.rmdir()
