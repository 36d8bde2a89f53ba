"""From the rules of `linux.seccomp` to a classic BPF program (seccomp(2); kernel, seccomp_filter.rst).

The program loads the architecture, then the call's number, and finds the number's range by binary search: neighbours
with the same answer are one range, so a profile of 360 names needs some 8 comparisons. Only calls with conditions on
their arguments have code of their own, at their leaf of the search.

Differences from libseccomp, on purpose: an argument that the kernel takes as 32 bits is compared as 32 bits, since a
caller may put anything into the upper half (`socket` with AF_VSOCK + 2**32 is a vsock too).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from os import uname
from typing import Any, Final, NamedTuple

from wharfie.spi.errors import InvalidArgument
from wharfie_runtime_native.seccomp.numbers import load_numbers

# linux/seccomp.h, linux/audit.h
_RETURNS: Final = {
    "SCMP_ACT_KILL": 0x00000000,
    "SCMP_ACT_KILL_THREAD": 0x00000000,
    "SCMP_ACT_KILL_PROCESS": 0x80000000,
    "SCMP_ACT_TRAP": 0x00030000,
    "SCMP_ACT_ERRNO": 0x00050000,
    "SCMP_ACT_TRACE": 0x7FF00000,
    "SCMP_ACT_NOTIFY": 0x7FC00000,
    "SCMP_ACT_LOG": 0x7FFC0000,
    "SCMP_ACT_ALLOW": 0x7FFF0000,
}
ACTIONS: Final = frozenset(_RETURNS)
_WITH_NUMBER: Final = frozenset(("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE"))
_KILL_PROCESS: Final = _RETURNS["SCMP_ACT_KILL_PROCESS"]
_PERMISSIVE: Final = frozenset((_RETURNS["SCMP_ACT_ALLOW"], _RETURNS["SCMP_ACT_LOG"]))
_EPERM: Final = 1
_ENOSYS: Final = 38
_X32_BIT: Final = 0x40000000

# struct seccomp_data
_AT_NUMBER: Final = 0
_AT_ARCH: Final = 4
_AT_ARGS: Final = 16

# linux/bpf_common.h
_LD: Final = 0x20  # BPF_LD | BPF_W | BPF_ABS
_AND: Final = 0x54
_SUB: Final = 0x14
_JA: Final = 0x05
_JEQ: Final = 0x15
_JGT: Final = 0x25
_JGE: Final = 0x35
_RET: Final = 0x06
_NEAR: Final = 255  # a conditional jump's reach
_LONGEST: Final = 4096  # BPF_MAXINSNS

_NARROW: Final = {
    "fcntl": {1},
    "ioctl": {1},
    "personality": {0},
    "prctl": {0},
    "socket": {0, 1, 2},
    "socketpair": {0, 1, 2},
}
"""Arguments that are 32 bits wide in the kernel, of calls whose filters matter."""

Code = list[tuple[int, int, int, int]]
"""Instructions: code, jump if true, jump if false, value."""


class Arch(NamedTuple):
    """`audit`: AUDIT_ARCH_…; `column`: its numbers in the table; `wide`: arguments have 64 bits."""

    audit: int
    column: str
    wide: bool


_ARCHES: Final = {
    "SCMP_ARCH_X86_64": Arch(0xC000003E, "x86_64", True),
    "SCMP_ARCH_X86": Arch(0x40000003, "x86", False),
    "SCMP_ARCH_AARCH64": Arch(0xC00000B7, "aarch64", True),
}
ARCHITECTURES: Final = frozenset((*_ARCHES, "SCMP_ARCH_X32"))
_X32: Final = Arch(0xC000003E, "x32", True)
_NATIVE: Final = {"x86_64": "SCMP_ARCH_X86_64", "aarch64": "SCMP_ARCH_AARCH64"}


class Condition(NamedTuple):
    """One entry of `args`."""

    argument: int
    op: str
    value: int
    value_two: int


class Case(NamedTuple):
    """An answer, given if all conditions hold. `narrow`: indices of arguments to compare as 32 bits."""

    conditions: tuple[Condition, ...]
    answer: int
    narrow: frozenset[int]


Outcome = int | tuple[tuple[Case, ...], int]
"""The answer for a call: always the same, or that of the first case that fits, else the last."""


def compile_rules(rules: Mapping[str, Any]) -> bytes:
    """An array of struct sock_filter. Errors: InvalidArgument."""
    numbers = load_numbers()
    default = _answer(str(rules.get("defaultAction", "")), rules.get("defaultErrnoRet"))
    names = dict.fromkeys([_NATIVE.get(uname().machine, ""), *(rules.get("architectures") or ())])
    code: Code = [(_LD, 0, 0, _AT_ARCH)]
    for name in names:
        if (arch := _ARCHES.get(name)) is not None:
            section = _section(rules, arch, numbers[arch.column], default)
            if name == "SCMP_ARCH_X86_64":
                other = _kill()
                if "SCMP_ARCH_X32" in names:
                    other = [(_SUB, 0, 0, _X32_BIT), *_section(rules, _X32, numbers[_X32.column], default)]
                section = _branch(_JGE, _X32_BIT, other, section)
            section = [(_LD, 0, 0, _AT_NUMBER), *section]
            code += _branch(_JEQ, arch.audit, section, [])
    code += _kill()
    if len(code) > _LONGEST:
        raise InvalidArgument(f"the seccomp rules need {len(code)} instructions; the kernel takes {_LONGEST}")
    return b"".join(struct.pack("<HBBI", *instruction) for instruction in code)


def _kill() -> Code:
    return [(_RET, 0, 0, _KILL_PROCESS)]


def _answer(action: str, number: Any) -> int:
    if action not in _RETURNS:
        raise InvalidArgument(f'seccomp action "{action}" is unknown')
    if action not in _WITH_NUMBER:
        return _RETURNS[action]
    return _RETURNS[action] | (_EPERM if number is None else int(number)) & 0xFFFF


def _branch(jump: int, value: int, yes: Code, no: Code) -> Code:
    """Code that goes to `yes` or `no`. Both end by returning, or fall through behind it all when `no` is empty."""
    if not no:
        return [(jump, 1, 0, value), (_JA, 0, 0, len(yes)), *yes]
    if len(no) <= _NEAR:
        return [(jump, len(no), 0, value), *no, *yes]
    return [(jump, 0, 1, value), (_JA, 0, 0, len(no)), *no, *yes]


def _section(rules: Mapping[str, Any], arch: Arch, numbers: Mapping[str, int], default: int) -> Code:
    """The search through one architecture's numbers."""
    outcomes = _outcomes(rules, arch, numbers, default)
    ranges: list[tuple[int, Outcome]] = [(0, default)]
    for number in sorted(outcomes):
        _extend(ranges, number, outcomes[number])
        _extend(ranges, number + 1, default)
    if outcomes and default not in _PERMISSIVE:
        # Calls newer than the profile: a libc that tries one falls back on ENOSYS, but not on EPERM (as runc does).
        _extend(
            ranges,
            max(numbers[name] for name in _named(rules) if name in numbers) + 1,
            _RETURNS["SCMP_ACT_ERRNO"] | _ENOSYS,
        )
    return _search(ranges, 0, len(ranges))


