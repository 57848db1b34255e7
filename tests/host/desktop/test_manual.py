"""The manual's commands, all of them, in its order, on a real installation."""

from __future__ import annotations

import fnmatch
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from appliance.clock import SystemClock
from appliance.ops.certificate import self_signed
from scripts.trial import BIN, ROOT, Trial
from tests.support.desktop import leftovers

pytestmark = [pytest.mark.host, pytest.mark.timeout(600)]

MANUAL = ROOT / "docs" / "manual.md"
OURS = ("qa", "qvd-appliance", "qvd-client")
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Box:
    """A box of the manual."""

    kind: str
    text: str
    line: int

    @property
    def is_run(self) -> bool:
        """Whether the manual says that it is run."""
        return self.kind == "sh"


def boxes() -> list[Box]:
    """The manual's boxes, in order."""
    text = MANUAL.read_text()
    return [Box(m[1], m[2], text.count("\n", 0, m.start()) + 1) for m in FENCE.finditer(text)]


def test_no_command_of_ours_is_in_a_box_that_is_not_run() -> None:
    for box in boxes():
        if not box.is_run:
            first_words = {line.split()[0] for line in box.text.splitlines() if line.strip()}
            assert not first_words & {*OURS}, f"line {box.line}"


@pytest.fixture
def server(image: Path, tmp_path: Path) -> Iterator[Trial]:
    """What the manual takes for granted: a daemon that runs, and images and keys that one has."""
    # Nothing is asked of libvirtd, but `qa` looks whether its socket is there.
    settings = {"nodename": "server1", "vm.kvm.uri": f"qemu:///system?socket={tmp_path}"}
    with Trial(tmp_path / "trial", settings=settings) as trial:
        trial.lay_out()
        installation = trial.marker.read_text()
        furnish(trial, image, tmp_path / "root")
        yield trial
    assert leftovers(trial, installation) == []


def furnish(trial: Trial, image: Path, desk: Path) -> None:
    """Start the daemon, and lay out what an administrator would have at hand in `desk`."""
    for name in ("desktop", "desktop-2"):
        shutil.copyfile(image, trial.storage / "staging" / f"{name}.tar.zst")
    trial.start()
    key, certificate = self_signed(["server.example.org", "127.0.0.1"], SystemClock().now())
    desk.mkdir()
    (desk / "server.key").write_text(key.reveal())
    (desk / "server-chain.pem").write_text(certificate)
    shutil.copyfile(trial.run / "l7r/ssl/cert.pem", desk / "server.pem")
    client = desk / "qvd-client"
    client.write_text(
        "#!/bin/sh\n# The server's name leads to the trial's namespace.\n"
        f'exec ip netns exec {trial.netns} {BIN}/qvd-client "$@" -h 127.0.0.1\n'
    )
    client.chmod(0o755)


def test_the_manual_is_true(server: Trial, tmp_path: Path) -> None:
    desk = tmp_path / "root"
    environment = {
        **server.environment,
        "PATH": f"{desk}:{BIN}:{os.environ['PATH']}",
        "QVD_CONFIG": str(server.config),
    }
    said = ""
    for box in boxes():
        if box.kind == "text":
            check_said(box, said)
        elif box.is_run:
            if "admin reset" in box.text:
                server.stop()
            done = subprocess.run(
                ["bash", "-e", "-o", "pipefail", "-c", here(server, box.text)],
                cwd=desk,
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
                timeout=120,
            )
            said = done.stdout
            assert done.returncode == 0, f"line {box.line}: {done.stderr}\n{server.log_tail()}"
            assert "Warning" not in done.stderr, f"line {box.line}: {done.stderr}"
    assert not (server.storage / "qvd.db").exists()
    assert list(server.storage.glob("*fs/*-fs")) == []


def here(server: Trial, text: str) -> str:
    """The commands with the trial's paths in place of the service's."""
    paths = {
        "/var/lib/qvd/storage": server.storage,
        "/var/lib/qvd/qvd.db": server.storage / "qvd.db",
        "/run/qvd": server.run,
    }
    for there, ours in paths.items():
        text = text.replace(there, str(ours))
    return text


def check_said(box: Box, said: str) -> None:
    """The last lines before it look like the box; `…` stands for anything."""
    expected = box.text.splitlines()
    lines = [line for line in said.splitlines() if line.strip()][-len(expected) :]
    for line, pattern in zip(lines, expected, strict=True):
        assert fnmatch.fnmatchcase(line, pattern.replace("…", "*")), f"line {box.line}: {said}"
