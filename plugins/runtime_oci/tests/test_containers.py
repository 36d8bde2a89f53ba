"""A container's life with runc and with crun."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest

from wharfie.spi.errors import Conflict, InvalidArgument
from wharfie.spi.runtime import ExecExited, Io, Lost, OutOfMemory, Preparation

MIB = 1 << 20


def test_program_with_its_streams_and_its_code(house):
    code, out = house.run("sh", "-c", "echo $$ $HOSTNAME; cat; echo no >&2; exit 7", given=b"input\n")
    assert (code, out) == (7, "1 box\ninput\nno\n")
    assert not house.groups()


def test_nothing_is_executed_before_start_and_the_network_can_be_joined(house):
    box = house.create("sh", "-c", "touch /data/ran")
    assert house.driver.state(box).status == "created"
    assert house.process.netns.readlink() != Path("/proc/self/ns/net").readlink()
    assert not (house.root / "data/ran").exists()
    house.driver.start(box)
    assert house.exit() == 0
    assert (house.root / "data/ran").exists()


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("no-such", 'exec: "no-such": executable file not found in [$]PATH$'),
        ("/no/such", 'exec: "/no/such": .*no such file or directory$'),
        ("/etc/passwd", 'exec: "/etc/passwd": .*permission denied$'),
        ("/tmp", 'exec: "/tmp": .*(is a directory|permission denied)$'),
    ],
)
def test_what_cannot_be_executed(house, program, said):
    with pytest.raises(InvalidArgument, match=said):
        house.create(program)
    assert not house.groups()
    box = house.sleeping()
    with pytest.raises(InvalidArgument, match=said):
        house.exec(box, program)


def test_a_mount_that_fails_leaves_nothing(house):
    house.spec["mounts"].append(house.mount("/x", "bind", "/no/such/source", "rbind"))
    with pytest.raises(InvalidArgument, match=r"(?i)/no/such/source.*no such file"):
        house.create("true")
    assert not house.driver.containers()
    assert not house.groups()


def test_terminal(house):
    code, out = house.run("sh", "-c", "stty size; tty; test -t 0 && exit 4", io=Io(terminal=True, size=(33, 77)))
    assert code == 4
    assert out.split() == ["33", "77", "/dev/pts/0"] or out.split() == ["33", "77", "/dev/console"]


def test_terminal_is_resized(house):
    box = house.create("sh", "-c", "read x; stty size", io=Io(terminal=True, stdin=True, size=(10, 20)))
    client = house.attach(box, stdin=True)
    house.driver.start(box)
    house.driver.resize(box, "", 44, 55)
    client.sendall(b"\n")
    assert house.exit() == 0
    house.driver.delete(box)
    assert b"44 55" in house.read_all(client)


def test_exec(house):
    box = house.sleeping()
    assert house.exec(box, "sh", "-c", "echo $A; cat /proc/1/comm; exit 3", env=["PATH=/bin", "A=b"]) == (3, "b\nsleep\n")
    assert house.exec(box, "id", user="web") == (0, "uid=33(web) gid=44(www) groups=44(www),55(log)\n")
    # crun sends the terminal, which gets its size then, after it has started the program.
    script = 'until size=$(stty size 2>/dev/null) && test -n "$size"; do :; done; echo $size; exit 5'
    code, out = house.exec(box, "sh", "-c", script, io=Io(terminal=True, size=(12, 34)))
    assert (code, out.strip()) == (5, "12 34")


def test_signals(house):
    box = house.sleeping("sh", "-c", "trap 'exit 9' TERM; echo go; while :; do sleep 0.05; done")
    house.driver.exec(box, "e", {**house.spec["process"], "args": ["sleep", "300"]}, Io())
    house.driver.exec_start(box, "e")
    house.driver.signal(box, signal.SIGKILL, exec_id="e")
    assert house.event(ExecExited).exit.code == 137
    house.driver.signal(box, signal.SIGTERM)
    assert house.exit() == 9
    with pytest.raises(Conflict):
        house.driver.signal(box, signal.SIGTERM)


def test_signals_are_not_ignored_by_inheritance(house):
    code, out = house.run("grep", "SigIgn", "/proc/self/status")
    assert (code, out.split()[1]) == (0, "0" * 16)


def test_no_descriptor_is_inherited(house):
    code, out = house.run("sh", "-c", "ls /proc/self/fd")
    assert (code, out.split()) == (0, ["0", "1", "2", "3"])  # 3: the listing's own


def test_pause_and_resume(house):
    box = house.sleeping()
    house.driver.pause(box)
    assert house.driver.state(box).status == "paused"
    with pytest.raises(Conflict, match="already paused"):
        house.driver.pause(box)
    house.driver.resume(box)
    assert house.exec(box, "echo", "on") == (0, "on\n")
    house.driver.pause(box)
    house.driver.delete(box, force=True)
    assert not house.groups()


def test_limits_counters_and_processes(house):
    house.spec["linux"]["resources"].update(memory={"limit": 64 * MIB}, pids={"limit": 32})
    box = house.sleeping("sh", "-c", "sleep 300 & sleep 300 & wait")
    house.eventually(lambda: len(house.driver.pids(box)) == 3)
    assert house.process.pid in house.driver.pids(box)
    stats = house.driver.stats(box)
    assert stats["memory"]["limit"] == 64 * MIB
    assert stats["pids"] == {"current": 3, "limit": 32}
    assert stats["cpu"]["usage_ns"] > 0
    house.driver.update(box, {"memory": {"limit": 32 * MIB}, "pids": {"limit": 16}})
    stats = house.driver.stats(box)
    assert (stats["memory"]["limit"], stats["pids"]["limit"]) == (32 * MIB, 16)
    with pytest.raises(InvalidArgument):
        house.driver.update(box, {"cpu": {"cpus": "4000"}})


def test_out_of_memory(house):
    house.spec["linux"]["resources"].update(memory={"limit": 16 * MIB, "swap": 16 * MIB})
    box = house.sleeping("sh", "-c", "exec tail /dev/zero")
    assert house.event(OutOfMemory).id == box
    assert house.exit() == 137
    assert house.driver.state(box).exit.out_of_memory


def test_host_pid_namespace_ends_with_the_first_process(house):
    house.spec["linux"]["namespaces"] = [{"type": name} for name in ("mount", "network", "uts", "ipc")]
    house.spec["mounts"][0] = house.mount("/proc", "bind", "/proc", "rbind")
    house.spec["linux"]["maskedPaths"] = house.spec["linux"]["readonlyPaths"] = []
    box = house.sleeping("sh", "-c", "sleep 300 & sleep 300 & exit 5")
    assert house.exit() == 5
    house.driver.delete(box)
    assert not house.groups()


def test_user_groups_and_domain_name(house):
    house.spec["domainname"] = "example.org"
    code, out = house.run(
        "sh", "-c", "id -u; id -g; id -G; cat /proc/sys/kernel/domainname", preparation=Preparation(user="web")
    )
    assert (code, out.split()) == (0, ["33", "44", "44", "55", "example.org"])


def test_init(house, monkeypatch):
    if not any(map(shutil.which, ("docker-init", "tini-static", "catatonit"))):
        pytest.skip("needs tini")
    house.spec["annotations"] = {"org.wharfie.init": "true"}
    code, out = house.run("sh", "-c", "cat /proc/1/comm; echo $$; exit 6")
    assert code == 6
    assert out.split()[0] == "docker-init"
    assert out.split()[1] != "1"
    house.spec["annotations"]["org.wharfie.init-path"] = "/no/such/init"
    with pytest.raises(InvalidArgument, match="init-path"):
        house.create("true")
    del house.spec["annotations"]["org.wharfie.init-path"]
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(InvalidArgument, match="apt-get install tini"):
        house.create("true")


def test_what_is_mounted_for_the_container_stays_unseen(house):
    """And the mount namespace in which crun is started, without a cgroup2 in sight, changes nothing for the host."""

    def mounts():
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
        return [line for line in lines if str(house.base) in line or " /sys/fs/cgroup" in line]

    before = mounts()
    house.spec["mounts"].append(house.mount("/data", "bind", str(house.root / "data"), "rbind rslave"))
    house.sleeping()
    assert mounts() == before


def test_containers_outlive_the_daemon(house):
    box = house.sleeping("sh", "-c", "read x; echo got $x; exit 8", io=Io(stdin=True))
    house.driver.close()
    house.open()
    (state,) = house.driver.containers()
    assert (state.id, state.status) == (box, "running")
    client = house.attach(box, stdin=True, framed=False)
    client.sendall(b"it\n")
    assert house.exit() == 8
    house.driver.delete(box)
    assert house.read_all(client) == b"got it\n"


def test_a_killed_shim_is_told_and_cleaned_up_after(house):
    box = house.sleeping()
    os.kill(int((house.base / "run" / box / "shim.pid").read_text()), signal.SIGKILL)
    assert house.event(Lost).id == box
    assert house.driver.state(box).status == "stopped"
    house.driver.delete(box)
    house.eventually(lambda: not ended_badly(house.process.pid))
    assert not house.groups()


def ended_badly(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except FileNotFoundError:
        return False
