"""A guest that floods its console, and notes in a file when which key came: lines `seconds key`.

Run as `python flooding_guest.py FILE` at a raw terminal. What it prints is what build logs look like: lines
in colour, some of them longer than a screen is wide.
"""

from __future__ import annotations

import os
import sys
import threading
import time


def main() -> None:
    """Print for ever, and note keys."""
    threading.Thread(target=listen, args=(sys.argv[1],), daemon=True).start()
    number = 0
    while True:
        lines = []
        for _ in range(50):
            number += 1
            more = "." * (number % 90)
            lines.append(
                f"\x1b[3{number % 8}m[{number:9}]\x1b[0m flood: compiling part {number} of it{more}\r\n"
            )
        os.write(1, "".join(lines).encode())


def listen(file: str) -> None:
    """Note each key as it comes."""
    with open(file, "a", buffering=1) as log:  # noqa: PTH123 - it starts sooner without pathlib
        while data := os.read(0, 1024):
            now = time.monotonic()
            for key in data.decode("latin-1"):
                log.write(f"{now!r} {key}\n")


if __name__ == "__main__":
    main()
