"""What the program finds itself to be: user, capabilities, limits, directory, environment, descriptors."""

from __future__ import annotations

import resource

import pytest
from wharfie_runtime_native import plan

from wharfie.spi.errors import InvalidArgument, Unsupported

STATUS = "grep -E '^(Cap|NoNewPrivs|Seccomp:|Groups|Uid|SigIgn|SigBlk)' /proc/self/status"


def status(text):
    return {line.split(":")[0]: line.split(":", 1)[1].split() for line in text.splitlines() if ":" in line}


def test_default_capabilities(bare):
    found = status(bare.sh(STATUS))
    assert found["CapEff"] == found["CapPrm"] == found["CapBnd"] == ["00000000a80425fb"]
    assert found["CapInh"] == found["CapAmb"] == ["0000000000000000"]
    assert found["NoNewPrivs"] == ["0"]


def test_another_user_has_no_capabilities_but_the_bounding_set(bare):
    bare.spec["process"]["user"] = {"uid": 1000, "gid": 1001, "additionalGids": [1001, 5, 7]}
    found = status(bare.sh(STATUS))
    assert found["CapEff"] == found["CapPrm"] == ["0000000000000000"]
    assert found["CapBnd"] == ["00000000a80425fb"]
    assert found["Uid"] == ["1000"] * 4
    assert found["Groups"] == ["5", "7", "1001"]


def test_ambient_capabilities_reach_another_user(bare):
    bare.spec["process"]["user"] = {"uid": 1000, "gid": 1000}
    kept = ["CAP_NET_BIND_SERVICE"]
    bare.spec["process"]["capabilities"] = dict.fromkeys(
        ("bounding", "permitted", "effective", "inheritable", "ambient"), kept
    )
    found = status(bare.sh(STATUS))
    assert found["CapAmb"] == found["CapEff"] == found["CapBnd"] == ["0000000000000400"]


def test_no_capabilities_at_all(bare):
    bare.spec["process"]["capabilities"] = {}
    assert status(bare.sh(STATUS))["CapBnd"] == ["0000000000000000"]


def test_capability_that_the_engine_lacks_is_named(bare):
    bare.spec["process"]["capabilities"] = {"bounding": ["CAP_SYS_RESOURCE"], "permitted": ["CAP_SYS_RESOURCE"]}
    with open("/proc/self/status") as own:
        if int(next(line for line in own if line.startswith("CapPrm")).split()[1], 16) >> 24 & 1:
            pytest.skip("this machine has CAP_SYS_RESOURCE")
    with pytest.raises(InvalidArgument, match="cannot give CAP_SYS_RESOURCE"):
        bare.create("true")


def test_signals_are_as_a_program_expects(bare):
    found = status(bare.sh(STATUS))
    assert found["SigBlk"] == ["0000000000000000"]
    assert int(found["SigIgn"][0], 16) & ~0b110 == 0  # sh itself may ignore INT and QUIT for nothing else


def test_no_new_privileges(bare):
    bare.spec["process"]["noNewPrivileges"] = True
    assert status(bare.sh(STATUS))["NoNewPrivs"] == ["1"]


@pytest.mark.parametrize("user", [{"uid": 0, "gid": 0}, {"uid": 1000, "gid": 1000}])
@pytest.mark.parametrize("terminal", [False, True])
def test_only_three_descriptors_are_open(bare, user, terminal):
    bare.spec["process"]["user"] = user
    assert bare.run("ls", "/proc/self/fd", terminal=terminal)[1].split() == ["0", "1", "2", "3"]  # 3 is ls's own
    code, out, *_ = bare.run("readlink", "/proc/self/cwd", terminal=terminal)
    assert (code, out.strip()) == (0, "/")


def test_environment_directory_umask(bare):
    bare.spec["process"]["env"] = ["PATH=/bin", "A=1", "B=x=y", "A=2", "EMPTY="]
    bare.spec["process"]["cwd"] = "/data"
    code, out, _ = bare.run("sh", "-c", "env | sort; pwd; umask")
    assert code == 0
    assert {"A=2", "B=x=y", "EMPTY=", "/data", "0022"} <= set(out.split())


def test_directory_is_made(bare):
    bare.spec["process"]["cwd"] = "/srv/app/deep"
    assert bare.run("pwd")[1] == "/srv/app/deep\n"
    made = (bare.root / "srv/app").stat()
    assert (made.st_mode & 0o7777, made.st_uid) == (0o755, 0)


def test_directory_is_made_on_a_read_only_root(bare):
    bare.spec["process"]["cwd"] = "/made"
    bare.spec["root"]["readonly"] = True
    assert bare.run("sh", "-c", "pwd; touch x; echo $?")[1] == "/made\n1\n"


def test_directory_that_the_user_may_not_enter_is_entered_by_the_engine(bare):
    (bare.root / "data").chmod(0o700)
    bare.spec["process"].update(cwd="/data", user={"uid": 1000, "gid": 1000})
    bare.spec["process"]["capabilities"] = {}
    assert bare.run("readlink", "/proc/self/cwd")[1] == "/data\n"


