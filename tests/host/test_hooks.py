"""Hooks of the host: real executables, a real web server, and a daemon that is killed in between."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from appliance.model import AlarmKind, HookEvent, Notice, NoticeState
from appliance.ops import notices
from appliance.runtime.webhook import SIGNATURE, signature
from tests.support.hooks import INSTALLATION, PATIENCE_S, Outbox, Script, outbox, telling, wait_for, web
from tests.support.qa import Installation
from tests.support.tls import self_signed

pytestmark = pytest.mark.host

DELIVERED, GIVEN_UP, WAITING = NoticeState.DELIVERED, NoticeState.GIVEN_UP, NoticeState.WAITING
TAG, READY = HookEvent.TAG_MOVED, HookEvent.IMAGE_READY
DAEMON = "from appliance.daemon import main; raise SystemExit(main(['run', '--config', '{}']))"


async def alarms(at: Outbox) -> list[str]:
    """The hooks about which an alarm is open."""
    async with at.store.read() as tx:
        return [alarm.object for alarm in await tx.alarms.find() if alarm.kind is AlarmKind.HOOK]


def one_line(notice: Notice) -> str:
    """The error of a notice, which is one line."""
    assert notice.last_error is not None
    assert notice.last_error.isprintable()
    return notice.last_error


class TestExecutables:
    async def test_are_told_in_order_who_and_what(self, tmp_path: Path) -> None:
        script = Script.make(tmp_path)
        async with telling(tmp_path, hook__tag_moved=str(script.path)) as at:
            await at.put(TAG, tag="one", osf={"id": 1, "name": "é"})
            await at.put(TAG, tag="two")
            first, second = await at.until(DELIVERED, DELIVERED)
        one, two = script.told()
        assert one == {
            "event": "tag_moved",
            "id": first.uid,
            "at": first.at.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "installation": INSTALLATION,
            "tag": "one",
            "osf": {"id": 1, "name": "é"},
        }
        assert (two["tag"], two["id"]) == ("two", second.uid)
        assert first.uid != second.uid

    async def test_inherit_no_environment_and_lead_their_group(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level("INFO")
        monkeypatch.setenv("PASSWORD", "s3cret")
        seen = tmp_path / "seen"
        script = Script.make(tmp_path, then=f"env > {seen}; ps -o pid=,pgid=,sid= -p $$ >> {seen}; echo said")
        async with telling(tmp_path, hook__tag_moved=str(script.path)) as at:
            await at.put(TAG)
            await at.until(DELIVERED)
        *environment, numbers = seen.read_text().splitlines()
        assert {line.partition("=")[0] for line in environment} <= {"PATH", "LANG", "HOME", "PWD", "_"}
        assert len(set(numbers.split())) == 1
        assert any(getattr(record, "facts", {}).get("said") == "said" for record in caplog.records)

    async def test_that_fail_are_told_again_with_the_same_id(self, tmp_path: Path) -> None:
        script = Script.make(tmp_path, then=f"test $(wc -l < {tmp_path}/hook.heard) -ge 3 || exit 5")
        async with telling(tmp_path, hook__tag_moved=str(script.path)) as at:
            await at.put(TAG)
            (notice,) = await at.until(DELIVERED)
        assert {told["id"] for told in script.told()} == {notice.uid}
        assert (len(script.told()), notice.attempts) == (3, 3)
        assert notice.last_error is None

    async def test_that_always_fail_are_given_up_with_an_alarm_until_somebody_mends_them(
        self, tmp_path: Path
    ) -> None:
        script = Script.make(tmp_path, then="echo no such room >&2; exit 3")
        async with telling(tmp_path, hook__tag_moved=str(script.path)) as at:
            await at.put(TAG)
            (notice,) = await at.until(GIVEN_UP)
            assert notice.attempts == 3
            assert one_line(notice) == f"{script.path} ended with status 3: no such room"
            assert await alarms(at) == ["tag_moved"]
            Script.make(tmp_path)
            async with at.store.write() as tx:
                assert await notices.again(tx, await tx.notices.find(), by="test") == 1
            await at.until(DELIVERED)
            assert await alarms(at) == []

    async def test_that_hang_are_killed_with_their_children_and_hold_up_no_other(
        self, tmp_path: Path
    ) -> None:
        numbers = tmp_path / "numbers"
        hanging = Script.make(tmp_path, then=f"sleep 1000 & echo $$ $! > {numbers}; wait")
        other = Script.make(tmp_path, "other")
        settings = {"hook.image_ready": str(other.path), "hook.timeout": "2", "hook.retries": "0"}
        async with telling(tmp_path, hook__tag_moved=str(hanging.path)) as at:
            at.settings.update(settings)
            await at.put(TAG)
            await asyncio.to_thread(wait_for, lambda: numbers.exists() and numbers.read_text().strip())
            await at.put(READY)
            await at.until(WAITING, DELIVERED)
            hung, _ = await at.until(GIVEN_UP, DELIVERED)
        assert "no end after 2 s" in one_line(hung)
        assert not [pid for pid in map(int, numbers.read_text().split()) if runs(pid)]

    async def test_that_leave_children_behind_or_write_without_end_do_no_harm(self, tmp_path: Path) -> None:
        numbers = tmp_path / "numbers"
        then = f"sleep 1000 & echo $! > {numbers}; head -c 3000000 /dev/zero | tr '\\0' x; echo; echo end"
        script = Script.make(tmp_path, then=f"{then}; exit 1")
        async with telling(tmp_path, hook__tag_moved=str(script.path), hook__retries="0") as at:
            await at.put(TAG)
            (notice,) = await at.until(GIVEN_UP)
        assert one_line(notice).endswith("status 1: end")
        assert not runs(int(numbers.read_text()))

    @pytest.mark.parametrize(
        ("mode", "error"), [(None, "there is no "), (0o644, "cannot be started: Permission denied")]
    )
    async def test_that_cannot_be_run_are_named(self, tmp_path: Path, mode: int | None, error: str) -> None:
        program = tmp_path / "program"
        if mode is not None:
            program.write_text("#!/bin/sh\n")
            program.chmod(mode)
        async with telling(tmp_path, hook__tag_moved=str(program), hook__retries="0") as at:
            await at.put(TAG)
            (notice,) = await at.until(GIVEN_UP)
        assert error in one_line(notice)
        assert str(program) in one_line(notice)

    async def test_are_not_told_what_was_rolled_back_nor_what_nobody_wants(self, tmp_path: Path) -> None:
        script = Script.make(tmp_path)
        async with outbox(tmp_path, hook__tag_moved=str(script.path)) as at:
            with contextlib.suppress(ZeroDivisionError):
                async with at.store.write() as tx:
                    await notices.put(tx, TAG, {"tag": "undone"})
                    _ = 1 / 0
            async with at.delivering():
                await at.put(READY)
                await at.put(TAG, tag="done")
                await at.until(DELIVERED)
        assert [told["tag"] for told in script.told()] == ["done"]


class TestWebhooks:
    async def test_are_posted_signed_and_with_the_password_of_the_address(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level("DEBUG")
        (secret := tmp_path / "secret").write_text("k3y\n")
        with web() as server:
            address = f"http://me:pa%40ss@127.0.0.1:{server.port}/told?x=1"
            async with telling(tmp_path, hook__tag_moved=address, hook__secret__file=str(secret)) as at:
                await at.put(TAG, tag="one")
                (notice,) = await at.until(DELIVERED)
        ((path, headers, body),) = server.posts
        assert path == "/told?x=1"
        assert json.loads(body)["id"] == headers["X-QVD-Delivery"] == notice.uid
        assert headers["Content-Type"] == "application/json"
        assert headers[SIGNATURE] == signature(b"k3y", body)
        assert headers["Authorization"] == "Basic bWU6cGFAc3M="
        assert "pa%40ss" not in caplog.text
        assert "pa@ss" not in caplog.text

    def test_the_signature_is_the_one_that_openssl_makes(self) -> None:
        made = subprocess.run(
            ["openssl", "dgst", "-sha256", "-hmac", "k3y"], input=b"{}\n", capture_output=True, check=True
        )
        assert signature(b"k3y", b"{}\n") == f"sha256={made.stdout.decode().split()[-1]}"

    async def test_a_redirect_is_a_refusal(self, tmp_path: Path) -> None:
        with web() as server:
            server.answers.append((302, {"Location": "file:///etc/passwd"}, b""))
            async with telling(tmp_path, hook__tag_moved=f"http://127.0.0.1:{server.port}/") as at:
                at.settings["hook.retries"] = "0"
                await at.put(TAG)
                (notice,) = await at.until(GIVEN_UP)
        assert one_line(notice) == "127.0.0.1 answers 302"
        assert len(server.posts) == 1

    async def test_of_a_long_answer_little_is_kept(self, tmp_path: Path) -> None:
        with web() as server:
            server.answers.append((500, {}, b"no\n\x1b[31m" * 1_000_000))
            async with telling(tmp_path, hook__tag_moved=f"http://127.0.0.1:{server.port}/") as at:
                at.settings["hook.retries"] = "0"
                await at.put(TAG)
                (notice,) = await at.until(GIVEN_UP)
        assert one_line(notice).startswith("127.0.0.1 answers 500: no")
        assert len(one_line(notice)) <= 1000

    async def test_one_that_gives_no_answer_is_given_up_in_time(self, tmp_path: Path) -> None:
        with web() as server:
            server.holds = threading.Event()
            async with telling(tmp_path, hook__tag_moved=f"http://127.0.0.1:{server.port}/") as at:
                at.settings |= {"hook.retries": "0", "hook.timeout": "0.3"}
                await at.put(TAG)
                (notice,) = await at.until(GIVEN_UP)
        assert one_line(notice) == "127.0.0.1 gives no answer within 0.3 s"

    async def test_nobody_listens(self, tmp_path: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
        async with telling(tmp_path, hook__tag_moved=f"http://me:pass@127.0.0.1:{port}/") as at:
            at.settings["hook.retries"] = "0"
            await at.put(TAG)
            (notice,) = await at.until(GIVEN_UP)
        assert one_line(notice).startswith("127.0.0.1 cannot be told: ")
        assert "pass@" not in one_line(notice)

    async def test_tls_is_verified(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        identity = self_signed(tmp_path)
        with web(identity.server_context()) as server:
            async with telling(tmp_path, hook__tag_moved=f"https://127.0.0.1:{server.port}/") as at:
                at.settings["hook.retries"] = "0"
                await at.put(TAG)
                (notice,) = await at.until(GIVEN_UP)
                assert "certificate" in one_line(notice)
                assert server.posts == []
                monkeypatch.setenv("SSL_CERT_FILE", str(identity.cert))
                await at.put(TAG)
                await at.until(GIVEN_UP, DELIVERED)
        assert len(server.posts) == 1


def runs(pid: int) -> bool:
    """Whether a process is there, and no zombie."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] not in {"Z", "X"}


