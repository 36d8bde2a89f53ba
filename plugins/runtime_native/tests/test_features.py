"""The table of abilities says what the modules do."""

from __future__ import annotations

import json

import pytest
from wharfie_runtime_native import mounts, seccomp
from wharfie_runtime_native.features import ID_MAPPED_MOUNTS, features
from wharfie_runtime_native.seccomp.program import compile_rules


@pytest.fixture(scope="module")
def told():
    return json.loads(json.dumps(features()))


def test_has_the_versions_that_the_document_must_have(told):
    assert (told["ociVersionMin"], told["ociVersionMax"]) == ("1.0.0", "1.2.0")


def test_each_mount_option_is_no_file_systems(told):
    for option in told["mountOptions"]:
        kind = "bind" if option in ("idmap", "ridmap") else "tmpfs"
        entry = {"destination": "/x", "type": kind, "source": "tmpfs", "options": [option]}
        assert not mounts.parse(entry).data, option
    assert ("idmap" in told["mountOptions"]) == ID_MAPPED_MOUNTS


def test_each_seccomp_word_compiles(told):
    rules = told["linux"]["seccomp"]
    for action in rules["actions"]:
        for operator in rules["operators"]:
            call = {"names": ["dup"], "action": action, "args": [{"index": 0, "value": 1, "op": operator}]}
            assert compile_rules(
                {"defaultAction": "SCMP_ACT_ALLOW", "architectures": rules["archs"], "syscalls": [call]}
            ), (action, operator)
    assert rules["supportedFlags"] == sorted(seccomp.FLAGS)