def test_limits(bare):
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    bare.spec["process"]["rlimits"] = [
        {"type": "RLIMIT_NOFILE", "soft": 100, "hard": min(hard, 200)},
        {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
    ]
    assert bare.sh("ulimit -Sn; ulimit -Hn; ulimit -c").split() == ["100", str(min(hard, 200)), "0"]


def test_limit_above_the_hard_one_is_named(bare):
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    bare.spec["process"]["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": hard + 1, "hard": hard + 1}]
    # With CAP_SYS_RESOURCE the kernel's own bound (fs.nr_open) is what refuses.
    bare.spec["process"]["rlimits"][0].update(soft=1 << 40, hard=1 << 40)
    with pytest.raises(InvalidArgument, match="RLIMIT_NOFILE to soft 1099511627776"):
        bare.create("true")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["nosuch"], 'exec: "nosuch": executable file not found in $PATH'),
        (["/no/such"], 'exec: "/no/such": stat /no/such: no such file or directory'),
        (["./nosuch"], 'exec: "./nosuch": stat ./nosuch: no such file or directory'),
        (["/etc/passwd"], 'exec: "/etc/passwd": permission denied'),
        (["/tmp"], 'exec: "/tmp": is a directory'),
        (["/etc/passwd/x"], 'exec: "/etc/passwd/x": stat /etc/passwd/x: not a directory'),
    ],
)
def test_program_that_cannot_be_executed(bare, args, message):
    """The words are runc's: the docker CLI chooses its exit code by them."""
    with pytest.raises(InvalidArgument) as caught:
        bare.create(*args)
    assert caught.value.message == message


def test_program_is_looked_up_in_the_containers_path(bare):
    bare.spec["process"]["env"] = ["PATH=/nowhere:/data"]
    (bare.root / "data/tool").symlink_to("/bin/busybox")
    (bare.root / "data/tool").unlink()
    (bare.root / "data/tool").write_text("#!/bin/sh\necho found $0 $1\n")
    (bare.root / "data/tool").chmod(0o755)
    assert bare.run("tool", "x")[1] == "found /data/tool x\n"


def test_script_without_an_interpreter(bare):
    (bare.root / "bin/script").write_text("#!/no/such\n")
    (bare.root / "bin/script").chmod(0o755)
    bare.create("script")
    with pytest.raises(InvalidArgument, match=r"no such file or directory$"):
        bare.call("start")


def test_oom_score(bare):
    bare.spec["process"]["oomScoreAdj"] = 555
    assert bare.sh("cat /proc/self/oom_score_adj") == "555\n"


def test_user_may_reopen_its_streams(bare):
    bare.spec["process"]["user"] = {"uid": 1000, "gid": 1000}
    assert bare.run("sh", "-c", "echo out > /dev/stdout; echo err > /dev/stderr")[1:] == ["out\n", "err\n"]


def test_keyring_is_not_the_engines(bare):
    assert "_ses" not in bare.sh("cat /proc/keys 2>/dev/null || true")


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"args": []}, "process.args"),
        ({"cwd": "here"}, "not absolute"),
        ({"env": ["NOVALUE"]}, "NOVALUE"),
        ({"args": ["a\0b"]}, "NUL"),
        ({"user": {"uid": 4294967295, "gid": 0}}, "uid 4294967295"),
        ({"user": {"uid": -1, "gid": 0}}, "uid -1"),
        ({"user": {"uid": 0, "gid": 4294967296}}, "gid 4294967296"),
        ({"rlimits": [{"type": "RLIMIT_X", "soft": 1, "hard": 1}]}, "RLIMIT_X"),
        ({"rlimits": [{"type": "RLIMIT_CORE", "soft": 2, "hard": 1}]}, "soft 2 above hard 1"),
        ({"capabilities": {"bounding": ["CAP_FLY"]}}, "CAP_FLY"),
    ],
)
def test_bad_process_is_refused_before_anything_is_made(bare, change, word):
    bare.spec["process"].update(change)
    with pytest.raises(InvalidArgument, match=word):
        bare.create()
    assert not bare.groups()


@pytest.mark.parametrize(
    ("part", "change", "word"),
    [
        ("process", {"apparmorProfile": "docker-default"}, "AppArmor profile"),
        ("process", {"selinuxLabel": "x"}, "selinuxLabel"),
        ("linux", {"mountLabel": "x"}, "mountLabel"),
        ("linux", {"intelRdt": {"closID": "x"}}, "intelRdt"),
        ("linux", {"netDevices": {"eth0": {}}}, "netDevices"),
        ("linux", {"memoryPolicy": {"mode": "MPOL_LOCAL"}}, "memoryPolicy"),
    ],
)
def test_what_is_not_there_is_refused_by_name_in_one_line(base, part, change, word):
    base[part].update(change)
    with pytest.raises(Unsupported, match=word) as refused:
        plan.parse(base)
    assert "\n" not in refused.value.message
