"""Another certificate by `qa config ssl`, while the daemon runs."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from scripts.trial import PORT, Trial
from tests.support.authority import authority

pytestmark = [pytest.mark.host, pytest.mark.timeout(120)]


def met(trial: Trial) -> str:
    """The certificate that a client meets."""
    words = ["openssl", "s_client", "-connect", f"127.0.0.1:{PORT}"]
    done = subprocess.run(
        ["ip", "netns", "exec", trial.netns, *words],
        input="",
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    _, _, rest = done.stdout.partition(begin)
    return begin + rest.partition(end)[0] + end + "\n"


def test_new_clients_meet_it_without_a_restart(trial: Trial, tmp_path: Path) -> None:
    trial.start()
    shown = authority().issue("server")
    assert met(trial) != shown.text
    (tmp_path / "key.pem").write_text(shown.key_text)
    (tmp_path / "cert.pem").write_text(shown.text)
    trial.qa("config", "ssl", f"key={tmp_path}/key.pem", f"cert={tmp_path}/cert.pem")
    trial.wait_for("another certificate", lambda: met(trial) == shown.text)
    assert "BEGIN" not in trial.log.read_text()
