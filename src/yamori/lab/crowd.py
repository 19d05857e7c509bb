"""The guest's crowd: a program of some 120 bytes that becomes many sleeping or busy processes, or many threads.

A shell would take seconds for thousands of processes under emulation, and starts no threads at all. The program is
too small to be worth a cross compiler on the user's machine, so its machine code is written here beside its assembly.
"""

from __future__ import annotations

import struct

from yamori.errors import LabError

_SIGCHLD = 17
_THREAD = 0x00050F00  # CLONE_VM | _FS | _FILES | _SIGHAND | _THREAD | _SYSVSEM, include/uapi/linux/sched.h

KINDS = {
    "sleeper": (_SIGCHLD, 0, 0),
    "spinner": (_SIGCHLD, 1, 0),
    "threaded": (_THREAD, 0, 1),
}
"""What each program becomes: flags of ``clone``, whether its members are busy in user mode, and whether the program
itself stays as one of them (else it exits when all are there). The three words lie behind the code, at ``data``.

Run with a number N each has N members: processes that sleep, processes that never make a system call again, threads.
"""

_CODE = {
    "arm": """
        08109de5       ;    ldr r1, [sp, #8]       ; argv[1], the kernel's initial stack: argc, argv, ...
        88608fe2       ;    adr r6, data
        0050a0e3       ;    mov r5, #0
        0120d1e4       ; 1: ldrb r2, [r1], #1      ; n = atoi(argv[1])
        302052e2       ;    subs r2, r2, #48
        0200003a       ;    blo 2f
        0a30a0e3       ;    mov r3, #10
        952325e0       ;    mla r5, r5, r3, r2
        f9ffffea       ;    b 1b
        080096e5       ; 2: ldr r0, [r6, #8]       ; n -= stay
        005045e0       ;    sub r5, r5, r0
        015055e2       ; 3: subs r5, r5, #1        ; while (--n >= 0)
        0c0000ba       ;    blt 4f
        000096e5       ;    ldr r0, [r6]           ; clone(flags, 0, 0, 0, 0)
        0010a0e3       ;    mov r1, #0
        0020a0e3       ;    mov r2, #0
        0030a0e3       ;    mov r3, #0
        0040a0e3       ;    mov r4, #0
        7870a0e3       ;    mov r7, #120
        000000ef       ;    svc #0
        000050e3       ;    cmp r0, #0             ; the child
        0800000a       ;    beq 5f
        f3ffffca       ;    bgt 3b
        0100a0e3       ;    mov r0, #1             ; exit_group(1): the kernel has no room
        f870a0e3       ;    mov r7, #248
        000000ef       ;    svc #0
        080096e5       ; 4: ldr r0, [r6, #8]       ; all there; stay among them?
        000050e3       ;    cmp r0, #0
        0100001a       ;    bne 5f
        f870a0e3       ;    mov r7, #248           ; exit_group(0)
        000000ef       ;    svc #0
        040096e5       ; 5: ldr r0, [r6, #4]       ; a member: busy?
        000050e3       ;    cmp r0, #0
        feffff1a       ; 6: bne 6b
        1d70a0e3       ; 7: mov r7, #29            ; pause() for ever
        000000ef       ;    svc #0
        fcffffea       ;    b 7b
    """,
    "aarch64": """
        e10b40f9       ;    ldr x1, [sp, #16]      ; argv[1]
        a6040010       ;    adr x6, data
        050080d2       ;    mov x5, #0
        430180d2       ;    mov x3, #10
        22144038       ; 1: ldrb w2, [x1], #1      ; n = atoi(argv[1])
        42c000f1       ;    subs x2, x2, #48
        63000054       ;    b.lo 2f
        a508039b       ;    madd x5, x5, x3, x2
        fcffff17       ;    b 1b
        c90840b9       ; 2: ldr w9, [x6, #8]       ; n -= stay
        a50009cb       ;    sub x5, x5, x9
        a50400f1       ; 3: subs x5, x5, #1        ; while (--n >= 0)
        ab010054       ;    b.lt 4f
        c00040b9       ;    ldr w0, [x6]           ; clone(flags, 0, 0, 0, 0)
        010080d2       ;    mov x1, #0
        020080d2       ;    mov x2, #0
        030080d2       ;    mov x3, #0
        040080d2       ;    mov x4, #0
        881b80d2       ;    mov x8, #220
        010000d4       ;    svc #0
        200100b4       ;    cbz x0, 5f             ; the child
        c0feffb6       ;    tbz x0, #63, 3b
        200080d2       ;    mov x0, #1             ; exit_group(1)
        c80b80d2       ;    mov x8, #94
        010000d4       ;    svc #0
        89000035       ; 4: cbnz w9, 5f            ; all there; stay among them?
        000080d2       ;    mov x0, #0             ; exit_group(0)
        c80b80d2       ;    mov x8, #94
        010000d4       ;    svc #0
        c00440b9       ; 5: ldr w0, [x6, #4]       ; a member: busy?
        00000035       ; 6: cbnz w0, 6b
        000080d2       ; 7: mov x0, #0             ; ppoll(0, 0, 0, 0) for ever: there is no pause()
        010080d2       ;    mov x1, #0
        020080d2       ;    mov x2, #0
        030080d2       ;    mov x3, #0
        280980d2       ;    mov x8, #73
        010000d4       ;    svc #0
        faffff17       ;    b 7b
    """,
    "riscv64": """
        83350101       ;    ld a1, 16(sp)          ; argv[1]
        97040000       ;    auipc s1, 0            ; data
        9384040a       ;    addi s1, s1, 160
        13090000       ;    li s2, 0
        9306a000       ;    li a3, 10
        03c60500       ; 1: lbu a2, 0(a1)          ; n = atoi(argv[1])
        93851500       ;    addi a1, a1, 1
        130606fd       ;    addi a2, a2, -48
        63480600       ;    bltz a2, 2f
        3309d902       ;    mul s2, s2, a3
        3309c900       ;    add s2, s2, a2
        6ff09ffe       ;    j 1b
        83a98400       ; 2: lw s3, 8(s1)           ; n -= stay
        33093941       ;    sub s2, s2, s3
        1309f9ff       ; 3: addi s2, s2, -1        ; while (--n >= 0)
        634a0902       ;    bltz s2, 4f
        03a50400       ;    lw a0, 0(s1)           ; clone(flags, 0, 0, 0, 0)
        93050000       ;    li a1, 0
        13060000       ;    li a2, 0
        93060000       ;    li a3, 0
        13070000       ;    li a4, 0
        9308c00d       ;    li a7, 220
        73000000       ;    ecall
        63020502       ;    beqz a0, 5f            ; the child
        e34ca0fc       ;    bgtz a0, 3b
        13051000       ;    li a0, 1               ; exit_group(1)
        9308e005       ;    li a7, 94
        73000000       ;    ecall
        63980900       ; 4: bnez s3, 5f            ; all there; stay among them?
        13050000       ;    li a0, 0               ; exit_group(0)
        9308e005       ;    li a7, 94
        73000000       ;    ecall
        03a54400       ; 5: lw a0, 4(s1)           ; a member: busy?
        63100500       ; 6: bnez a0, 6b
        13050000       ; 7: li a0, 0               ; ppoll(0, 0, 0, 0) for ever: there is no pause()
        93050000       ;    li a1, 0
        13060000       ;    li a2, 0
        93060000       ;    li a3, 0
        93089004       ;    li a7, 73
        73000000       ;    ecall
        6ff09ffe       ;    j 7b
    """,
    "x86_64": """
        488b742410     ;    mov 16(%rsp), %rsi     ; argv[1]
        4c8d2565000000 ;    lea data(%rip), %r12
        31db           ;    xor %ebx, %ebx
        0fb606         ; 1: movzbl (%rsi), %eax    ; n = atoi(argv[1])
        48ffc6         ;    inc %rsi
        83e830         ;    sub $48, %eax
        7207           ;    jb 2f
        6bdb0a         ;    imul $10, %ebx, %ebx
        01c3           ;    add %eax, %ebx
        ebee           ;    jmp 1b
        418b6c2408     ; 2: mov 8(%r12), %ebp      ; n -= stay
        29eb           ;    sub %ebp, %ebx
        ffcb           ; 3: dec %ebx               ; while (--n >= 0)
        7827           ;    js 4f
        418b3c24       ;    mov (%r12), %edi       ; clone(flags, 0, 0, 0, 0)
        31f6           ;    xor %esi, %esi
        31d2           ;    xor %edx, %edx
        4531d2         ;    xor %r10d, %r10d
        4531c0         ;    xor %r8d, %r8d
        b838000000     ;    mov $56, %eax
        0f05           ;    syscall
        85c0           ;    test %eax, %eax
        741b           ;    jz 5f                  ; the child
        79e1           ;    jns 3b
        bf01000000     ;    mov $1, %edi           ; exit_group(1)
        b8e7000000     ;    mov $231, %eax
        0f05           ;    syscall
        85ed           ; 4: test %ebp, %ebp        ; all there; stay among them?
        7509           ;    jnz 5f
        31ff           ;    xor %edi, %edi         ; exit_group(0)
        b8e7000000     ;    mov $231, %eax
        0f05           ;    syscall
        418b442404     ; 5: mov 4(%r12), %eax      ; a member: busy?
        85c0           ;    test %eax, %eax
        75fe           ; 6: jnz 6b
        b822000000     ; 7: mov $34, %eax          ; pause() for ever
        0f05           ;    syscall
        ebf7           ;    jmp 7b
    """,
}