def _extend(ranges: list[tuple[int, Outcome]], start: int, outcome: Outcome) -> None:
    if ranges[-1][0] == start:
        ranges.pop()
    if not ranges or ranges[-1][1] != outcome:
        ranges.append((start, outcome))


def _search(ranges: Sequence[tuple[int, Outcome]], low: int, high: int) -> Code:
    if high - low == 1:
        return _leaf(ranges[low][1])
    middle = (low + high) // 2
    return _branch(_JGE, ranges[middle][0], _search(ranges, middle, high), _search(ranges, low, middle))


def _named(rules: Mapping[str, Any]) -> set[str]:
    return {name for entry in rules.get("syscalls") or () for name in entry.get("names") or ()}


def _outcomes(rules: Mapping[str, Any], arch: Arch, numbers: Mapping[str, int], default: int) -> dict[int, Outcome]:
    """The answer for each number that does not simply get the default."""
    cases: dict[int, list[Case]] = {}
    for entry in rules.get("syscalls") or ():
        answer = _answer(str(entry.get("action", "")), entry.get("errnoRet"))
        if answer == default:
            continue
        alternatives = _alternatives([_condition(argument) for argument in entry.get("args") or ()])
        for name in entry.get("names") or ():
            number = numbers.get(name)
            if number is not None:
                narrow = frozenset(_NARROW.get(name, ()) if arch.wide else range(6))
                cases.setdefault(number, []).extend(Case(conditions, answer, narrow) for conditions in alternatives)
    return {number: _outcome(found, default) for number, found in cases.items()}


