"""`docker run` and its neighbours with the stock CLI: output and exit codes as against dockerd."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import subprocess
import time

import pytest

from tests.harness import until


def test_output_and_status(daemon):
    assert daemon.docker("run", "--rm", "busybox", "echo", "hi") == "hi"
    result = daemon.run_docker("run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (result.returncode, result.stdout, result.stderr) == (7, b"out\n", b"err\n")


@pytest.mark.parametrize(
    ("words", "status", "text"),
    [
        (("busybox", "nosuch"), 127, "executable file not found in $PATH"),
        (("busybox", "/no/such"), 127, "no such file or directory"),
        (("busybox", "/etc/passwd"), 126, "permission denied"),
        (("busybox", "/tmp"), 126, ""),
        (("127.0.0.1:1/nosuch:1", "true"), 125, "connection refused"),
        (("--network", "nosuch", "busybox", "true"), 125, "network nosuch not found"),
        (("--runtime", "nosuch", "busybox", "true"), 125, "unknown or invalid runtime name: nosuch"),
        (("--log-driver", "nosuch", "busybox", "true"), 125, "no log driver named 'nosuch'"),
        (("--volume-driver", "nosuch", "-v", "/data", "busybox", "true"), 125, "nosuch"),
    ],
)
def test_what_cannot_run(daemon, words, status, text):
    result = daemon.run_docker("run", "--rm", *words)
    assert result.returncode == status
    assert text in result.stderr.decode()
    assert daemon.docker("ps", "-aq", "--filter", "status=created") == ""


def test_detached_with_everything(daemon, name):
    daemon.docker("network", "create", f"{name}-net")
    words = ("-p", "127.0.0.1::80", "-v", f"{name}-data:/data", "--name", f"{name}-web", "--network", f"{name}-net")
    script = "echo hello > /data/index.html; exec httpd -f -h /data -p 80"
    container = daemon.docker("run", "-d", *words, "--label", "a=b", "busybox", "sh", "-c", script)
    assert re.fullmatch(r"[0-9a-f]{64}", container)
    host, port = daemon.docker("port", f"{name}-web", "80/tcp").rsplit(":", 1)
    assert host == "127.0.0.1"
    page = until(lambda: _fetch(f"http://127.0.0.1:{port}/index.html"), what="the page")
    assert page == "hello\n"
    inside = daemon.docker(
        "run", "--rm", "--network", f"{name}-net", "busybox", "wget", "-qO-", f"http://{name}-web/index.html"
    )
    assert inside == "hello"
    row = daemon.docker("ps", "--filter", "label=a=b", "--format", "{{.Names}} {{.Image}} {{.Ports}}")
    assert row == f"{name}-web busybox 127.0.0.1:{port}->80/tcp"
    assert daemon.inspect(container)["Mounts"][0]["Name"] == f"{name}-data"


def _fetch(url):
    result = subprocess.run(["curl", "-sf", "--max-time", "3", url], capture_output=True, check=False, text=True)
    return result.stdout if result.returncode == 0 else None


def test_a_fork_bomb_meets_its_limit(daemon):
    script = "for i in $(seq 40); do sleep 1 & done; wait"
    result = daemon.run_docker("run", "--rm", "--pids-limit", "10", "busybox", "sh", "-c", script)
    assert b"fork" in result.stderr or b"Resource temporarily unavailable" in result.stderr


def test_confinement(daemon):
    output = daemon.docker(
        *("run", "--rm", "--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "busybox", "sh", "-c"),
        "touch /x 2>&1; touch /tmp/x && echo wrote; grep -E 'Cap(Inh|Prm|Eff|Bnd|Amb)' /proc/self/status",
    )
    assert "Read-only file system" in output
    assert "wrote" in output
    assert re.findall(r"Cap...:\s+(\S+)", output) == ["0000000000000000"] * 5


def test_default_confinement(daemon):
    output = daemon.docker(
        *("run", "--rm", "busybox", "sh", "-c"),
        "grep -E '^(Cap|Seccomp:|NoNewPrivs)' /proc/self/status; echo core > /proc/sys/kernel/core_pattern; "
        "ls /proc/self/fd | wc -l; mount -t tmpfs x /tmp; cat /proc/kcore | head -c1 | wc -c; hostname",
        both=True,
    )
    found = dict(re.findall(r"^(\w+):\s+(\w+)$", output, re.MULTILINE))
    assert found["CapEff"] == found["CapPrm"] == found["CapBnd"] == "00000000a80425fb"
    assert found["CapInh"] == found["CapAmb"] == "0000000000000000"
    assert found["Seccomp"] == "2"
    assert "Read-only file system" in output
    assert "permission denied" in output.lower() or "Operation not permitted" in output


def test_user_groups_workdir_env(daemon):
    output = daemon.docker(
        *("run", "--rm", "-u", "worker", "--group-add", "2001", "-w", "/made/here", "-e", "A=1", "-e", "PATH=/bin"),
        *("busybox", "sh", "-c", "id; pwd; echo $A $PATH $HOME"),
    )
    assert "uid=1000(worker) gid=1000(worker)" in output
    assert "2000(extra)" in output and "2001" in output
    assert output.splitlines()[1:] == ["/made/here", "1 /bin /home"]
    result = daemon.run_docker("run", "--rm", "-u", "nosuch", "busybox", "true")
    assert result.returncode == 125 or result.returncode == 126
    assert b"unable to find user nosuch: no matching entries in passwd file" in result.stderr


def test_hosts_hostname_resolv(daemon):
    output = daemon.docker(
        *("run", "--rm", "--hostname", "box.example.test", "--add-host", "db:192.0.2.7", "--dns", "192.0.2.1"),
        *("--dns-search", "example.test", "--dns-option", "ndots:2", "busybox"),
        *("sh", "-c", "hostname; cat /etc/hosts /etc/resolv.conf /etc/hostname"),
    )
    lines = output.splitlines()
    assert lines[0] == lines[-1] == "box.example.test"
    assert "192.0.2.7\tdb" in lines
    assert any(line.endswith("\tbox.example.test box") for line in lines)
    assert {"nameserver 192.0.2.1", "search example.test", "options ndots:2"} <= set(lines)


def test_stdin_is_passed_and_ends(daemon):
    assert daemon.docker("run", "--rm", "-i", "busybox", "wc", "-c", stdin=b"x" * 300_000) == "300000"
    assert daemon.docker("run", "--rm", "-i", "busybox", "cat", stdin=b"piped") == "piped"


def test_much_output_is_whole(daemon):
    output = daemon.docker("run", "--rm", "busybox", "seq", "200000")
    assert output.splitlines() == [str(number) for number in range(1, 200_001)]


class Terminal:
    """The docker CLI on a pseudo terminal of the test's."""

    def __init__(self, daemon, *words):
        self.process = None
        pid, self.master = pty.fork()
        if pid == 0:
            os.execvpe("docker", ["docker", *words], daemon.environment)
        self.pid = pid
        self.seen = ""

    def expect(self, text, seconds=10):
        deadline = time.monotonic() + seconds
        while text not in self.seen:
            ready, _, _ = select.select([self.master], [], [], max(0, deadline - time.monotonic()))
            if not ready:
                raise AssertionError(f"{text!r} did not come; seen: {self.seen!r}")
            try:
                self.seen += os.read(self.master, 4096).decode(errors="replace")
            except OSError:
                raise AssertionError(f"{text!r} did not come before the end; seen: {self.seen!r}") from None

    def send(self, data):
        os.write(self.master, data)

    def status(self):
        while True:
            try:
                if not os.read(self.master, 4096):
                    break
            except OSError:
                break
        os.close(self.master)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def test_a_terminal(daemon):
    terminal = Terminal(daemon, "run", "--rm", "-it", "busybox", "sh")
    terminal.expect("/ # ")
    terminal.send(b"tty; echo $((6*7)); echo $TERM\n")
    terminal.expect("/dev/pts/0")
    terminal.expect("42")
    terminal.send(b"exit 5\n")
    assert terminal.status() == 5


