"""Configurations with the wrong JSON in them: each is refused in one line that names the field, or makes sense after all.

A valid configuration with all that this runtime knows is changed at one place at a time, at every place and to everything.
WHARFIE_CONFIG_MUTATIONS=1000 has as many of these, taken at random, go through the command line itself.
"""

from __future__ import annotations

import copy
import json
import os
import random

import pytest
from wharfie_runtime_native import plan
from wharfie_runtime_native.cgroups import device_rules
from wharfie_runtime_native.command.bundle import read_config
from wharfie_runtime_native.command.fields import CONFIG, PROCESS, RESOURCES, check
from wharfie_runtime_native.seccomp.program import compile_rules

from wharfie.spi.errors import InvalidArgument, WharfieError

COUNT = int(os.environ.get("WHARFIE_CONFIG_MUTATIONS", "12"))
MAPPING = [{"containerID": 0, "hostID": 1000, "size": 10}]
WHOLE = {
    "ociVersion": "1.2.0",
    "root": {"path": "rootfs", "readonly": True},
    "hostname": "box",
    "domainname": "home",
    "process": {
        "terminal": False,
        "consoleSize": {"height": 24, "width": 80},
        "cwd": "/",
        "env": ["PATH=/bin"],
        "args": ["true"],
        "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 10, "hard": 20}],
        "apparmorProfile": "",
        "capabilities": {"bounding": ["CAP_KILL"], "effective": [], "ambient": []},
        "noNewPrivileges": True,
        "oomScoreAdj": 1,
        "scheduler": {"policy": "SCHED_OTHER", "nice": 1, "flags": ["SCHED_FLAG_RESET_ON_FORK"]},
        "selinuxLabel": "",
        "ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 4},
        "execCPUAffinity": {"initial": "0", "final": "0-1"},
        "user": {"uid": 1, "gid": 1, "umask": 18, "additionalGids": [2]},
    },
    "mounts": [
        {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid"]},
        {"destination": "/data", "source": "/tmp", "options": ["bind"], "uidMappings": MAPPING, "gidMappings": MAPPING},
    ],
    "hooks": {"poststop": [{"path": "/bin/true", "args": ["true"], "env": ["A=b"], "timeout": 3}]},
    "annotations": {"org.example.a": "b"},
    "linux": {
        "namespaces": [{"type": name} for name in ("mount", "pid", "network", "ipc", "uts", "user", "time")],
        "uidMappings": MAPPING,
        "gidMappings": MAPPING,
        "timeOffsets": {"monotonic": {"secs": 1, "nanosecs": 2}},
        "devices": [{"type": "c", "path": "/dev/x", "major": 1, "minor": 3, "fileMode": 438, "uid": 0, "gid": 0}],
        "cgroupsPath": "/box",
        "resources": {
            "devices": [{"allow": False, "access": "rwm", "type": "c", "major": 1, "minor": 2}],
            "memory": {"limit": 1 << 20, "swappiness": 1, "checkBeforeUpdate": False},
            "cpu": {"shares": 100, "quota": -1, "period": 1000, "cpus": "0"},
            "pids": {"limit": 5},
            "blockIO": {"weight": 10, "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 1}]},
            "hugepageLimits": [{"pageSize": "2MB", "limit": 0}],
            "network": {"classID": 1, "priorities": [{"name": "lo", "priority": 1}]},
            "rdma": {"mlx5_1": {"hcaHandles": 1}},
            "unified": {"memory.high": "1"},
        },
        "rootfsPropagation": "private",
        "maskedPaths": ["/proc/kcore"],
        "readonlyPaths": ["/proc/sys"],
        "mountLabel": "",
        "sysctl": {"net.core.somaxconn": "10"},
        "seccomp": {
            "defaultAction": "SCMP_ACT_ALLOW",
            "architectures": ["SCMP_ARCH_X86_64"],
            "flags": ["SCMP_ACT_LOG"][:0],
            "syscalls": [
                {
                    "names": ["mount"],
                    "action": "SCMP_ACT_ERRNO",
                    "errnoRet": 1,
                    "args": [{"index": 0, "value": 1, "valueTwo": 0, "op": "SCMP_CMP_EQ"}],
                }
            ],
        },
        "personality": {"domain": "LINUX", "flags": []},
    },
}
VALUES = [None, True, 0, -1, 1.5, 1 << 70, "", "x", "a\0b", "\ud800", [], [None], [[]], ["x"], {}, {"x": 1}, {"\0": "x"}]
GONE = object()


def places(value, path=()):
    """The path of everything in a document."""
    if path:
        yield path
    keys = value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield from places(value[key], (*path, key))


PLACES = sorted(places(WHOLE), key=str)


def changed(path, value):
    document = copy.deepcopy(WHOLE)
    *above, last = path
    parent = document
    for key in above:
        parent = parent[key]
    if value is GONE:
        del parent[last]
    else:
        parent[last] = value
    return document


def read(document):
    """All that is read of a configuration before anything is made."""
    check(document, CONFIG, "")
    parsed = plan.parse(document)
    device_rules.effective(parsed.resources.get("devices") or ())
    if parsed.seccomp is not None:
        compile_rules(parsed.seccomp)


def test_the_whole_one_is_right():
    read(WHOLE)


@pytest.mark.parametrize("top", sorted(WHOLE))
def test_no_change_is_told_in_pythons_words(top):
    for path in PLACES:
        for value in (GONE, *VALUES) if path[0] == top else ():
            try:
                read(changed(path, value))
            except WharfieError as error:
                assert len(error.message.splitlines()) == 1, (path, value)
            except Exception as error:
                raise AssertionError(f"{path} = {value!r}") from error


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("process", "args"), "true", "process.args: expected an array of strings, found a string"),
        (("process", "args", 0), 5, "process.args[0]: expected a string, found a number"),
        (("process", "args", 0), None, "process.args[0]: expected a string, found null"),
        (("process", "terminal"), "yes", "process.terminal: expected true or false, found a string"),
        (("process", "user", "uid"), -1, "process.user.uid: expected an integer from 0 to 4294967295, found -1"),
        (
            ("process", "user", "uid"),
            True,
            "process.user.uid: expected an integer from 0 to 4294967295, found true or false",
        ),
        (("process", "consoleSize", "width"), 1 << 16, "expected an integer from 0 to 65535, found 65536"),
        (("mounts",), {}, "mounts: expected an array of objects, found an object"),
        (("mounts", 1, "options"), [["ro"]], "mounts[1].options[0]: expected a string, found an array"),
        (
            ("linux", "sysctl", "net.core.somaxconn"),
            10,
            'linux.sysctl["net.core.somaxconn"]: expected a string, found a num',
        ),
        (("hostname",), "a\0b", "hostname: a string here cannot have a NUL character in it"),
        (("hostname",), "\ud800", "hostname: the string is no valid Unicode"),
        (("annotations",), {"a\0": "b"}, "a key of annotations: a string here cannot have a NUL character in it"),
        (("root",), "rootfs", "root: expected an object, found a string"),
        (("hooks", "poststop", 0, "timeout"), 1.5, "hooks.poststop[0].timeout: expected an integer from -2147483648 to"),
    ],
)
def test_the_field_is_named(tmp_path, path, value, message):
    (tmp_path / "config.json").write_text(json.dumps(changed(path, value)))
    with pytest.raises(InvalidArgument) as refused:
        read_config(str(tmp_path))
    assert message in refused.value.message


