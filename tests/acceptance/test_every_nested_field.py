"""Every field that the API's definition has for a new container, also below the first level: none is ignored in silence.

`tests/data/create-fields.tsv` is the list. Fields of the first level are tried in `test_every_field`, those below here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.test_every_field import CONFIG, HOST, Refused, Seen, Shown, try_field
from wharfie.engine.model.container import ContainerCreate

FIELDS = Path(__file__).parents[1] / "data" / "create-fields.tsv"
ENDPOINT = "NetworkingConfig.EndpointsConfig{}."
NET = "NET"
"""Stands for the network of these tests in values and outputs, and SUBNET for the first three numbers of its addresses."""
_HOLDERS = frozenset({"object", "list of objects", "map of objects", "map of lists of objects"})
"""Types that are nothing but their own fields."""


@dataclass(frozen=True, kw_only=True)
class Above:
    """The case of the field above has it, and could not pass if it was ignored."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """It says what came of a request: what a client sends there is replaced by the start, as with Docker."""

    value: Any


def health(**fields: Any) -> Refused:
    name = next(iter(fields))
    text = f"{name} in Healthcheck cannot be {'negative' if name == 'Retries' else 'less than 1ms'}"
    return Refused(value={"Test": ["CMD", "true"], **fields}, text=text)


def mount(**fields: Any) -> list[dict[str, Any]]:
    return [{"Type": "bind", "Source": "/etc", "Target": "/m", **fields}]


def volume(**options: Any) -> list[dict[str, Any]]:
    return [{"Type": "volume", "Target": "/m", "VolumeOptions": options}]


def tmpfs(**options: Any) -> list[dict[str, Any]]:
    return [{"Type": "tmpfs", "Target": "/m", "TmpfsOptions": options}]


BIND = "HostConfig.Mounts[].BindOptions."
VOLUME = "HostConfig.Mounts[].VolumeOptions."
READ_ONLY = "mount option ReadOnlyNonRecursive or ReadOnlyForceRecursive needs ReadOnly"
NESTED: dict[str, Any] = {
    "Healthcheck.Test": Refused(value={"Test": ["NOSUCH", "x"]}, text="invalid health check"),
    "Healthcheck.Interval": health(Interval=1000),
    "Healthcheck.Timeout": health(Timeout=1000),
    "Healthcheck.Retries": health(Retries=-1),
    "Healthcheck.StartPeriod": health(StartPeriod=1000),
    "Healthcheck.StartInterval": health(StartInterval=1000),
    "HostConfig.DeviceRequests[].Driver": Refused(
        value=[{"Driver": "nosuch"}], text='could not select device driver "nosuch"', status=500, at_start=True
    ),
    "HostConfig.DeviceRequests[].Count": Refused(
        value=[{"Count": 1, "DeviceIDs": ["0"]}], text="cannot set both Count and DeviceIDs on device request"
    ),
    "HostConfig.DeviceRequests[].DeviceIDs": Refused(
        value=[{"Driver": "cdi", "DeviceIDs": ["a.b/c=d"]}],
        text="CDI device injection failed: unresolvable CDI devices a.b/c=d",
        status=500,
        at_start=True,
    ),
    "HostConfig.DeviceRequests[].Capabilities": Refused(
        value=[{"Capabilities": [["nosuch"]]}],
        text='could not select device driver "" with capabilities: [[nosuch]]',
        status=500,
        at_start=True,
    ),
    "HostConfig.DeviceRequests[].Options": Refused(
        value=[{"Driver": "cdi", "DeviceIDs": ["a.b/c=d"], "Options": {"a": "b"}}],
        text="unexpected options in CDI device request",
    ),
    "HostConfig.LogConfig.Type": Refused(value={"Type": "nosuch"}, text="no log driver named 'nosuch' is registered"),
    "HostConfig.LogConfig.Config": Refused(
        value={"Type": "json-file", "Config": {"nosuch": "1"}}, text="unknown log opt 'nosuch' for json-file log driver"
    ),
    "HostConfig.PortBindings{}[].HostIp": Refused(
        value={"80/tcp": [{"HostIp": "nosuch"}]}, text="invalid IP address for a published port: 'nosuch'"
    ),
    "HostConfig.PortBindings{}[].HostPort": Refused(
        value={"80/tcp": [{"HostPort": "nosuch"}]}, text="invalid port specification: 'nosuch'"
    ),
    "HostConfig.RestartPolicy.Name": Refused(value={"Name": "nosuch"}, text="unknown policy 'nosuch'"),
    "HostConfig.RestartPolicy.MaximumRetryCount": Refused(
        value={"Name": "on-failure", "MaximumRetryCount": -1}, text="maximum retry count cannot be negative"
    ),
    "HostConfig.Mounts[].Target": Refused(value=mount(Target="m"), text="'m' mount path must be absolute"),
    "HostConfig.Mounts[].Source": Refused(value=mount(Source="/nosuch"), text="bind source path does not exist: /nosuch"),
    "HostConfig.Mounts[].Type": Refused(value=mount(Type="nosuch"), text="mount type unknown"),
    "HostConfig.Mounts[].ReadOnly": Seen(
        value=mount(ReadOnly=True), line="touch /m/x 2>&1 | grep -o Read-only", output="Read-only"
    ),
    "HostConfig.Mounts[].Consistency": Shown(value=mount(Consistency="cached"), why="it means nothing on Linux"),
    BIND + "Propagation": Refused(
        value=mount(BindOptions={"Propagation": "nosuch"}), text="invalid propagation mode: nosuch"
    ),
    BIND + "NonRecursive": Shown(value=mount(BindOptions={"NonRecursive": True}), why="test_mount_options"),
    BIND + "CreateMountpoint": Shown(value=mount(BindOptions={"CreateMountpoint": True}), why="test_mount_options"),
    BIND + "ReadOnlyNonRecursive": Refused(value=mount(BindOptions={"ReadOnlyNonRecursive": True}), text=READ_ONLY),
    BIND + "ReadOnlyForceRecursive": Refused(value=mount(BindOptions={"ReadOnlyForceRecursive": True}), text=READ_ONLY),
    VOLUME + "NoCopy": Shown(value=volume(NoCopy=True), why="test_volumes"),
    VOLUME + "Labels": Shown(value=volume(Labels={"a": "b"}), why="test_volumes"),
    VOLUME + "DriverConfig.Name": Refused(
        value=volume(DriverConfig={"Name": "nosuch"}),
        text='error looking up volume plugin nosuch: plugin "nosuch" not found',
    ),
    VOLUME + "DriverConfig.Options": Refused(
        value=volume(DriverConfig={"Name": "local", "Options": {"a": "b"}}), text='invalid option: "a"'
    ),
    VOLUME + "Subpath": Refused(value=volume(Subpath="../x"), text="subpath must be a relative path within the volume"),
    "HostConfig.Mounts[].ImageOptions.Subpath": Seen(
        value=mount(Type="image", Source="busybox", ImageOptions={"Subpath": "bin"}), line="ls -d /m/sh", output="/m/sh"
    ),
    "HostConfig.Mounts[].TmpfsOptions.SizeBytes": Seen(
        value=tmpfs(SizeBytes=1 << 20), line="df -k /m | tail -1 | awk '{print $2}'", output="1024"
    ),
    "HostConfig.Mounts[].TmpfsOptions.Options": Seen(
        value=tmpfs(Options=[["nr_inodes", "77"]]), line="df -i /m | tail -1 | awk '{print $2}'", output="77"
    ),
    ENDPOINT + "IPAMConfig.IPv4Address": Seen(
        value={"IPAMConfig": {"IPv4Address": "SUBNET.77"}}, line="ip addr | grep -o SUBNET.77/24", output="SUBNET.77/24"
    ),
    ENDPOINT + "IPAMConfig.IPv6Address": Refused(
        value={"IPAMConfig": {"IPv6Address": "2001:db8::5"}},
        text="no configured subnet or ip-range contain the IP address 2001:db8::5",
    ),
    ENDPOINT + "IPAMConfig.LinkLocalIPs": Seen(
        value={"IPAMConfig": {"LinkLocalIPs": ["169.254.7.7"]}}, line="ip addr | grep -o 169.254.7.7", output="169.254.7.7"
    ),
    ENDPOINT + "Links": Shown(value={"Links": ["other:alias"]}, why="test_links"),
    ENDPOINT + "MacAddress": Seen(
        value={"MacAddress": "02:42:0a:00:00:98"}, line="cat /sys/class/net/eth0/address", output="02:42:0a:00:00:98"
    ),
    ENDPOINT + "Aliases": Seen(
        value={"Aliases": ["other-name"]},
        line="ping -c 1 -W 9 other-name | grep -o 'PING other-name'",
        output="PING other-name",
    ),
    ENDPOINT + "DriverOpts": Refused(
        value={"DriverOpts": {"com.docker.network.endpoint.sysctls": "net.ipv4.nosuch=1"}},
        text="invalid endpoint sysctl 'net.ipv4.nosuch=1'",
    ),
    ENDPOINT + "GwPriority": Shown(value={"GwPriority": 7}, why="test_network_options"),
    ENDPOINT + "NetworkID": Refused(
        value={"NetworkID": "nosuch"}, text="network nosuch not found", status=404, at_start=True
    ),
    ENDPOINT + "EndpointID": Outcome(value="nosuch"),
    ENDPOINT + "Gateway": Outcome(value="1.2.3.4"),
    ENDPOINT + "IPAddress": Outcome(value="1.2.3.4"),
    ENDPOINT + "IPPrefixLen": Outcome(value=3),
    ENDPOINT + "IPv6Gateway": Outcome(value="2001:db8::1"),
    ENDPOINT + "GlobalIPv6Address": Outcome(value="2001:db8::2"),
    ENDPOINT + "GlobalIPv6PrefixLen": Outcome(value=3),
    ENDPOINT + "DNSNames": Outcome(value=["nosuch"]),
}
for above, names in {
    "BlkioWeightDevice": ("Path", "Weight"),
    **{f"BlkioDevice{what}": ("Path", "Rate") for what in ("ReadBps", "WriteBps", "ReadIOps", "WriteIOps")},
    "Devices": ("PathOnHost", "PathInContainer", "CgroupPermissions"),
    "Ulimits": ("Name", "Soft", "Hard"),
    "Mounts": ("TmpfsOptions.Mode",),
}.items():
    NESTED |= {f"HostConfig.{above}[].{field}": Above() for field in names}


def listed() -> dict[str, str]:
    """Path and type of every field."""
    lines = FIELDS.read_text().splitlines()
    return dict(line.split("\t") for line in lines if not line.startswith("#"))


def is_nested(path: str) -> bool:
    return path.startswith("NetworkingConfig") or re.search(r"[.\[{]", path.removeprefix("HostConfig.")) is not None


def known(schema: Mapping[str, Any], path: str) -> bool:
    """Whether our model of the body has the field."""
    here: Mapping[str, Any] = schema
    for word in re.findall(r"[A-Za-z0-9]+|\[\]|\{\}", path):
        here = resolved(schema, here)
        step = {"[]": "items", "{}": "additionalProperties"}.get(word)
        found = here.get(step) if step else here.get("properties", {}).get(word)
        if not isinstance(found, Mapping):
            return False
        here = found
    return True


def resolved(schema: Mapping[str, Any], here: Mapping[str, Any]) -> Mapping[str, Any]:
    """Without references and without "or null"."""
    for option in here.get("anyOf", [here]):
        if option.get("type") != "null":
            here = option
    if "$ref" in here:
        return resolved(schema, schema["$defs"][here["$ref"].rpartition("/")[2]])
    return here


def test_the_list_has_no_field_without_a_case():
    fields = listed()
    tried = {*CONFIG, *(f"HostConfig.{field}" for field in HOST), "HostConfig", *NESTED}
    wanted = {path for path, kind in fields.items() if not (is_nested(path) and kind in _HOLDERS)}
    assert wanted - tried == set()
    assert NESTED.keys() - fields.keys() == set()


def test_no_field_is_unknown_to_the_model():
    schema = ContainerCreate.model_json_schema(by_alias=True)
    assert [path for path in listed() if not known(schema, path)] == []


def test_cases_above_have_the_fields_that_they_stand_for():
    for path, case in NESTED.items():
        if isinstance(case, Above):
            above, _, rest = path.removeprefix("HostConfig.").partition("[].")
            value = HOST[above].value[0]
            for word in rest.split("."):
                value = value[word]


@pytest.fixture(scope="module")
def network(daemon) -> Iterator[tuple[str, str]]:
    """Its name, and the first three numbers of its addresses (RFC 2544 has them for tests)."""
    subnet = f"198.18.{daemon.subnet.split('.')[1]}"
    name = f"fields-{daemon.tag}"
    daemon.docker("network", "create", "--subnet", f"{subnet}.0/24", name)
    yield name, subnet
    daemon.docker("network", "rm", name)


def filled(value: Any, network: tuple[str, str]) -> Any:
    if isinstance(value, str):
        return value.replace("SUBNET", network[1])
    if isinstance(value, list):
        return [filled(item, network) for item in value]
    return {key: filled(item, network) for key, item in value.items()} if isinstance(value, dict) else value


def body_of(path: str, case: Any, network: tuple[str, str]) -> dict[str, Any]:
    value = filled(case.value, network)
    line = filled(getattr(case, "line", "true"), network)
    body: dict[str, Any] = {"Image": "busybox", "Cmd": ["sh", "-c", line], "HostConfig": {}}
    if path.startswith(ENDPOINT):
        body["HostConfig"]["NetworkMode"] = network[0]
        body["NetworkingConfig"] = {"EndpointsConfig": {network[0]: value}}
    elif path.startswith("HostConfig."):
        body["HostConfig"][re.findall(r"\w+", path)[1]] = value
    else:
        body[path.partition(".")[0]] = value
    return body


def refused_at_once(case: Any) -> bool:
    return isinstance(case, Refused) and not case.at_start


def test_what_is_refused_at_once(daemon, network):
    wrong = {}
    for path, case in NESTED.items():
        if refused_at_once(case):
            status, answer = daemon.request("POST", "/containers/create", body_of(path, case, network))
            if status != case.status or case.text not in answer["message"]:
                wrong[path] = answer
    assert wrong == {}


@pytest.mark.parametrize(
    "path",
    [path for path, case in NESTED.items() if isinstance(case, Refused | Seen | Shown) and not refused_at_once(case)],
)
def test_nested_field(daemon, name, network, path):
    case = NESTED[path]
    if isinstance(case, Seen):
        case = Seen(value=case.value, line=case.line, output=filled(case.output, network))

    def shown() -> Any:
        document = daemon.inspect(name)
        if path.startswith(ENDPOINT):
            field = next(iter(case.value))
            return {field: document["NetworkSettings"]["Networks"][network[0]][field]}
        return document["HostConfig"][re.findall(r"\w+", path)[1]]

    try_field(daemon, name, body_of(path, case, network), case, shown)


def test_what_came_of_an_endpoint_is_not_asked_for(daemon, name, network):
    sent = {path.rpartition(".")[2]: case.value for path, case in NESTED.items() if isinstance(case, Outcome)}
    body = {
        "Image": "busybox",
        "Cmd": ["sleep", "1000"],
        "HostConfig": {"NetworkMode": network[0]},
        "NetworkingConfig": {"EndpointsConfig": {network[0]: sent}},
    }
    assert daemon.request("POST", f"/containers/create?name={name}", body)[0] == 201
    daemon.docker("start", name)
    found = daemon.inspect(name)["NetworkSettings"]["Networks"][network[0]]
    assert [field for field, value in sent.items() if found[field] == value] == []
    assert found["IPAddress"].startswith(network[1])


def test_options_of_another_kind_of_mount(daemon):
    for kind in ("bind", "volume", "tmpfs", "image"):
        source = {"bind": "/etc", "image": "busybox"}.get(kind, "")
        for options in ("BindOptions", "VolumeOptions", "TmpfsOptions", "ImageOptions"):
            if options.lower() == f"{kind}options":
                continue
            mounts = [{"Type": kind, "Source": source, "Target": "/m", options: {}}]
            body = {"Image": "busybox", "Cmd": ["true"], "HostConfig": {"Mounts": mounts}}
            text = f'invalid mount config for type "{kind}": field {options} must not be specified'
            assert daemon.request("POST", "/containers/create", body) == (400, {"message": text})


def test_options_of_a_tmpfs_are_known_ones(daemon):
    for option in (["nosuch"], ["nosuch", "1"], ["noexec", "a", "b"], [], ["size=1", "x,exec"]):
        body = {"Image": "busybox", "Cmd": ["true"], "HostConfig": {"Mounts": tmpfs(Options=[option])}}
        status, answer = daemon.request("POST", "/containers/create", body)
        assert (status, "invalid tmpfs option" in answer["message"]) == (400, True)


def test_a_volume_s_path_is_taken_from_the_root(daemon, name):
    body = {"Image": "busybox", "Cmd": ["sh", "-c", "mount | grep -c ' /rel/path '"], "Volumes": {"rel/path": {}}}
    case = Seen(value=None, line="", output="1")
    try_field(daemon, name, body, case, lambda: None)


def test_an_annotation_has_a_name(daemon):
    body = {"Image": "busybox", "Cmd": ["true"], "HostConfig": {"Annotations": {"": "x"}}}
    status, answer = daemon.request("POST", "/containers/create", body)
    assert status == 400
    assert answer["message"] == "invalid Annotations: the empty string is not permitted as an annotation key"
