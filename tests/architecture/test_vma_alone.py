"""The VMA's small world: one reproducible file that runs on a bare Python of the guest's choice."""

from __future__ import annotations

import ast
import io
import os
import socket
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import appliance.vma
from images.build_vma import zipapp

SOURCES = sorted(Path(appliance.vma.__file__).parent.glob("*.py"))
_SHOW_IMPORTS = """
import runpy, sys
sys.argv = ["qvd-vma.pyz", "/nonexistent/vma.conf"]
import appliance.vma.daemon
foreign = sorted(name for name in sys.modules if name.partition(".")[0] not in sys.stdlib_module_names)
print(*[name for name in foreign if not name.startswith("appliance")])
print(*sorted(name for name in sys.modules if name.startswith("appliance")))
"""


@pytest.fixture
def pyz(tmp_path: Path) -> Path:
    path = tmp_path / "qvd-vma.pyz"
    path.write_bytes(zipapp())
    return path


def test_the_same_source_gives_the_same_bytes(tmp_path: Path) -> None:
    builder = Path(__file__).parents[2] / "images/build_vma.py"
    subprocess.run([sys.executable, str(builder), str(tmp_path / "other")], check=True, timeout=60)
    assert (tmp_path / "other").read_bytes() == zipapp()


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_every_file_is_python_3_9_and_imports_only_the_standard_library(path: Path) -> None:
    tree = ast.parse(path.read_text(), feature_version=(3, 9))
    for node in ast.walk(tree):
        assert not isinstance(node, ast.Match)
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            names = [node.module or ""]
        for name in names:
            assert name.startswith("appliance.vma") or name.partition(".")[0] in sys.stdlib_module_names, name


def test_it_imports_nothing_else_of_ours_or_anybodys(pyz: Path) -> None:
    code = f"import sys; sys.path.insert(0, {str(pyz)!r}){_SHOW_IMPORTS}"
    done = subprocess.run(
        ["/usr/bin/python3", "-S", "-I", "-c", code], capture_output=True, text=True, timeout=30, check=True
    )
    foreign, ours = done.stdout.split("\n")[:2]
    assert foreign.split() in ([], ["__main__"])
    assert all(name == "appliance" or name.startswith("appliance.vma") for name in ours.split())
    assert "appliance.vma.nxagent" in ours


@pytest.fixture
def running(pyz: Path, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A VMA on a free port of loopback, from which it may be called."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = {
        "path.run": tmp_path / "run",
        "path.log": tmp_path / "log",
        "vma.rpc.port": port,
        "vma.rpc.allow": "127.0.0.1",
    }
    (tmp_path / "vma.conf").write_text("".join(f"{key} = {value}\n" for key, value in settings.items()))
    argv = ["/usr/bin/python3", "-S", "-I", str(pyz), str(tmp_path / "vma.conf")]
    with subprocess.Popen(argv, stderr=subprocess.PIPE, env={}, cwd="/") as vma:
        try:
            assert vma.stderr is not None
            assert b"listening" in vma.stderr.readline()
            yield vma, port
        finally:
            vma.kill()


def ask(port: int, *portions: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=5) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for portion in portions:
            sock.sendall(portion)
        sock.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: sock.recv(4096), b""))


def test_it_runs_alone(running: tuple[subprocess.Popen[bytes], int]) -> None:
    vma, port = running
    heard = ask(port, b"GET /vma/ping HTTP/1.1\n\nGET /vma/x_state HTTP/1.1\n\n")
    assert heard.endswith(b'Content-Length: 12\r\n\r\n"stopped"\n\r\n')
    assert heard.count(b"HTTP/1.1 200 OK\r\n") == 2
    vma.terminate()
    assert vma.wait(10) == 0


def test_it_is_not_upset_by_whoever_calls(running: tuple[subprocess.Popen[bytes], int]) -> None:
    _, port = running
    ping = b"GET /vma/ping HTTP/1.1\r\n\r\n"
    answer = ask(port, ping)
    assert ask(port, *(ping[at : at + 1] for at in range(len(ping)))) == answer
    assert ask(port, ping * 2000) == answer * 2000
    assert ask(port, b"\x16\x03\x01\x02rubbish\n\n").startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert ask(port, b"POST /vma/ping HTTP/1.1\r\nContent-Length: 9\r\n\r\n" + ping).count(b"HTTP/1.1") == 1
    silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(100)]
    try:
        assert ask(port, ping) == answer, "silent connections do not lock others out"
    finally:
        for sock in silent:
            sock.close()
    assert ask(port, ping) == answer


def test_a_setting_it_cannot_use_is_one_line(pyz: Path, tmp_path: Path) -> None:
    (tmp_path / "vma.conf").write_text("vma.rpc.port = many\n")
    argv = ["/usr/bin/python3", "-S", "-I", str(pyz), str(tmp_path / "vma.conf")]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert done.stderr == "qvd-vma: cannot start: vma.rpc.port is 'many', not a number\n"


def test_byte_code_of_another_python_is_ignored(pyz: Path, tmp_path: Path) -> None:
    """A guest's Python compiles the source beside byte code that it does not know."""
    other = io.BytesIO()
    with zipfile.ZipFile(pyz) as archive, zipfile.ZipFile(other, "w") as copy:
        for entry in archive.infolist():
            data = archive.read(entry)
            copy.writestr(entry, b"\x00\x00\x0d\x0a" + data[4:] if entry.filename.endswith("c") else data)
    changed = tmp_path / "changed.pyz"
    changed.write_bytes(other.getvalue())
    code = f"import sys; sys.path.insert(0, {str(changed)!r}); "
    code += "import appliance.vma.daemon as vma; print(vma.__file__)"
    done = subprocess.run(
        ["/usr/bin/python3", "-S", "-I", "-c", code],
        capture_output=True, text=True, timeout=30, check=True, env={**os.environ},
    )  # fmt: skip
    assert done.stdout.strip().endswith("daemon.py")
