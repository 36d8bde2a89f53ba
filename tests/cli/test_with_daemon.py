"""`wharfie` and `docker` on one real daemon: the same output and exit codes, and logs that lose nothing."""

from __future__ import annotations

import re
import subprocess

import pytest

# docker puts its own name before an error of `run`, and a hint or a summary behind errors.
_DOCKERS_OWN_WORDS = re.compile(
    r"^docker: |\n\nRun 'docker run --help' for more information\n|\nError: failed to start containers: .*|\nexit status 1$"
)
_CHANGING = re.compile(r"[0-9a-f]{64}|[0-9a-f]{12}|(?:\d+|a|a few|about a|less than a) (?:second|minute)s?", re.IGNORECASE)


@pytest.fixture
def host(daemon):
    return daemon.environment["DOCKER_HOST"]


@pytest.fixture
def both(host, wharfie, name):
    """Runs a command line with docker and with wharfie; what came out of each, without ids and ages.

    `NAME` stands for a name of the run's own.
    """

    def run(*arguments, stdin=b""):
        outcomes = []
        for command, own in ((("docker",), f"{name}d"), (None, f"{name}w")):
            words = [word.replace("NAME", own) for word in arguments]
            chosen = {} if command is None else {"command": command}
            code, out, err = wharfie(*words, stdin=stdin, host=host, **chosen)
            err = _DOCKERS_OWN_WORDS.sub("", err)
            outcomes.append(
                (code, _CHANGING.sub("X", out.replace(own, "NAME")), _CHANGING.sub("X", err.replace(own, "NAME")).strip())
            )
        return outcomes

    return run


FLOWS = {
    "streams and exit code": [("run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2; exit 7")],
    "stdin": [("run", "-i", "--rm", "busybox", "cat")],
    "no such command": [("run", "--rm", "busybox", "nosuch")],
    "not executable": [("run", "--rm", "busybox", "/etc/passwd")],
    "limits": [("run", "--rm", "-m", "64m", "--cpus", ".5", "--pids-limit", "20", "--init", "busybox", "echo", "x")],
    "read-only": [
        (
            "run",
            "--rm",
            "--read-only",
            "--tmpfs",
            "/tmp",
            "--cap-drop",
            "ALL",
            "busybox",
            "sh",
            "-c",
            "echo x >/tmp/a; echo x >/b",
        )
    ],
    "identity": [
        (
            "run",
            "--rm",
            "-e",
            "A=b",
            "-w",
            "/x",
            "-u",
            "7:8",
            "-h",
            "hh",
            "busybox",
            "sh",
            "-c",
            "echo $A $PWD; id; hostname",
        )
    ],
    "life of a container": [
        ("run", "-d", "--name", "NAME", "-l", "a=b", "busybox", "sh", "-c", "echo one; echo two >&2; exec sleep 60"),
        ("ps", "--filter", "name=NAME", "--format", "{{.Names}} {{.Image}} {{.State}} {{.Labels}}"),
        ("exec", "NAME", "sh", "-c", "echo in; exit 4"),
        ("exec", "-i", "NAME", "cat"),
        ("inspect", "-f", "{{.State.Status}} {{json .Config.Cmd}}", "NAME"),
        ("kill", "NAME"),
        ("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "NAME"),
        ("restart", "-t", "0", "NAME"),
        ("stop", "-t", "0", "NAME", "NAMEnot"),
        ("logs", "NAME"),
        ("logs", "--tail", "1", "NAME"),
        ("start", "NAMEnot"),
        ("rm", "-f", "NAME", "NAMEnot"),
        ("rm", "NAME"),
    ],
    "log drivers": [
        ("run", "--name", "NAME1", "--log-driver", "local", "--log-opt", "tag=x", "busybox", "printf", "a\nb"),
        ("logs", "--details", "NAME1"),
        ("run", "--name", "NAME2", "--log-driver", "none", "busybox", "echo", "x"),
        ("logs", "NAME2"),
        ("run", "--rm", "--log-opt", "nope=1", "busybox", "true"),
        ("run", "--rm", "--log-driver", "nope", "busybox", "true"),
    ],
    "volumes": [
        ("volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "-o", "o=size=1m", "NAME"),
        ("volume", "ls", "-q", "--filter", "name=NAME"),
        ("run", "--rm", "-v", "NAME:/v", "busybox", "grep", " /v ", "/proc/mounts"),
        ("volume", "inspect", "-f", "{{.Driver}} {{.Options.o}}", "NAME"),
        ("volume", "rm", "NAME", "NAME"),
        ("volume", "create", "-o", "nope=1", "NAME"),
        ("volume", "create", "-d", "nope", "NAME"),
    ],
    "networks": [
        ("network", "create", "--internal", "--label", "a=b", "NAME"),
        ("run", "--rm", "--network", "NAME", "busybox", "grep", "nameserver", "/etc/resolv.conf"),
        ("network", "inspect", "-f", "{{.Driver}} {{.Internal}} {{json .Labels}}", "NAME"),
        ("network", "rm", "NAME", "NAME"),
    ],
    "images": [
        ("tag", "busybox", "NAME:1"),
        ("images", "--filter", "reference=NAME", "--format", "{{.Repository}}:{{.Tag}}"),
        ("rmi", "NAME:1"),
        ("rmi", "NAME:1"),
        ("run", "--pull", "never", "NAME:none"),
    ],
}


@pytest.mark.parametrize("flow", FLOWS.values(), ids=FLOWS)
def test_wharfie_does_what_docker_does(both, flow):
    for arguments in flow:
        docker, wharfie = both(*arguments, stdin=b"typed\n")
        assert wharfie == docker, arguments


@pytest.mark.parametrize("driver", ["json-file", "local"])
def test_following_a_rotated_log_loses_no_line(host, wharfie, name, driver):
    script = 'i=0; while [ $i -lt 20000 ]; do echo "line $i"; i=$((i+1)); [ $((i % 500)) = 0 ] && sleep 0.02; done'
    options = [
        "--log-driver",
        driver,
        "--log-opt",
        "max-size=300k",
        "--log-opt",
        "max-file=4",
        "--log-opt",
        "compress=true",
    ]
    assert wharfie("run", "-d", "--name", name, *options, "busybox", "sh", "-c", script, host=host)[0] == 0
    _, out, err = wharfie("logs", "-f", name, host=host)
    assert err == ""
    assert out.splitlines() == [f"line {number}" for number in range(20000)]
    kept = wharfie("logs", name, host=host)[1].splitlines()
    assert kept == [f"line {number}" for number in range(20000 - len(kept), 20000)]


def test_a_reader_that_stops_early_is_no_error(daemon, host, name, wharfie_command):
    daemon.docker("run", "--name", name, "busybox", "seq", "1", "100000")
    command = f"{' '.join(map(repr, wharfie_command))} -H {host} logs {name} | head -n 1"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=30)
    assert (done.stdout, done.stderr) == ("1\n", "")
