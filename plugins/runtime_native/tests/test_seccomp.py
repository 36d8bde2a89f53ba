"""Seccomp programs, by a small interpreter of classic BPF and by the kernel."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wharfie_runtime_native.seccomp import _program
from wharfie_runtime_native.seccomp.numbers import load_numbers
from wharfie_runtime_native.seccomp.program import compile_rules

from wharfie.engine.spec.seccomp import default_profile, oci_seccomp
from wharfie.spi.errors import InvalidArgument

X86_64, X86, ARM = 0xC000003E, 0x40000003, 0x40000028
X32 = 0x40000000
ALLOW, EPERM, ENOSYS, KILL = 0x7FFF0000, 0x00050001, 0x00050026, 0x80000000
ARCHES = ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]
NUMBERS = load_numbers()


def interpret(program: bytes, number: int, arch: int = X86_64, args=()) -> int:
    """What the kernel would return (Documentation/networking/filter.rst)."""
    data = struct.pack(
        "<iIQ6Q", number if number < 1 << 31 else number - (1 << 32), arch, 0, *(*args, *[0] * (6 - len(args)))
    )
    code = list(struct.iter_unpack("<HBBI", program))
    at = accumulator = 0
    while True:
        instruction, true, false, value = code[at]
        at += 1
        if instruction == 0x20:
            (accumulator,) = struct.unpack_from("<I", data, value)
        elif instruction == 0x54:
            accumulator &= value
        elif instruction == 0x14:
            accumulator = accumulator - value & 0xFFFFFFFF
        elif instruction == 0x05:
            at += value
        elif instruction == 0x06:
            return value
        else:
            holds = {0x15: accumulator == value, 0x25: accumulator > value, 0x35: accumulator >= value}[instruction]
            at += true if holds else false


def rules(*entries, default="SCMP_ACT_ERRNO", arches=ARCHES):
    return {"defaultAction": default, "defaultErrnoRet": 1, "architectures": arches, "syscalls": list(entries)}


def allow(*names, **more):
    return {"names": list(names), "action": "SCMP_ACT_ALLOW", **more}


def argument(index, op, value, two=0):
    return {"index": index, "op": f"SCMP_CMP_{op}", "value": value, "valueTwo": two}


def test_names_become_each_architectures_numbers():
    program = compile_rules(rules(allow("read", "socket", "mmap2", "no_such_call", "file_setattr")))
    assert interpret(program, 0) == ALLOW
    assert interpret(program, 41) == ALLOW
    assert interpret(program, 2) == EPERM
    assert interpret(program, 3, X86) == ALLOW
    assert interpret(program, 359, X86) == ALLOW
    assert interpret(program, 192, X86) == ALLOW
    assert interpret(program, 0, X86) == EPERM
    assert interpret(program, X32 + 0) == ALLOW
    assert interpret(program, X32 + 2) == EPERM


def test_numbers_beyond_the_profile_are_not_implemented():
    """A libc that probes a new call falls back on ENOSYS; EPERM would end it (runc does the same)."""
    program = compile_rules(rules(allow("read", "openat2")))
    assert interpret(program, 436) == EPERM
    assert interpret(program, 438) == ENOSYS
    assert interpret(program, 0xFFFFFFFF) == ENOSYS
    assert interpret(compile_rules(rules(default="SCMP_ACT_ALLOW")), 9999) == ALLOW


def test_architectures_that_are_not_listed_are_killed():
    program = compile_rules(rules(allow("read"), arches=["SCMP_ARCH_X86_64"]))
    assert interpret(program, 3, X86) == KILL
    assert interpret(program, 3, ARM) == KILL
    assert interpret(program, X32) == KILL
    assert interpret(program, 0) == ALLOW


def test_the_native_architecture_needs_no_mention():
    assert interpret(compile_rules(rules(allow("read"), arches=[])), 0) == ALLOW


OPS = {
    "EQ": lambda found, value, two: found == value,
    "NE": lambda found, value, two: found != value,
    "LT": lambda found, value, two: found < value,
    "LE": lambda found, value, two: found <= value,
    "GT": lambda found, value, two: found > value,
    "GE": lambda found, value, two: found >= value,
    "MASKED_EQ": lambda found, value, two: found & value == two,
}
EDGES = st.sampled_from([0, 1, 5, (1 << 32) - 1, 1 << 32, (1 << 32) + 5, (1 << 63) + 1, (1 << 64) - 1])
WORDS = EDGES | st.integers(0, (1 << 64) - 1)


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(sorted(OPS)), WORDS, WORDS, WORDS, st.integers(0, 5))
def test_comparisons_of_64_bits(op, value, two, found, index):
    program = compile_rules(rules(allow("read", args=[argument(index, op, value, two)])))
    args = [found if position == index else 77 for position in range(6)]
    assert interpret(program, 0, args=args) == (ALLOW if OPS[op](found, value, two) else EPERM)


def test_conditions_of_one_rule_hold_together_but_alternate_on_one_argument():
    program = compile_rules(
        rules(
            allow("read", args=[argument(0, "EQ", 1), argument(1, "GT", 5)]),
            allow("write", args=[argument(0, "EQ", 1), argument(0, "EQ", 2)]),
        )
    )
    assert interpret(program, 0, args=[1, 6]) == ALLOW
    assert interpret(program, 0, args=[1, 5]) == EPERM
    assert interpret(program, 0, args=[2, 6]) == EPERM
    assert [interpret(program, 1, args=[value]) for value in (1, 2, 3)] == [ALLOW, ALLOW, EPERM]


def test_conditional_rules_come_before_the_unconditional_one():
    refuse = {"names": ["read"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5, "args": [argument(0, "EQ", 9)]}
    program = compile_rules(rules(allow("read"), refuse))
    assert interpret(program, 0, args=[9]) == 0x00050005
    assert interpret(program, 0, args=[8]) == ALLOW


def test_upper_halves_do_not_smuggle_values_past_32_bit_arguments():
    program = compile_rules(rules(allow("socket", args=[argument(0, "NE", 40)])))
    assert interpret(program, 41, args=[2]) == ALLOW
    assert interpret(program, 41, args=[40]) == EPERM
    assert interpret(program, 41, args=[40 + (1 << 32)]) == EPERM


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(sorted(NUMBERS["x86_64"])), max_size=60), st.sampled_from(["x86_64", "x86", "x32"]))
def test_search_finds_every_number(names, column):
    program = compile_rules(rules(allow(*names)))
    arch, bit = (X86, 0) if column == "x86" else (X86_64, X32 if column == "x32" else 0)
    allowed = {NUMBERS[column][name] for name in names if name in NUMBERS[column]}
    for number in range(max(allowed, default=-1) + 1):
        assert interpret(program, number + bit, arch) == (ALLOW if number in allowed else EPERM)


@pytest.mark.parametrize(
    ("change", "kind", "word"),
    [
        ({"defaultAction": "SCMP_ACT_SHRUG"}, InvalidArgument, "SHRUG"),
        ({"syscalls": [allow("read", args=[argument(6, "EQ", 1)])]}, InvalidArgument, "argument 6"),
        ({"syscalls": [allow("read", args=[argument(0, "ABOUT", 1)])]}, InvalidArgument, "ABOUT"),
    ],
)
def test_nonsense_is_refused(change, kind, word):
    with pytest.raises(kind, match=word):
        compile_rules({**rules(), **change})


def test_programs_are_kept_by_their_rules(tmp_path):
    first = _program(rules(allow("read")), tmp_path)
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes().removesuffix(first) + b"kept")
    assert _program(rules(allow("read")), tmp_path) == b"kept"
    assert _program(rules(allow("write")), tmp_path) != first
    assert _program(rules(allow("read")), tmp_path / "missing") == first


def test_a_kept_program_for_other_rules_is_not_used(tmp_path):
    first = _program(rules(allow("read")), tmp_path)
    (file,) = tmp_path.iterdir()
    for damaged in (b"", b"short", file.read_bytes().replace(b"read", b"open")):
        file.write_bytes(damaged)
        assert _program(rules(allow("read")), tmp_path) == first


PROFILE = rules(
    allow(*[name for name in NUMBERS["x86_64"] if name not in ("mkdir", "mount", "unshare", "socket", "chroot", "keyctl")]),
    allow("socket", args=[argument(0, "LT", 38)]),
)


@pytest.mark.parametrize("user", [0, 1000])
@pytest.mark.parametrize("no_new_privileges", [False, True])
def test_kernel_applies_it_to_first_process_and_exec(bare, user, no_new_privileges):
    bare.spec["linux"]["seccomp"] = PROFILE
    bare.spec["process"].update(user={"uid": user, "gid": user}, noNewPrivileges=no_new_privileges)
    script = "grep Seccomp: /proc/self/status; mkdir /tmp/made; ip addr show lo > /dev/null && echo up"
    _, out, err = bare.run("sh", "-c", script)
    assert out == "Seccomp:\t2\nup\n"
    assert "Operation not permitted" in err
    bare.call("delete")
    bare.sleeping()
    assert bare.exec("sh", "-c", script)[1:] == [out, err]


def test_init_is_filtered_too(bare):
    bare.spec["linux"]["seccomp"] = PROFILE
    bare.spec["annotations"] = {"org.wharfie.init": "true"}
    assert bare.sh("grep -h Seccomp: /proc/1/status /proc/self/status") == "Seccomp:\t2\nSeccomp:\t2\n"


def test_killed_by_the_filter(bare):
    bare.spec["linux"]["seccomp"] = rules(
        {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_KILL_PROCESS"}, default="SCMP_ACT_ALLOW"
    )
    assert bare.run("mkdir", "/tmp/x")[0] == -31  # SIGSYS


def test_compiling_leaves_nothing_in_the_shim(bare):
    bare.spec["linux"]["seccomp"] = rules(allow(*NUMBERS["x86_64"]))
    bare.sleeping()
    bare.exec("true")
    assert not [name for name in bare.call("modules") if name.endswith(("seccomp.program", "seccomp.numbers"))]


# Docker's default profile: refused in each of the machine's three sets of calls

REFUSED = """
    acct add_key bpf clock_settime create_module delete_module finit_module get_kernel_syms init_module io_uring_setup
    io_uring_enter io_uring_register ioperm iopl kcmp kexec_file_load kexec_load keyctl lookup_dcookie mount mount_setattr
    move_mount nfsservctl open_by_handle_at open_tree perf_event_open pivot_root process_madvise quotactl reboot
    request_key set_mempolicy setns settimeofday swapoff swapon sysfs umount2 unshare uselib userfaultfd ustat vhangup