_EM = {"arm": 40, "aarch64": 183, "riscv64": 243, "x86_64": 62}  # elf(5), e_machine
_EABI5 = 0x05000000  # without it the Arm kernel takes the program for one of the old ABI
_PT_LOAD, _PT_GNU_STACK = 1, 0x6474E551  # without the second the stack is executable, and the kernel complains
_EXECUTE, _WRITE, _READ = 1, 2, 4
_BASE = 0x400000


def program(elf: str, kind: str) -> bytes:
    """Return a statically linked ELF program.

    Args:
        elf: The machine code, see ``Device.elf``.
        kind: A key of ``KINDS``.

    Raises:
        LabError: There is no code for this machine.
    """
    if elf not in _CODE:
        raise LabError("the lab has no helper program for this machine", where=elf)
    code = b"".join(bytes.fromhex(line.partition(";")[0]) for line in _CODE[elf].splitlines())
    image = code + struct.pack("<3I", *KINDS[kind])
    return _elf32(elf, image) if elf == "arm" else _elf64(elf, image)


def _elf32(elf: str, image: bytes) -> bytes:
    start = 52 + 2 * 32
    size = start + len(image)
    return (
        struct.pack("<4s4B8x", b"\x7fELF", 1, 1, 1, 0)
        + struct.pack("<HHIIIIIHHHHHH", 2, _EM[elf], 1, _BASE + start, 52, 0, _EABI5, 52, 32, 2, 0, 0, 0)
        + struct.pack("<8I", _PT_LOAD, 0, _BASE, _BASE, size, size, _READ | _EXECUTE, 0x1000)
        + struct.pack("<8I", _PT_GNU_STACK, 0, 0, 0, 0, 0, _READ | _WRITE, 0)
        + image
    )


def _elf64(elf: str, image: bytes) -> bytes:
    start = 64 + 2 * 56
    size = start + len(image)
    return (
        struct.pack("<4s4B8x", b"\x7fELF", 2, 1, 1, 0)
        + struct.pack("<HHIQQQIHHHHHH", 2, _EM[elf], 1, _BASE + start, 64, 0, 0, 64, 56, 2, 0, 0, 0)
        + struct.pack("<2I6Q", _PT_LOAD, _READ | _EXECUTE, 0, _BASE, _BASE, size, size, 0x1000)
        + struct.pack("<2I6Q", _PT_GNU_STACK, _READ | _WRITE, 0, 0, 0, 0, 0, 0)
        + image
    )
