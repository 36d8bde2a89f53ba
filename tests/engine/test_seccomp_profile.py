"""Docker's seccomp profiles become OCI's, by capability, architecture and kernel."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from wharfie.engine.spec.seccomp import default_profile, oci_seccomp
from wharfie.spi.errors import InvalidArgument

DEFAULT_CAPABILITIES = frozenset(
    f"CAP_{name}"
    for name in ("CHOWN", "DAC_OVERRIDE", "FSETID", "FOWNER", "MKNOD", "NET_RAW", "SETGID", "SETUID", "SETFCAP", "SETPCAP")
) | {"CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE"}


def default(capabilities=DEFAULT_CAPABILITIES, architecture="amd64", kernel=(6, 1)):
    return oci_seccomp(default_profile(), capabilities, architecture, kernel)


def rules_for(oci, name):
    return [rule for rule in oci["syscalls"] if name in rule["names"]]


def test_default_container():
    oci = default()
    assert oci["defaultAction"] == "SCMP_ACT_ERRNO"
    assert oci["defaultErrnoRet"] == 1
    assert oci["architectures"] == ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]
    assert not rules_for(oci, "mount")
    assert not rules_for(oci, "bpf")
    assert rules_for(oci, "chroot") == [{"names": ["chroot"], "action": "SCMP_ACT_ALLOW"}]
    assert rules_for(oci, "clone3") == [{"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}]
    assert rules_for(oci, "clone") == [
        {
            "names": ["clone"],
            "action": "SCMP_ACT_ALLOW",
            "args": [{"index": 0, "value": 0x7E020000, "op": "SCMP_CMP_MASKED_EQ"}],
        }
    ]


def test_rules_of_docker_itself_are_kept_whole():
    """The unconditional list and the order are those that dockerd 26 wrote, but for the sockets."""
    oci = default()
    assert len(rules_for(oci, "read")[0]["names"]) == 361
    assert [rule["names"] for rule in oci["syscalls"][1:]] == [
        ["process_vm_readv", "process_vm_writev", "ptrace"],
        *[["socket"]] * 3,
        *[["personality"]] * 5,
        ["arch_prctl"],
        ["modify_ldt"],
        ["clone"],
        ["clone3"],
        ["chroot"],
    ]
    assert all(set(rule) <= {"names", "action", "args", "errnoRet"} for rule in oci["syscalls"])


def test_sockets_of_vsock_and_crypto_api_are_refused():
    conditions = [rule["args"][0] for rule in rules_for(default(), "socket")]
    assert [(condition["op"], condition["value"]) for condition in conditions] == [
        ("SCMP_CMP_LT", 38),
        ("SCMP_CMP_EQ", 39),
        ("SCMP_CMP_GT", 40),
    ]


def test_capabilities_open_and_close_rules():
    oci = default(DEFAULT_CAPABILITIES | {"CAP_SYS_ADMIN"})
    assert rules_for(oci, "mount")
    assert all("args" not in rule for rule in rules_for(oci, "clone"))
    assert all(rule["action"] == "SCMP_ACT_ALLOW" for rule in rules_for(oci, "clone3"))
    assert not rules_for(default(frozenset()), "chroot")


def test_architecture_and_kernel():
    oci = default(architecture="arm64", kernel=(4, 7))
    assert oci["architectures"] == ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]
    assert rules_for(oci, "set_tls")
    assert not rules_for(oci, "arch_prctl")
    assert not rules_for(oci, "ptrace")
    assert rules_for(default(kernel=(4, 8)), "ptrace")


def test_a_plain_oci_profile_passes_through():
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [{"name": "mkdir", "action": "SCMP_ACT_ERRNO", "errnoRet": 13, "args": []}],
    }
    assert oci_seccomp(profile, frozenset(), "amd64", (6, 1)) == {
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13, "args": []}],
    }


@pytest.mark.parametrize(
    ("profile", "word"),
    [
        ({}, "defaultAction"),
        ({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["x"], "archMap": [{}]}, "archMap"),
        ({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"name": "a", "names": ["b"]}]}, "'name' and 'names'"),
        (
            {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["b"], "includes": {"minKernel": "new"}}]},
            "minKernel",
        ),
    ],
)
def test_nonsense_is_refused(profile, word):
    with pytest.raises(InvalidArgument, match=word):
        oci_seccomp(profile, frozenset(), "amd64", (6, 1))


def test_the_profile_is_valid_json_with_its_licence_noted():
    root = Path(__file__).parents[2]
    text = (root / "core/wharfie/engine/spec/seccomp-default.json").read_text()
    assert json.loads(text) == default_profile()
    assert "seccomp-default.json" in (root / "NOTICE").read_text()