def test_detach_keys_leave_the_container_running(daemon, name):
    terminal = Terminal(daemon, "run", "-it", "--name", name, "busybox", "sh")
    terminal.expect("/ # ")
    terminal.send(b"\x10\x11")
    assert terminal.status() == 0
    assert daemon.inspect(name)["State"]["Running"] is True
    again = Terminal(daemon, "attach", name)
    again.send(b"\necho back $((1+1))\n")
    again.expect("back 2")
    again.send(b"exit 3\n")
    assert again.status() == 3


def test_exec(daemon, name):
    daemon.docker("run", "-d", "--name", name, "busybox", "sleep", "600")
    assert daemon.docker("exec", name, "echo", "hi") == "hi"
    assert daemon.docker("exec", "-i", name, "cat", stdin=b"in") == "in"
    assert (
        daemon.docker("exec", "-u", "worker", "-w", "/tmp", "-e", "X=y", name, "sh", "-c", "id -un; pwd; echo $X")
        == "worker\n/tmp\ny"
    )
    daemon.docker("exec", name, "sh", "-c", "exit 9", status=9)
    assert "executable file not found" in daemon.docker("exec", name, "nosuch", status=127, both=True)
    daemon.docker("exec", name, "/no/such", status=126, both=True)
    daemon.docker("exec", "-d", name, "touch", "/tmp/made")
    until(lambda: daemon.run_docker("exec", name, "test", "-e", "/tmp/made").returncode == 0)
    terminal = Terminal(daemon, "exec", "-it", name, "sh")
    terminal.expect("/ # ")
    terminal.send(b"stty size; exit 4\n")
    assert terminal.status() == 4