@contextmanager
def daemon(qa: Installation) -> Iterator[subprocess.Popen[bytes]]:
    """The real one; killed at the end if it still runs."""
    with (qa.directory / "daemon.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", DAEMON.format(qa.config)], stdout=log, stderr=log, stdin=subprocess.DEVNULL
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait(PATIENCE_S)


def test_a_daemon_that_is_killed_loses_no_notice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Killed before it was told of the commit, then in the middle of the telling; the third one tells it."""
    qa = Installation(tmp_path, capsys)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    qa.write_config(l7r__address="127.0.0.1", l7r__port=str(port))
    qa.ok("admin", "init", "--yes")
    number = tmp_path / "number"
    script = Script.make(
        tmp_path, then=f"test -e {tmp_path}/free && exit; echo $$ > {number}; exec sleep 1000"
    )
    qa.ok("config", "set", f"hook.image_ready={script.path}", "--yes")
    qa.with_vm()
    qa.ok("di", "add", f"path={qa.archive()}", "osf=desktop", "version=1")  # nobody is there to tell it
    try:
        with daemon(qa) as first:
            wait_for(lambda: script.told() and number.exists() and number.read_text().strip())
            first.kill()
            first.wait(PATIENCE_S)
        (waiting,) = qa.listed("hook", "event=image_ready")
        assert waiting["state"] == "waiting"
        (tmp_path / "free").touch()
        with daemon(qa) as second:
            wait_for(lambda: qa.listed("hook", "event=image_ready,state=delivered"))
            second.send_signal(signal.SIGTERM)
            assert second.wait(PATIENCE_S) == 0
    finally:
        if number.exists() and runs(pid := int(number.read_text())):
            os.kill(pid, signal.SIGKILL)  # the hook of the killed daemon is its own
    once, again = script.told()
    assert once == again
    assert once["id"] == waiting["uid"]
    assert once["di"]["version"] == "1"
    assert once["osf"] == {"id": 1, "name": "desktop"}
