"""Stand-ins for guests and for the world outside: network namespaces that can listen and knock."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

KNOCK = """
import socket, sys
address, port, source = sys.argv[1], int(sys.argv[2]), sys.argv[3]
knocking = socket.socket()
knocking.settimeout(float(sys.argv[4]))
try:
    if source:
        knocking.bind((source, 0))
    knocking.connect((address, port))
    print("seen as " + knocking.recv(64).decode())
except ConnectionRefusedError:
    print("refused")
except OSError as exc:
    print("nothing")
"""
LISTEN = """
import socket, sys
listening = socket.create_server(("", int(sys.argv[1])))
print("ready", flush=True)
while True:
    connection, (address, _) = listening.accept()
    connection.sendall(address.encode())
    connection.close()
"""
PATIENCE_S = 1.0


@dataclass(frozen=True, slots=True)
class Machine:
    """Whatever is behind a network namespace; without a name, this thread's own."""

    namespace: str | None

    def configure(self, *words: str) -> None:
        """Run an `ip` command there."""
        subprocess.run([*self.there(), "ip", *words], check=True)

    def knock(self, address: str, port: int, *, source: str = "") -> str:
        """What comes of a connection: `seen as ADDRESS`, `refused` or `nothing`."""
        arguments = (address, str(port), source, str(PATIENCE_S))
        command = [*self.there(), sys.executable, "-I", "-c", KNOCK, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    def python(self, program: str, *arguments: str) -> None:
        """Run a program there to its end."""
        subprocess.run([*self.there(), sys.executable, "-I", "-c", program, *arguments], check=True)

    @contextmanager
    def listening(self, port: int) -> Iterator[None]:
        """A service there that tells each caller its address."""
        command = [*self.there(), sys.executable, "-I", "-c", LISTEN, str(port)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as service:
            assert service.stdout is not None
            try:
                assert service.stdout.readline() == b"ready\n"
                yield
            finally:
                service.kill()

    def there(self) -> list[str]:
        """The words before a command that is to run there."""
        return ["nsenter", f"--net=/run/netns/{self.namespace}"] if self.namespace else []
