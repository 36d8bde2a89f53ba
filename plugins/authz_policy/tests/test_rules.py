"""Rules: who, what, and what containers may have."""

from __future__ import annotations

import pytest
from wharfie_authz_policy.patterns import matches
from wharfie_authz_policy.rules import Policy

from wharfie.spi.authz import ApiRequest

CREATE = "/containers/create"


def request(method="GET", path="/info", body=None, *, user="ann", authentication="socket", groups=(), parameters=None):
    return ApiRequest(
        user=user,
        authentication=authentication,
        groups=groups,
        method=method,
        path=path,
        body=body,
        parameters=parameters or {},
    )


def decide(rules, asked):
    return Policy.model_validate({"rules": rules}).decide(asked)


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        ("/containers/*/json", "/containers/a/json", True),
        ("/containers/*/json", "/containers/a/b/json", False),
        ("/images/**", "/images/a/b/json", True),
        ("a?c", "abc", True),
        ("a?c", "a/c", False),
        ("a.c", "abc", False),
        ("*", "a\nb", True),
        ("web", "web2", False),
    ],
)
def test_patterns(pattern, text, expected):
    assert matches(text, (pattern,)) is expected


@pytest.mark.parametrize(
    ("who", "asked", "allowed"),
    [
        ("anyone", request(user="", authentication=""), True),
        ("socket:ann", request(), True),
        ("socket:ann", request(authentication="TLS"), False),
        ("tls:ann", request(authentication="TLS"), True),
        ("tls:a*", request(authentication="TLS"), True),
        ("tls:ann", request(), False),
        ("group:docker", request(groups=("docker",)), True),
        ("group:docker", request(groups=("docker",), authentication="TLS"), False),
        ("group:docker", request(groups=("video",)), False),
        ("socket:*", request(user="", authentication=""), False),
    ],
)
def test_who(who, asked, allowed):
    assert decide([{"who": [who]}], asked).allow is allowed


def test_nothing_fits_is_a_refusal_that_says_so():
    assert decide([], request()).reason == "no rule lets ann (socket) GET /info"
    assert decide([], request(user="", authentication="")).reason == "no rule lets an unknown caller GET /info"


def test_the_first_fitting_rule_decides():
    rules = [
        {"name": "no kill", "who": ["anyone"], "paths": ["/containers/*/kill"], "effect": "deny"},
        {"who": ["anyone"], "methods": ["POST"]},
    ]
    assert decide(rules, request("POST", "/containers/a/kill")).reason == 'rule "no kill" denies POST /containers/a/kill'
    assert decide(rules, request("POST", "/containers/a/start")).allow
    assert not decide(rules, request("GET", "/containers/a/json")).allow


def test_a_rule_whose_limits_are_passed_leaves_it_to_the_next_one():
    rules = [{"name": "ci", "who": ["anyone"], "containers": {}}, {"who": ["socket:root"]}]
    body = {"Image": "i", "HostConfig": {"Privileged": True}}
    assert decide(rules, request("POST", CREATE, body, user="root")).allow
    assert decide(rules, request("POST", CREATE, body)).reason == 'rule "ci": privileged is not allowed'


@pytest.mark.parametrize(
    "rule",
    [
        {},
        {"who": []},
        {"who": ["root"]},
        {"who": ["tls:"]},
        {"who": ["anyone"], "path": ["/"]},
        {"who": ["anyone"], "effect": "maybe"},
        {"who": ["anyone"], "containers": {"priviledged": False}},
        {"who": "anyone"},
    ],
)
def test_a_rule_that_says_something_else_is_an_error(rule):
    with pytest.raises(ValueError):
        Policy.model_validate({"rules": [rule]})


def judged(body, path=CREATE, parameters=None, **limits):
    if path == CREATE and isinstance(body, dict):
        body = {"Image": "busybox", **body}
    rules = [{"who": ["anyone"], "containers": limits}]
    return decide(rules, request("POST", path, body, parameters=parameters))


@pytest.mark.parametrize(
    "host",
    [
        {"Privileged": True},
        {"Privileged": "yes"},
        {"Binds": ["/etc:/x"]},
        {"Binds": ["/srv/../etc:/x:ro"]},
        {"Binds": ["/srvother:/x"]},
        {"Binds": "/etc:/x"},
        {"Mounts": [{"Type": "bind", "Source": "/etc", "Target": "/x"}]},
        {"Mounts": [{"Type": "npipe", "Source": "/etc", "Target": "/x"}]},
        {"Mounts": [{"Target": "/x"}]},
        {
            "Mounts": [
                {
                    "Type": "volume",
                    "VolumeOptions": {"DriverConfig": {"Options": {"type": "none", "o": "bind", "device": "/etc"}}},
                }
            ]
        },
        {"Devices": [{"PathOnHost": "/dev/sda"}]},
        {"Devices": [{"PathOnHost": "/dev/../dev/sda"}]},
        {"DeviceRequests": [{"Count": -1}]},
        {"DeviceCgroupRules": ["a *:* rwm"]},
        {"CapAdd": ["SYS_ADMIN"]},
        {"CapAdd": ["cap_sys_admin"]},
        {"CapAdd": ["ALL"]},
        {"NetworkMode": "host"},
        {"NetworkMode": "container:a"},
        {"NetworkMode": "other"},
        {"NetworkMode": ["host"]},
        {"PidMode": "host"},
        {"PidMode": "container:a"},
        {"PidMode": ["host"]},
        {"IpcMode": "host"},
        {"UTSMode": "host"},
        {"UsernsMode": "host"},
        {"CgroupnsMode": "host"},
        {"SecurityOpt": ["seccomp=unconfined"]},
        {"SecurityOpt": [["no-new-privileges"]]},
        {"MaskedPaths": []},
        {"ReadonlyPaths": []},
        {"Sysctls": {"net.ipv4.ip_forward": "1"}},
        {"VolumesFrom": ["a"]},
        {"CgroupParent": "/"},
        {"Runtime": "other"},
        {"Annotations": {"run.oci.keep_original_groups": "1"}},
        {"SomethingNew": True},
    ],
)
def test_what_leads_to_the_host_is_refused(host):
    decision = judged({"HostConfig": host}, **{"host-mounts": ["/srv"], "networks": ["ci-*"]})
    assert not decision.allow
    assert decision.reason.startswith("rule 1: ")


