"""Stand-ins for guests and for the world outside: network namespaces that can listen and knock."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

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
CONNECT = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), float(sys.argv[3]))
    print("yes")
except OSError:
    print("no")
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
ECHO = """
import selectors, socket, sys
port = int(sys.argv[1])
stream = socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
datagrams.bind(("", port))
ready = selectors.DefaultSelector()
for endpoint in (stream, datagrams):
    ready.register(endpoint, selectors.EVENT_READ)
print("ready", flush=True)
while True:
    for key, _ in ready.select():
        if key.fileobj is stream:
            stream.accept()[0].close()
        else:
            datagrams.sendto(*datagrams.recvfrom(64))
"""
PATIENCE_S = 1.0


@dataclass(frozen=True, slots=True)
class Machine:
    """Whatever is behind a network namespace; without a name, this thread's own."""

    namespace: str | None
    """Its name, or the path of the file that stands for it."""

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

    def connects(self, address: str, port: int) -> bool:
        """Whether a connection comes about; whoever took it need not say anything."""
        command = [*self.there(), sys.executable, "-I", "-c", CONNECT, address, str(port), str(PATIENCE_S)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout == "yes\n"

    @contextmanager
    def listening(self, port: int) -> Iterator[None]:
        """A service there that tells each caller its address."""
        with self._serving(LISTEN, port):
            yield

    @contextmanager
    def echoing(self, port: int) -> Iterator[None]:
        """A service there that takes connections by IPv4 and IPv6, and gives datagrams back."""
        with self._serving(ECHO, port):
            yield

    @contextmanager
    def _serving(self, program: str, port: int) -> Iterator[None]:
        command = [*self.there(), sys.executable, "-I", "-c", program, str(port)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as service:
            assert service.stdout is not None
            try:
                assert service.stdout.readline() == b"ready\n"
                yield
            finally:
                service.kill()

    def there(self) -> list[str]:
        """The words before a command that is to run there."""
        return ["nsenter", f"--net={Path('/run/netns') / self.namespace}"] if self.namespace else []