""".split()  # noqa: SIM905  # a list of names
CAPABILITIES = frozenset(
    f"CAP_{name}"
    for name in """
        CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE SYS_CHROOT
        KILL AUDIT_WRITE
    """.split()  # noqa: SIM905
)


@pytest.mark.parametrize(("column", "arch", "bit"), [("x86_64", X86_64, 0), ("x86", X86, 0), ("x32", X86_64, X32)])
def test_default_profile(column, arch, bit):
    program = compile_rules(oci_seccomp(default_profile(), CAPABILITIES, "amd64", (6, 1)))
    numbers = load_numbers()[column]

    def ask(name, *args):
        return interpret(program, numbers[name] + bit, arch, args)

    assert {name for name in REFUSED if name in numbers and ask(name) != EPERM} == set()
    assert ask("clone3") == ENOSYS
    assert ask("clone", 0x10000000) == EPERM  # CLONE_NEWUSER
    assert ask("clone", 0x00010F00) == 0x7FFF0000
    for family in (38, 40, 38 + (1 << 32)):  # AF_ALG (CVE-2026-31431), AF_VSOCK
        assert ask("socket", family) == EPERM
    for family in (1, 2, 10, 16, 17, 39, 41):
        assert ask("socket", family) == 0x7FFF0000
    assert ask("personality", 0x0040000) == EPERM  # ADDR_NO_RANDOMIZE
    assert ask("read") == ask("openat2") == 0x7FFF0000


def test_profile_is_small_enough_and_found_in_the_kernel(bare):
    bare.spec["linux"]["seccomp"] = oci_seccomp(default_profile(), CAPABILITIES, "amd64", (6, 1))
    code, out, _ = bare.run(
        "sh", "-c", "unshare -U true 2>&1; mount -t tmpfs x /tmp 2>&1; grep Seccomp_filters /proc/self/status"
    )
    assert (code, out.split()[-1]) == (0, "1")
    assert out.count("not permitted") + out.count("permission denied") >= 1
