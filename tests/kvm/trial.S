.code16
.globl _start
_start:
  cli
  cld
  xorw %ax, %ax
  movw %ax, %ds
  movw %ax, %es
  movw %ax, %ss
  movw $0x7c00, %sp
  movl $10000000, %ecx
1: decl %ecx
  jnz 1b
  sti
  movl 0x46c, %ebx
2: hlt
  movl 0x46c, %eax
  subl %ebx, %eax
  cmpl $2, %eax
  jb 2b
  cli
  movw $0x1000, %di
  xorl %eax, %eax
  movw $0xc00, %cx
  rep stosl
  movl $0x2003, 0x1000
  movl $0x3003, 0x2000
  movl $0x83, 0x3000
  movl %cr4, %eax
  orb $0x20, %al
  movl %eax, %cr4
  movl $0x1000, %eax
  movl %eax, %cr3
  movl $0xc0000080, %ecx
  rdmsr
  orb $1, %ah
  wrmsr
  lgdtl table
  movl %cr0, %eax
  orl $0x80000001, %eax
  movl %eax, %cr0
  ljmpl $8, $long
.code64
long:
  movl $10000000, %ecx
3: decl %ecx
  jnz 3b
  xorl %eax, %eax
  cpuid
  movb $0x2a, %al
  outb %al, $0xf4
4: hlt
  jmp 4b
.balign 8
segments: .quad 0, 0x00af9a000000ffff
table: .word 15
  .long segments
.org 510
.word 0xaa55