@pytest.mark.parametrize(
    "host",
    [
        None,
        {},
        {"Privileged": False, "Binds": None, "MaskedPaths": None, "CapAdd": []},
        {"Memory": 1 << 20, "RestartPolicy": {"Name": "always"}, "PortBindings": {"80/tcp": [{}]}, "Init": True},
        {"Binds": ["/srv:/a", "/srv/x:/b:ro", "data:/c", "/d"]},
        {"Mounts": [{"Type": "bind", "Source": "/srv/x"}, {"Type": "tmpfs"}, {"Type": "volume", "Source": "data"}]},
        {"Mounts": [{"Type": "volume", "VolumeOptions": {"DriverConfig": {"Options": {"type": "tmpfs", "device": "/x"}}}}]},
        {"CapAdd": ["CAP_NET_ADMIN", "net_raw"]},
        {"Devices": [{"PathOnHost": "/dev/null"}]},
        {"NetworkMode": "ci-7"},
        {"NetworkMode": "default"},
        {"PidMode": "", "IpcMode": "private", "CgroupnsMode": "private"},
        {"SecurityOpt": ["no-new-privileges"]},
        {"Sysctls": {"net.ipv4.ip_forward": "1"}},
    ],
)
def test_what_is_harmless_or_named_is_allowed(host):
    limits = {
        "host-mounts": ["/srv"],
        "networks": ["ci-*"],
        "capabilities": ["NET_ADMIN", "NET_RAW"],
        "devices": ["/dev/null"],
        "fields": ["Sysctls"],
    }
    decision = judged({"HostConfig": host}, **limits)
    assert decision.allow, decision.reason


def test_links_are_followed(tmp_path):
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside" / "out").symlink_to("/etc")
    (tmp_path / "inside" / "deep").mkdir()
    (tmp_path / "inside" / "far").symlink_to("/usr/lib/x")
    limits = {"host-mounts": [str(tmp_path / "inside")]}
    for source, allowed in (("inside/deep", True), ("inside/out", False), ("inside/far/../deep", False)):
        assert judged({"HostConfig": {"Binds": [f"{tmp_path}/{source}:/x"]}}, **limits).allow is allowed


@pytest.mark.parametrize(
    ("image", "allowed"),
    [
        ("busybox", True),
        ("docker.io/library/busybox:latest", False),
        ("ghcr.io/team/app:1", True),
        ("team/app", True),
        ("evil/ghcr.io/team/app", False),
        ("", False),
        (None, False),
        (["busybox"], False),
    ],
)
def test_images(image, allowed):
    limits = {"images": ["busybox", "ghcr.io/team/*", "docker.io/team/app:latest"]}
    assert judged({"Image": image}, **limits).allow is allowed


def test_networks_by_every_way():
    endpoint = {"NetworkingConfig": {"EndpointsConfig": {"other": {}}}}
    assert judged(endpoint, networks=["ci-*"]).reason == "rule 1: the network other is not allowed"
    assert not judged({}, "/networks/other/connect", networks=["ci-*"]).allow
    assert judged({}, "/networks/ci-1/connect", networks=["ci-*"]).allow
    identity = "ab" * 32
    assert not judged({"HostConfig": {"NetworkMode": identity}}, networks=["**"]).allow
    assert judged({"HostConfig": {"NetworkMode": identity}}, networks=[identity]).allow
    assert not judged({"HostConfig": {"NetworkMode": "host"}}, networks=["**"]).allow
    assert judged({"HostConfig": {"NetworkMode": "host"}}, networks=["host"]).allow
    assert not judged(None, "/build", {"networkmode": "host"}).allow
    assert judged(None, "/build", {"networkmode": "default"}).allow


def test_other_requests_that_give_something_to_containers():
    assert not judged({"Privileged": True, "Cmd": ["sh"]}, "/containers/a/exec").allow
    assert judged({"Cmd": ["sh"]}, "/containers/a/exec").allow
    assert not judged({"Devices": [{"PathOnHost": "/dev/sda"}]}, "/containers/a/update").allow
    assert judged({"Memory": 7, "RestartPolicy": {"Name": "no"}}, "/containers/a/update").allow
    assert not judged({"DriverOpts": {"type": "none", "o": "bind", "device": "/"}}, "/volumes/create").allow
    assert not judged({"DriverOpts": {"type": "overlay", "o": "lowerdir=/etc"}}, "/volumes/create").allow
    assert judged({"DriverOpts": {"type": "nfs", "o": "addr=10.0.0.1", "device": ":/x"}}, "/volumes/create").allow
    assert judged({"Name": "data"}, "/volumes/create").allow
    assert not judged(None, "/session").allow


@pytest.mark.parametrize("body", [None, [], "x", 5])
def test_what_cannot_be_read_cannot_be_allowed(body):
    assert not judged(body).allow