def test_stop_asks_then_insists(daemon, name):
    polite = "trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.05; done"
    daemon.docker("run", "-d", "--name", f"{name}-polite", "busybox", "sh", "-c", polite)
    until(lambda: "up" in daemon.docker("logs", f"{name}-polite"))
    daemon.docker("stop", f"{name}-polite")
    assert daemon.inspect(f"{name}-polite")["State"]["ExitCode"] == 3
    assert "bye" in daemon.docker("logs", f"{name}-polite")
    daemon.docker("run", "-d", "--name", f"{name}-deaf", "busybox", "sh", "-c", "trap '' TERM; while :; do sleep 1; done")
    daemon.docker("stop", "-t", "1", f"{name}-deaf")
    assert daemon.inspect(f"{name}-deaf")["State"]["ExitCode"] == 137


def test_an_init_reaps_and_passes_signals(daemon, name):
    daemon.docker("run", "-d", "--init", "--name", name, "busybox", "sh", "-c", "sleep 0.1 & exec sleep 600")
    time.sleep(0.5)
    assert "defunct" not in daemon.docker("exec", name, "ps").lower()
    started = time.monotonic()
    daemon.docker("stop", "-t", "8", name)
    assert time.monotonic() - started < 6
    assert daemon.inspect(name)["State"]["ExitCode"] == 143


def test_logs(daemon, name):
    daemon.docker("run", "--name", name, "busybox", "sh", "-c", "for i in 1 2 3; do echo line $i; done; echo bad >&2")
    result = daemon.run_docker("logs", name)
    assert (result.stdout, result.stderr) == (b"line 1\nline 2\nline 3\n", b"bad\n")
    assert daemon.docker("logs", "--tail", "1", name, both=True) == "bad"
    stamped = daemon.docker("logs", "--timestamps", "--tail", "2", name)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z line 3", stamped)
    assert daemon.docker("logs", "--since", "1h", name).count("line") == 3
    assert daemon.docker("logs", "--until", "1h", name) == ""


def test_logs_follow_to_the_end(daemon, name):
    daemon.docker("run", "-d", "--name", name, "busybox", "sh", "-c", "for i in 1 2 3 4; do echo $i; sleep 0.2; done")
    assert daemon.docker("logs", "-f", name) == "1\n2\n3\n4"


def test_events(daemon, name):
    follower = daemon.spawn_docker("events", "--filter", f"container={name}", "--format", "{{json .}}")
    time.sleep(0.3)
    daemon.docker("run", "--name", name, "busybox", "sh", "-c", "exit 2", status=2)
    daemon.docker("rm", name)
    time.sleep(0.3)
    follower.terminate()
    events = [json.loads(line) for line in follower.communicate()[0].splitlines()]
    actions = [event["Action"] for event in events if event["Type"] == "container"]
    assert actions == ["create", "attach", "start", "die", "destroy"]
    die = next(event for event in events if event["Action"] == "die")
    assert die["Actor"]["Attributes"]["exitCode"] == "2"
    assert [event["timeNano"] for event in events] == sorted(event["timeNano"] for event in events)


def test_pause_rename_top(daemon, name):
    daemon.docker("run", "-d", "--name", name, "busybox", "sleep", "600")
    daemon.docker("pause", name)
    assert daemon.inspect(name)["State"]["Status"] == "paused"
    assert "(Paused)" in daemon.docker("ps", "--filter", f"name={name}", "--format", "{{.Status}}")
    daemon.docker("exec", name, "true", status=1, both=True)
    daemon.docker("unpause", name)
    assert daemon.inspect(name)["State"]["Status"] == "running"
    daemon.docker("rename", name, f"{name}-new")
    titles, row = daemon.docker("top", f"{name}-new").splitlines()
    assert titles.split()[:2] == ["UID", "PID"]
    assert row.endswith("sleep 600")


def test_removal(daemon, name):
    daemon.docker("run", "-d", "--name", name, "busybox", "sleep", "600")
    text = daemon.docker("rm", name, status=1, both=True)
    assert "container is running: stop the container before removing or force remove" in text
    daemon.docker("rm", "-f", name)
    assert "No such container" in daemon.docker("rm", name, status=1, both=True)


def test_restart_policy(daemon, name):
    daemon.docker("run", "-d", "--name", name, "--restart", "on-failure:2", "busybox", "false")
    until(lambda: daemon.inspect(name)["RestartCount"] == 2 and daemon.inspect(name)["State"]["Status"] == "exited")


def test_shared_namespaces(daemon, name):
    daemon.docker("run", "-d", "--name", name, "--ipc", "shareable", "busybox", "sh", "-c", "httpd -f -p 8080 -h /etc")
    assert "root" in daemon.docker(
        "run", "--rm", "--network", f"container:{name}", "busybox", "wget", "-qO-", "http://127.0.0.1:8080/passwd"
    )
    assert "httpd" in daemon.docker("run", "--rm", "--pid", f"container:{name}", "busybox", "ps")
    daemon.docker("run", "--rm", "--ipc", f"container:{name}", "busybox", "touch", "/dev/shm/shared")
    assert "shared" in daemon.docker("exec", name, "ls", "/dev/shm")
    host = daemon.docker("run", "--rm", "--network", "host", "--uts", "host", "busybox", "hostname")
    assert host == os.uname().nodename
