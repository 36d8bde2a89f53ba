"""Further processes in a running container, terminals, and the init of `--init`."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from wharfie.spi.errors import Conflict, InvalidArgument

SPACES = ("mnt", "net", "uts", "ipc", "pid", "cgroup")


def test_exec_is_in_the_same_namespaces_and_group(bare):
    bare.spec["linux"]["namespaces"].append({"type": "cgroup"})
    bare.sleeping()
    code, out, err = bare.exec("sh", "-c", "cat; hostname; ps; cat /proc/self/cgroup; ls /proc/self/fd", given="hello\n")
    assert (code, err) == (0, "")
    assert out.startswith("hello\nbox\n")
    assert "1 root     sleep 300" in out
    assert "/.." not in out
    assert out.endswith("0\n1\n2\n3\n")
    script = "; ".join(f"readlink /proc/$p/ns/{name}" for name in SPACES)
    assert bare.exec("sh", "-c", f"p=1; {script}")[1] == bare.exec("sh", "-c", f"p=self; {script}")[1]


def test_exec_has_its_own_user_directory_and_capabilities(bare):
    bare.sleeping()
    user = {"uid": 12, "gid": 34, "additionalGids": [34, 56]}
    out = bare.exec("sh", "-c", "id -u; id -G; pwd; grep -E 'Cap(Eff|Bnd|Inh)' /proc/self/status", user=user, cwd="/data")[
        1
    ]
    assert out.split()[:4] == ["12", "34", "56", "/data"]
    assert out.split()[4:] == ["CapInh:", "0" * 16, "CapEff:", "0" * 16, "CapBnd:", "00000000a80425fb"]
    assert bare.exec("sh", "-c", "exit 9")[0] == 9


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["nosuch"], 'exec: "nosuch": executable file not found in $PATH'),
        (["/no/such"], 'exec: "/no/such": stat /no/such: no such file or directory'),
        (["/etc/passwd"], 'exec: "/etc/passwd": permission denied'),
    ],
)
def test_exec_of_no_program(bare, args, message):
    bare.sleeping()
    with pytest.raises(InvalidArgument) as caught:
        bare.exec(*args)
    assert caught.value.message == message
    children = Path(f"/proc/{bare.process.pid}/task/{bare.process.pid}/children").read_text()
    assert len(children.split()) == 1, "the failed process was not collected"


def test_exec_in_a_missing_directory(bare):
    bare.sleeping()
    with pytest.raises(InvalidArgument, match=r'chdir to cwd \("/no/such"\)'):
        bare.exec("true", cwd="/no/such")


def test_exec_after_the_end(bare):
    bare.run("true")
    with pytest.raises(Conflict, match="not running"):
        bare.exec("true")


def test_terminal(bare):
    code, out = bare.run(
        "sh", "-c", "tty; stty size; stat -c %t:%T /dev/console; echo hi > /dev/console; exit 3", terminal=True
    )
    assert code == 3
    assert out.split() == ["/dev/pts/0", "33", "99", "88:0", "hi"]


def test_terminal_of_another_user(bare):
    bare.spec["process"]["user"] = {"uid": 1000, "gid": 1000}
    assert bare.run("sh", "-c", "echo through > /dev/pts/0; stat -c %u:%g /dev/pts/0", terminal=True)[1].split() == [
        "through",
        "1000:5",
    ]


def test_exec_with_a_terminal(bare):
    bare.sleeping()
    code, out = bare.exec("sh", "-c", "tty; stty size; exit 4", terminal=True)
    assert (code, out.split()) == (4, ["/dev/pts/0", "33", "99"])
    assert bare.exec("sh", "-c", "echo x > /dev/tty", terminal=True)[0] == 0


def init(bare, *args, **more):
    bare.spec["annotations"] = {"org.wharfie.init": "true"}
    return bare.run(*args, **more)


def test_init_runs_the_program_as_its_child(bare):
    code, out, _ = init(bare, "sh", "-c", "echo $$ $PPID; cat /proc/1/comm; exit 5")
    assert code == 5
    assert out == "2 1\ndocker-init\n"


def test_init_ends_as_the_program_does(bare):
    assert init(bare, "sh", "-c", "kill -9 $$")[0] == 137


def test_init_reaps_orphans(bare):
    script = (
        "(sh -c 'sleep 0.1; exit 3' & ); sleep 0.4; for p in /proc/[0-9]*; do cut -d' ' -f2,3 $p/stat; done 2>/dev/null"
    )
    out = init(bare, "sh", "-c", script)[1]
    assert "(docker-init)" in out
    assert "(sleep)" not in out
    assert " Z" not in out


def test_init_passes_signals_on(bare):
    bare.spec["annotations"] = {"org.wharfie.init": "true"}
    pid = bare.create(
        "sh", "-c", "trap 'echo got; exit 8' TERM; trap 'echo usr' USR1; touch /ready; while :; do sleep 0.02; done"
    )
    bare.call("start")
    end = time.monotonic() + 5
    while not (bare.root / "ready").exists() and time.monotonic() < end:
        time.sleep(0.01)
    os.kill(pid, signal.SIGUSR1)
    time.sleep(0.1)
    os.kill(pid, signal.SIGTERM)
    assert bare.call("wait", pid=pid)[:2] == [8, "usr\ngot\n"]


def test_init_gives_the_program_the_terminal(bare):
    code, out = init(bare, "sh", "-c", "cut -d' ' -f5,8 /proc/$$/stat", terminal=True)
    assert (code, out.split()) == (0, ["2", "2"]), "the program's group is the terminal's foreground"


def test_init_reports_what_execve_said(bare):
    (bare.root / "bin/odd").write_bytes(b"\1\2")
    (bare.root / "bin/odd").chmod(0o755)
    bare.spec["annotations"] = {"org.wharfie.init": "true"}
    bare.create("odd")
    with pytest.raises(InvalidArgument, match="exec format error"):
        bare.call("start")


def test_init_is_closed_to_the_container(bare):
    """It is a Python process in there: nobody inside may look into it, though its user is theirs."""
    out = init(
        bare,
        "sh",
        "-c",
        "readlink /proc/1/exe || echo no; ls /proc/1/fd; head -c 1 /proc/1/mem || echo no; cat /proc/1/environ",
    )
    assert out[1].startswith("no\n")
    assert "no" in out[1].split()[-1:]
    code, out, _ = init(bare, "sh", "-c", "grep -E 'Cap(Eff|Bnd)|Groups|Seccomp:' /proc/1/status /proc/self/status")
    assert code == 0
    first, own = (
        sorted(line.split(":", 1)[1] for line in out.splitlines() if f"/proc/{who}/" in line) for who in ("1", "self")
    )
    assert first == own
