"""The quickest virtual machines: one sector that the firmware loads, running half a second after its launch.

Each says BOOTED on the serial line. The one called `quick` sends back what is typed and powers off when its
power button is pressed; `deaf` does not mind the button; `flood` says the letter x without end; `count` adds
one to a number on its disk, says it, and goes on as `quick`.
"""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

SECTOR = 512
BOOTED = "a sector has booted"
SOURCE = f"""
.code16
.globl _start
_start:
  cli
  cld
  xorw %ax, %ax
  movw %ax, %ds
  movw %ax, %ss
  movw $0x7c00, %sp
  movw %ax, 0x22
  movw $tick, 0x20        # the timer is ours: the firmware would read what is typed
  movw $0x602, %dx        # PM1 enable: the power button tells us
  movw $0x100, %ax
  outw %ax, %dx
  movw $text, %si
say:
  lodsb
  testb %al, %al
  jz count_up
  call write
  jmp say
count_up:
.ifdef count
  xorw %ax, %ax
  movw %ax, %es
  movb $2, %ah            # read
  call disk
  incb 0x8000
  movb $3, %ah            # write
  call disk
  movb 0x8000, %al
  addb $'0', %al
  call write
.endif
main:
.ifdef flood
  movb $'x', %al
  call write
  jmp main
.endif
  sti
  hlt                     # the timer wakes us, eighteen times a second
typed:
  movw $0x3fd, %dx
  inb %dx, %al
  testb $1, %al
  jz pressed
  movw $0x3f8, %dx
  inb %dx, %al
  call write
  jmp typed
pressed:
.ifndef deaf
  movw $0x600, %dx        # PM1 status: was the button pressed?
  inw %dx, %ax
  testb $1, %ah
  jz main
  movw $0x604, %dx        # PM1 control: off
  movw $0x2000, %ax
  outw %ax, %dx
.endif
  jmp main
.ifdef count
disk:
  movb $1, %al            # one sector, the second one
  movw $0x8000, %bx
  movw $2, %cx
  movw $0x80, %dx         # of the first disk
  int $0x13
  jnc 1f
  movb $'?' - '0', 0x8000
1:
  ret
.endif
write:
  pushw %ax
1:
  movw $0x3fd, %dx
  inb %dx, %al
  testb $0x20, %al
  jz 1b
  popw %ax
  movw $0x3f8, %dx
  outb %al, %dx
  ret
tick:
  pushw %ax
  movb $0x20, %al
  outb %al, $0x20
  popw %ax
  iret
text: .asciz "{BOOTED}\\r\\n"
.org 510
.word 0xaa55
"""


def assembled(source: str, folder: Path, *symbols: str) -> bytes:
    """The machine code of a boot sector."""
    defined = [word for symbol in symbols for word in ("--defsym", f"{symbol}=1")]
    subprocess.run(["as", "--32", *defined, "-o", folder / "sector.o"], input=source.encode(), check=True)
    words = ["ld", "-m", "elf_i386", "-Ttext", "0x7c00", "--oformat", "binary", "-e", "_start"]
    subprocess.run([*words, folder / "sector.o", "-o", folder / "sector"], check=True)
    return (folder / "sector").read_bytes()


def sector_image(folder: Path, kind: str) -> Path:
    """A read-only qcow2 image with the guest of that kind."""
    code = assembled(SOURCE, folder, kind)
    assert len(code) == SECTOR
    assert struct.unpack("<H", code[-2:]) == (0xAA55,)
    raw, image = folder / f"{kind}.raw", folder / f"{kind}.qcow2"
    with raw.open("wb") as disk:
        disk.write(code)
        disk.truncate(1 << 20)
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, image], check=True)
    raw.unlink()
    image.chmod(0o444)
    return image
