"""Looks a stranger's disk image over before a virtual machine may have it.

The header is judged first (see qcow2_header); only what names nothing but itself is shown to programs of
QEMU, and these run confined (see jail), with the format said, never guessed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from appliance import proc
from appliance.errors import ImageError, MissingToolError, ToolError
from appliance.proc import Completed
from appliance.storage import qcow2_header
from appliance.storage.jail import SHOWN, confined
from appliance.storage.qcow2_header import BOOT_BYTES, HEAD, DiskFormat, Verdict
from appliance.threads import in_thread

LOOK_S = 60.0
CHECK_S = 3600.0
LONGEST_COMPLAINTS = 1 << 16
LONGEST_ANSWER = 1 << 20
"""Bytes; the programs write nothing else."""
SOUND, LEAKING = 0, 3
"""How `qemu-img check` ends for what can be used: with all clusters accounted for, or with some lost."""
NO_QEMU = "apt-get install qemu-utils"
BYPLAY = "OFD lock probing"
"""What is in a line of QEMU's that means nothing: there is no /dev where it runs."""
DUMPED = re.compile(rb"^[0-9a-f]{8}: ((?: [0-9a-f]{2})+)", re.MULTILINE)


def judge(file: Path, name: str, *, largest: int) -> Verdict:
    """What a disk image is by its first bytes.

    :raises ImageError: no virtual machine may have it
    """
    with _refused(name):
        head, size = _read(file, HEAD)
        verdict = qcow2_header.judge(head, file_size=size, largest=largest)
        if verdict.format is DiskFormat.RAW:
            qcow2_header.check_boot(head[:BOOT_BYTES])
        return verdict


async def inspect(file: Path, name: str, *, largest: int) -> Verdict:
    """Whether a virtual machine can boot from a disk image that nobody changes any more.

    :raises ImageError: it is refused, damaged, or cannot boot
    :raises MissingToolError: a program of QEMU is missing
    """
    verdict = await in_thread(judge, file, name, largest=largest)
    if verdict.format is DiskFormat.RAW:
        return verdict
    told = await _json(name, file, "info", LOOK_S)
    with _refused(name):
        _compare(told, verdict)
    checked = await _run(_qemu_img("check", file), CHECK_S)
    if checked.status not in (SOUND, LEAKING):
        raise ImageError(f"the image {name} is damaged: {_reason(checked)}", hint="copy or build it again")
    with _refused(name):
        qcow2_header.check_boot(await _beginning(file, name, verdict.size))
    return verdict


def _read(file: Path, length: int) -> tuple[bytes, int]:
    try:
        with file.open("rb") as stream:
            return stream.read(length), stream.seek(0, 2)
    except OSError as exc:
        raise ImageError(f"it cannot be read: {exc.strerror}") from exc


def _compare(told: dict[str, Any], verdict: Verdict) -> None:
    """Whether QEMU understands the image as we do: neither may overlook what the other sees."""
    data = told.get("format-specific", {}).get("data", {})
    outward = [key for key in told if key.startswith(("backing-", "full-backing-"))]
    outward += [key for key in ("data-file", "data-file-raw", "encrypt") if data.get(key)]
    if outward or told.get("encrypted") or data.get("corrupt") or told.get("dirty-flag"):
        raise ImageError(f"QEMU finds more in it than a disk: {', '.join(outward) or 'damage or encryption'}")
    if (told.get("format"), told.get("virtual-size")) != (verdict.format, verdict.size):
        raise ImageError("its header can be read in two ways")


async def _beginning(file: Path, name: str, size: int) -> bytes:
    """The first bytes of the guest's disk in a qcow2 file."""
    length = min(BOOT_BYTES, size // 512 * 512)
    program = ["qemu-io", "-r", "-f", DiskFormat.QCOW2, "-c", f"read -v 0 {length}", SHOWN]
    done = await _run(_shown(program, file), LOOK_S)
    dumped = b"".join(bytes.fromhex(line.decode()) for line in DUMPED.findall(done.stdout))
    if done.status != 0 or len(dumped) != length:
        raise ImageError(f"its first sectors cannot be read: {_reason(done)}")
    return dumped


async def _json(name: str, file: Path, what: str, timeout_s: float) -> dict[str, Any]:
    done = await _run(_qemu_img(what, file), timeout_s)
    try:
        told: dict[str, Any] = json.loads(done.stdout) if done.status == 0 else {}
    except ValueError:
        told = {}
    if not told:
        raise ImageError(f"the image {name} is damaged: {_reason(done)}", hint="copy or build it again")
    return told


def _qemu_img(what: str, file: Path) -> list[str]:
    return _shown(["qemu-img", what, "-f", DiskFormat.QCOW2, "--output=json", SHOWN], file)


def _shown(program: Sequence[str], file: Path) -> list[str]:
    return confined(program, target=None, capabilities=(), longest_file=LONGEST_ANSWER, shown=file)


async def _run(command: list[str], timeout_s: float) -> Completed:
    try:
        done = await proc.run(command, check=False, timeout_s=timeout_s, longest_stderr=LONGEST_COMPLAINTS)
    except ToolError as exc:
        return Completed(exc.status, b"", exc.stderr.encode())
    if done.status == 127:
        raise MissingToolError("a program of QEMU is missing", hint=NO_QEMU)
    return done


def _reason(done: Completed) -> str:
    """What a program complained of first, in a line."""
    lines = done.stderr.decode(errors="replace").replace(SHOWN, "it").splitlines()
    said = [line.strip() for line in lines if line.strip() and BYPLAY not in line]
    line = "".join(c if c.isprintable() else "?" for c in said[0]) if said else f"status {done.status}"
    return line.removeprefix("qemu-img: ")[:200]


@contextmanager
def _refused(name: str) -> Iterator[None]:
    """Tell why an image is refused with its name."""
    try:
        yield
    except ImageError as exc:
        raise ImageError(f"the image {name} is refused: {exc.message}", hint=exc.hint) from exc