def _outcome(cases: Sequence[Case], default: int) -> Outcome:
    last = next((case.answer for case in cases if not case.conditions), default)
    conditional = tuple(case for case in cases if case.conditions and case.answer != last)
    return (conditional, last) if conditional else last


def _condition(argument: Mapping[str, Any]) -> Condition:
    index, op = int(argument.get("index", 0)), str(argument.get("op", ""))
    if not 0 <= index <= 5 or op not in _TESTS:
        raise InvalidArgument(
            f'seccomp condition on argument {index} with "{op}": arguments are 0 to 5, operators {", ".join(_TESTS)}'
        )
    mask = (1 << 64) - 1
    return Condition(index, op, int(argument.get("value") or 0) & mask, int(argument.get("valueTwo") or 0) & mask)


def _alternatives(conditions: Sequence[Condition]) -> list[tuple[Condition, ...]]:
    """Conditions hold together, but two on one argument are alternatives (libseccomp's old rule, kept by runc)."""
    indices = [condition.argument for condition in conditions]
    if len(set(indices)) < len(indices):
        return [(condition,) for condition in conditions]
    return [tuple(conditions)]


def _leaf(outcome: Outcome) -> Code:
    if isinstance(outcome, int):
        return [(_RET, 0, 0, outcome)]
    cases, last = outcome
    code: Code = []
    for case in cases:
        code += _case(case)
    return [*code, (_RET, 0, 0, last)]


def _case(case: Case) -> Code:
    """Falls through behind itself when a condition does not hold."""
    code: Code = [(_RET, 0, 0, case.answer)]
    for condition in reversed(case.conditions):
        code = _test(condition, narrow=condition.argument in case.narrow, rest=len(code)) + code
    return code


# For each operator: tests of the upper half, then of the lower. A test is (jump, if true, if false), where "go" is on to
# the next test, "yes" and "no" decide the condition.
_TESTS: Final[Mapping[str, tuple[Sequence[tuple[int, str, str]], tuple[int, str, str]]]] = {
    "SCMP_CMP_EQ": (((_JEQ, "go", "no"),), (_JEQ, "yes", "no")),
    "SCMP_CMP_NE": (((_JEQ, "go", "yes"),), (_JEQ, "no", "yes")),
    "SCMP_CMP_GE": (((_JGT, "yes", "go"), (_JEQ, "go", "no")), (_JGE, "yes", "no")),
    "SCMP_CMP_GT": (((_JGT, "yes", "go"), (_JEQ, "go", "no")), (_JGT, "yes", "no")),
    "SCMP_CMP_LT": (((_JGT, "no", "go"), (_JEQ, "go", "yes")), (_JGE, "no", "yes")),
    "SCMP_CMP_LE": (((_JGT, "no", "go"), (_JEQ, "go", "yes")), (_JGT, "no", "yes")),
    "SCMP_CMP_MASKED_EQ": (((_JEQ, "go", "no"),), (_JEQ, "yes", "no")),
}

OPERATORS: Final = frozenset(_TESTS)


def _test(condition: Condition, *, narrow: bool, rest: int) -> Code:
    """Code that falls through when the condition holds, else jumps over the `rest` instructions behind it."""
    masked = condition.op == "SCMP_CMP_MASKED_EQ"
    mask, value = (condition.value, condition.value_two) if masked else ((1 << 64) - 1, condition.value)
    upper, lower = _TESTS[condition.op]
    steps: list[tuple[int, str, str, int]] = []
    for high, tests in ((True, upper), (False, (lower,))):
        if high and (narrow or (masked and not mask >> 32 and not value >> 32)):
            continue
        shift = 32 if high else 0
        steps.append((_LD, "go", "go", _AT_ARGS + 8 * condition.argument + (4 if high else 0)))
        if masked:
            steps.append((_AND, "go", "go", mask >> shift & 0xFFFFFFFF))
        steps += [(jump, true, false, value >> shift & 0xFFFFFFFF) for jump, true, false in tests]
    code: Code = []
    for index, (instruction, true, false, operand) in enumerate(steps):
        behind = len(steps) - index - 1
        offsets = {"go": 0, "yes": behind, "no": behind + rest}
        code.append((instruction, offsets[true], offsets[false], operand))
    return code
