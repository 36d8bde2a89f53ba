"""Flags of `run` and the create request that they become."""

from __future__ import annotations

import click
import pytest

from wharfie.cli.create_body import create_body
from wharfie.cli.ports import port_bindings
from wharfie.cli.run import run


def body(*arguments):
    context = run.make_context("run", [*arguments, "image", "cmd"])
    flags = dict(context.params)
    return create_body(flags.pop("image"), flags.pop("command"), flags, detach=flags.pop("detach"))


def host(*arguments):
    return body(*arguments)["HostConfig"]


def test_the_plain_case_asks_for_nothing():
    made = body()
    assert (made["Image"], made["Cmd"], made["Entrypoint"], made["Tty"]) == ("image", ["cmd"], None, False)
    assert (made["AttachStdin"], made["AttachStdout"], made["AttachStderr"]) == (False, True, True)
    config = made["HostConfig"]
    assert (config["NetworkMode"], config["Memory"], config["RestartPolicy"]["Name"]) == ("default", 0, "no")
    assert "PidsLimit" not in config
    assert "Init" not in config
    assert "Healthcheck" not in made


def test_limits():
    config = host("-m", "64m", "--cpus", ".5", "--pids-limit", "20", "--memory-swap", "-1", "--ulimit", "nofile=10:20")
    assert (config["Memory"], config["NanoCpus"], config["PidsLimit"], config["MemorySwap"]) == (
        64 << 20,
        500_000_000,
        20,
        -1,
    )
    assert config["Ulimits"] == [{"Name": "nofile", "Soft": 10, "Hard": 20}]


def test_safety():
    config = host(
        "--read-only", "--tmpfs", "/tmp:size=1m", "--tmpfs", "/run", "--cap-drop", "ALL", "--cap-add", "CHOWN", "--init"
    )
    assert config["ReadonlyRootfs"]
    assert config["Init"] is True
    assert config["Tmpfs"] == {"/tmp": "size=1m", "/run": ""}
    assert (config["CapDrop"], config["CapAdd"]) == (["ALL"], ["CHOWN"])


def test_environment_takes_over_and_reads_files(tmp_path, monkeypatch):
    monkeypatch.setenv("TAKEN", "over")
    monkeypatch.delenv("ABSENT", raising=False)
    file = tmp_path / "env"
    file.write_text("# comment\n\nA=1\nTAKEN\n")
    assert body("--env-file", str(file), "-e", "B=2=3", "-e", "ABSENT")["Env"] == ["A=1", "TAKEN=over", "B=2=3"]
    with pytest.raises(click.BadParameter, match="cannot read"):
        body("--env-file", str(tmp_path / "none"))


def test_volumes_and_mounts(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    made = body("-v", "data:/data:ro", "-v", "/anonymous", "-v", "./here:/there")
    assert made["HostConfig"]["Binds"] == ["data:/data:ro", f"{tmp_path}/here:/there"]
    assert made["Volumes"] == {"/anonymous": {}}
    (mount,) = host("--mount", "type=bind,src=/a,dst=/b,readonly,bind-propagation=rslave")["Mounts"]
    assert mount == {
        "Type": "bind",
        "Source": "/a",
        "Target": "/b",
        "ReadOnly": True,
        "BindOptions": {"Propagation": "rslave"},
    }
    (mount,) = host("--mount", "dst=/b,volume-opt=type=tmpfs,volume-nocopy,volume-driver=acme")["Mounts"]
    assert mount["VolumeOptions"] == {"NoCopy": True, "DriverConfig": {"Name": "acme", "Options": {"type": "tmpfs"}}}


def test_networks():
    made = body("--network", "name=front,alias=www,ip=10.0.0.5", "--network", "back")
    assert made["HostConfig"]["NetworkMode"] == "front"
    assert made["NetworkingConfig"]["EndpointsConfig"] == {
        "front": {"Aliases": ["www"], "IPAMConfig": {"IPv4Address": "10.0.0.5"}},
        "back": {},
    }
    made = body("--net", "front", "--network-alias", "a", "--ip", "10.0.0.9")
    assert made["NetworkingConfig"]["EndpointsConfig"] == {
        "front": {"Aliases": ["a"], "IPAMConfig": {"IPv4Address": "10.0.0.9"}}
    }
    assert host("--add-host", "db:10.0.0.1", "--add-host", "v6=::1")["ExtraHosts"] == ["db:10.0.0.1", "v6:::1"]


def test_the_rest():
    made = body("--health-cmd", "true", "--health-interval", "1m30s", "--stop-timeout", "3", "--restart", "on-failure:4")
    assert made["Healthcheck"] == {"Test": ["CMD-SHELL", "true"], "Interval": 90_000_000_000}
    assert made["StopTimeout"] == 3
    assert made["HostConfig"]["RestartPolicy"] == {"Name": "on-failure", "MaximumRetryCount": 4}
    assert host("--log-driver", "local", "--log-opt", "max-size=1m")["LogConfig"] == {
        "Type": "local",
        "Config": {"max-size": "1m"},
    }
    assert host("--device", "/dev/fuse", "--device", "/dev/a:/dev/b:r")["Devices"] == [
        {"PathOnHost": "/dev/fuse", "PathInContainer": "/dev/fuse", "CgroupPermissions": "rwm"},
        {"PathOnHost": "/dev/a", "PathInContainer": "/dev/b", "CgroupPermissions": "r"},
    ]


@pytest.mark.parametrize(
    ("text", "bindings"),
    [
        ("80", {"80/tcp": [{"HostIp": "", "HostPort": ""}]}),
        ("8080:80", {"80/tcp": [{"HostIp": "", "HostPort": "8080"}]}),
        ("127.0.0.1::53/udp", {"53/udp": [{"HostIp": "127.0.0.1", "HostPort": ""}]}),
        ("[::1]:8080:80", {"80/tcp": [{"HostIp": "::1", "HostPort": "8080"}]}),
        ("9000-9010:80", {"80/tcp": [{"HostIp": "", "HostPort": "9000-9010"}]}),
        (
            "8000-8001:80-81",
            {"80/tcp": [{"HostIp": "", "HostPort": "8000"}], "81/tcp": [{"HostIp": "", "HostPort": "8001"}]},
        ),
    ],
)
def test_ports(text, bindings):
    assert port_bindings([text], []) == (list(bindings), bindings)


@pytest.mark.parametrize("text", ["", "a:b", "1:2:3:4", "80/nope", "8000-8002:80-81", "82-80", "1:65536"])
def test_bad_ports(text):
    with pytest.raises(click.BadParameter):
        port_bindings([text], [])


def test_exposed_ports_are_not_published():
    assert port_bindings([], ["80", "90-91/udp"]) == (["80/tcp", "90/udp", "91/udp"], {})