def test_a_field_of_another_version_is_left_alone():
    check({**WHOLE, "zos": 1, "linux": {**WHOLE["linux"], "netDevices": None}}, CONFIG, "")


def test_processes_and_resources_from_files_are_checked_too(runtime, tmp_path):
    name, _ = runtime.running()
    file = tmp_path / "file.json"
    for kind, word, document, message in (
        (PROCESS, "exec --process", {"args": "true"}, "process.args: expected an array of strings"),
        (RESOURCES, "update --resources", {"pids": 5}, "resources.pids: expected an object, found a number"),
    ):
        with pytest.raises(InvalidArgument):
            check(document, kind, "")
        file.write_text(json.dumps(document))
        command = word.split()[0]
        assert message in runtime.fails(*word.split(), file, name, code=255 if command == "exec" else 1)


def test_the_command_line_says_one_line(runtime):
    chance = random.Random(COUNT)
    known = [path for path in places(runtime.spec) if path[0] != "ociVersion"]
    kept = copy.deepcopy(runtime.spec)
    for number in range(COUNT):
        path, value = chance.choice(known), chance.choice(VALUES)
        runtime.spec = copy.deepcopy(kept)
        name = runtime.new("true")
        parent = runtime.spec
        for key in path[:-1]:
            parent = parent[key]
        parent[path[-1]] = value
        runtime.save()
        done = runtime.call("run", "--bundle", runtime.bundle, name)
        what = (number, path, value, done.stderr)
        assert done.returncode == 0 or len(done.stderr.splitlines()) == 1, what
        assert not any(word in done.stderr for word in ("Traceback", "TypeError", "ValueError", "KeyError", "Attribute")), (
            what
        )
    runtime.spec = kept
