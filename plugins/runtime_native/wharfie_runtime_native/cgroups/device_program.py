"""Device rules for version 2, which has no device controller but asks a BPF program (bpf(2), BPF_PROG_TYPE_CGROUP_DEVICE).

The program gets {access_type, major, minor} and answers 1 to allow. Rules are checked from the last to the first, so that
later ones win; the first rule, which is for all devices, is the answer when none fits.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Sequence
from typing import Final

from wharfie.spi.errors import DriverError
from wharfie_runtime_native.cgroups.device_rules import WILDCARD, Rule
from wharfie_runtime_native.syscalls import bpf

# linux/bpf.h
_BPF_PROG_LOAD: Final = 5
_BPF_PROG_ATTACH: Final = 8
_BPF_PROG_DETACH: Final = 9
_BPF_PROG_GET_FD_BY_ID: Final = 13
_BPF_PROG_QUERY: Final = 16
_BPF_PROG_TYPE_CGROUP_DEVICE: Final = 15
_BPF_CGROUP_DEVICE: Final = 6
_BPF_F_ALLOW_MULTI: Final = 2
_TYPES: Final = {"b": 1, "c": 2}  # BPF_DEVCG_DEV_BLOCK, BPF_DEVCG_DEV_CHAR
_ACCESS: Final = {"m": 1, "r": 2, "w": 4}  # BPF_DEVCG_ACC_MKNOD, READ, WRITE
_ALL_ACCESS: Final = 7
_MANY: Final = 64  # BPF_CGROUP_MAX_PROGS

# Opcodes (Documentation/bpf/standardization/instruction-set.rst), with the registers of the program below.
_LDX_W: Final = 0x61
_MOV_IMM: Final = 0xB7
_MOV_REG: Final = 0xBF
_AND_IMM: Final = 0x57
_RSH_IMM: Final = 0x77
_JNE_IMM: Final = 0x55
_EXIT: Final = 0x95
_CONTEXT, _TYPE, _WANTED, _MAJOR, _MINOR, _REST, _RESULT = 1, 2, 3, 4, 5, 1, 0


def _instruction(code: int, dst: int = 0, src: int = 0, offset: int = 0, value: int = 0) -> bytes:
    return struct.pack("<BBhi", code, src << 4 | dst, offset, value)


def assemble(rules: Sequence[Rule]) -> bytes:
    """The program for `device_rules.effective` rules."""
    program = [
        _instruction(_LDX_W, _TYPE, _CONTEXT, 0),
        _instruction(_MOV_REG, _WANTED, _TYPE),
        _instruction(_AND_IMM, _TYPE, value=0xFFFF),
        _instruction(_RSH_IMM, _WANTED, value=16),
        _instruction(_LDX_W, _MAJOR, _CONTEXT, 4),
        _instruction(_LDX_W, _MINOR, _CONTEXT, 8),
    ]
    for rule in reversed(rules[1:]):
        answer = [_instruction(_MOV_IMM, _RESULT, value=int(rule.allow)), _instruction(_EXIT)]
        # Each test is a list of instructions of which the last jumps to the next rule when it fails.
        tests = [[(_JNE_IMM, _TYPE, _TYPES[rule.type])]]
        outside = _ALL_ACCESS & ~sum(_ACCESS[letter] for letter in set(rule.access))
        if rule.major != WILDCARD:
            tests.append([(_JNE_IMM, _MAJOR, rule.major)])
        if rule.minor != WILDCARD:
            tests.append([(_JNE_IMM, _MINOR, rule.minor)])
        if outside:
            tests.append([(_MOV_REG, _REST, 0), (_AND_IMM, _REST, outside), (_JNE_IMM, _REST, 0)])
        flat = [step for test in tests for step in test]
        for index, (code, register, value) in enumerate(flat):
            source = _WANTED if code == _MOV_REG else 0
            offset = len(flat) - index - 1 + len(answer) if code == _JNE_IMM else 0
            program.append(_instruction(code, register, source, offset, value))
        program += answer
    program += [_instruction(_MOV_IMM, _RESULT, value=int(rules[0].allow)), _instruction(_EXIT)]
    return b"".join(program)


def load(program: bytes) -> int:
    """A descriptor of the program in the kernel. Errors: DriverError (EPERM without CAP_BPF, no CONFIG_CGROUP_BPF)."""
    code = ctypes.create_string_buffer(program, len(program))
    licence = ctypes.create_string_buffer(b"Apache-2.0")
    attributes = struct.pack(
        "<IIQQIIQII16s",
        _BPF_PROG_TYPE_CGROUP_DEVICE,
        len(program) // 8,
        ctypes.addressof(code),
        ctypes.addressof(licence),
        0,  # log_level, log_size, log_buf: the program is ours
        0,
        0,
        0,
        0,
        b"wharfie_dev",
    )
    try:
        return bpf(_BPF_PROG_LOAD, attributes)
    except OSError as error:
        raise DriverError(f"cannot load the device rules' BPF program: {os.strerror(error.errno or 0).lower()}") from error


def attach(directory: str, rules: Sequence[Rule]) -> None:
    """Put the rules on a group, where they live as long as it does, in place of those before. All programs of a group
    have to allow, so older ones are taken off, after the new one is there. Errors: DriverError."""
    program = load(assemble(rules))
    try:
        group = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            older = _attached(group)
            bpf(_BPF_PROG_ATTACH, struct.pack("<IIII", group, program, _BPF_CGROUP_DEVICE, _BPF_F_ALLOW_MULTI))
            for number in older:
                old = bpf(_BPF_PROG_GET_FD_BY_ID, struct.pack("<I", number))
                bpf(_BPF_PROG_DETACH, struct.pack("<III", group, old, _BPF_CGROUP_DEVICE))
                os.close(old)
        finally:
            os.close(group)
    except OSError as error:
        raise DriverError(f"cannot attach device rules to {directory}: {os.strerror(error.errno or 0).lower()}") from error
    finally:
        os.close(program)


def _attached(group: int) -> list[int]:
    """The ids of the group's own device programs."""
    ids = (ctypes.c_uint32 * _MANY)()
    attributes = bytearray(struct.pack("<IIIIQI", group, _BPF_CGROUP_DEVICE, 0, 0, ctypes.addressof(ids), _MANY))
    bpf(_BPF_PROG_QUERY, attributes)
    return list(ids[: struct.unpack_from("<I", attributes, 24)[0]])
