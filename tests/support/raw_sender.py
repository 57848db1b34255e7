"""Frames byte by byte out of a virtual machine, sent by its own root with a program that needs nothing of it.

The smallest guest has no interpreter that knows packet sockets. So the program is machine code for Linux, of
some hundred bytes, typed into the guest's shell. It reads an address for packet sockets (packet(7)), then
frames, each after its length in two bytes, and sends these as they are, in this order.
"""

from __future__ import annotations

import functools
import struct
import subprocess
import tempfile
from base64 import b64encode
from collections.abc import Iterable, Mapping
from pathlib import Path

from tests.support.kvm_desktop import Shell

AF_PACKET = 17
PROGRAM = "/run/send"
ADDRESS = struct.Struct("=HHiHBB8s")
TYPED = 600
"""Characters that a line of a shell surely takes."""
SOURCE = f"""
.globl _start
_start:
  movl $41, %eax          # socket(AF_PACKET, SOCK_RAW, 0)
  movl ${AF_PACKET}, %edi
  movl $3, %esi
  xorl %edx, %edx
  syscall
  testq %rax, %rax
  js out
  movl %eax, %r12d
  leaq told(%rip), %r13   # where what was read ends
read:
  xorl %eax, %eax
  xorl %edi, %edi
  movq %r13, %rsi
  movl $4096, %edx
  syscall
  addq %rax, %r13
  testq %rax, %rax
  js out
  jnz read
  leaq told+{ADDRESS.size}(%rip), %rbx
send:
  xorl %eax, %eax
  cmpq %r13, %rbx
  jae out
  movzwl (%rbx), %edx
  leaq 2(%rbx), %rsi
  leaq (%rsi,%rdx), %rbx
  movl $44, %eax          # sendto(socket, frame, length, 0, address, its length)
  movl %r12d, %edi
  xorl %r10d, %r10d
  leaq told(%rip), %r8
  movl ${ADDRESS.size}, %r9d
  syscall
  testq %rax, %rax
  jns send
out:
  negl %eax               # the number of the error
  movl %eax, %edi
  movl $60, %eax
  syscall
.lcomm told, 1 << 20
"""


def install(shell: Shell, told: Mapping[str, Iterable[bytes]], *, link: str = "eth0") -> None:
    """Type the program into a guest, and what it is to send to the link, by name."""
    _type(shell, _program(), PROGRAM)
    index = int(shell.run(f"chmod 755 {PROGRAM}; cat /sys/class/net/{link}/ifindex"))
    address = ADDRESS.pack(AF_PACKET, 0, index, 0, 0, 0, b"")
    for name, frames in told.items():
        packed = b"".join(struct.pack("=H", len(frame)) + frame for frame in frames)
        _type(shell, address + packed, f"/run/{name}")


def send(shell: Shell, *names: str) -> None:
    """Have them sent; returns when they are."""
    shell.run(" && ".join(f"{PROGRAM} </run/{name}" for name in names))


def _type(shell: Shell, data: bytes, file: str) -> None:
    text = b64encode(data).decode()
    parts = [text[start : start + TYPED] for start in range(0, len(text), TYPED)]
    for arrow, part in zip([">", *[">>"] * len(parts)], parts, strict=False):
        shell.run(f"echo {part} {arrow}{file}.text")
    shell.run(f"base64 -d <{file}.text >{file}")


@functools.cache
def _program() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        unlinked, linked = Path(folder) / "send.o", Path(folder) / "send"
        subprocess.run(["as", "--64", "-o", unlinked], input=SOURCE.encode(), check=True)
        subprocess.run(
            ["ld", "-m", "elf_x86_64", "-N", "--no-warn-rwx-segments", "-s", "-o", linked, unlinked],
            check=True,
        )
        return linked.read_bytes()
