"""Entry of the zipapp. It listens before it imports anything else: the host asks early in the boot."""

from __future__ import annotations

import socket
import sys

from appliance.vma.conf import PATH, Conf, ConfError


def listen(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("0.0.0.0", port))  # who may talk is decided per connection, by the peer's address
    listener.listen(64)
    return listener


def main() -> int:
    """Run the VMA until it is told to stop. An argument names another settings file."""
    path = sys.argv[1] if len(sys.argv) > 1 else PATH
    try:
        conf = Conf.load(path)
        listener = listen(conf.number("vma.rpc.port"))
        from appliance.vma.daemon import run

        return run(conf, listener)
    except (ConfError, OSError, UnicodeError) as exc:
        print(f"qvd-vma: cannot start: {exc}", file=sys.stderr, flush=True)
        return 1


if __name__ == "__main__":
    raise SystemExit(main())
