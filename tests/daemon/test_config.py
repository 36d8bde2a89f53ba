"""daemon.json and flags."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from wharfie.daemon import config, listeners, mapping
from wharfie.daemon.config import DaemonConfig
from wharfie.daemon.flags import command
from wharfie.daemon.keys import KEYS, Fate
from wharfie.engine.settings import AddressPool
from wharfie.spi.errors import InvalidArgument


def validate(*arguments: str) -> Result:
    return CliRunner().invoke(command, ["--validate", *arguments])


def refused(file: dict[str, Any], flags: dict[str, Any] | None = None) -> str:
    with pytest.raises(InvalidArgument) as caught:
        loaded, _ = config.load(file, flags or {})
        mapping.driver_sections(loaded)
    return caught.value.message


def loaded(file: dict[str, Any]) -> DaemonConfig:
    return config.load(file, {})[0]


def test_every_supported_key_is_a_field_and_every_field_a_key():
    supported = {key.name for key in KEYS if key.fate is Fate.SUPPORTED}
    fields = {field.alias or name for name, field in DaemonConfig.model_fields.items()}
    assert supported == fields


def test_every_other_key_says_why():
    assert all(key.why for key in KEYS if key.fate is not Fate.SUPPORTED)


def test_unknown_keys_are_named_with_the_nearest():
    message = refused({"debgu": True, "zzz": 1})
    assert message.startswith("the following directives don't match any configuration option: debgu, zzz")
    assert "did you mean debug?" in message


def test_a_key_both_ways_is_a_conflict():
    message = refused({"debug": True, "hosts": ["unix:///a"]}, {"debug": False, "hosts": ["unix:///b", "tcp://1.2.3.4:5"]})
    assert message == (
        "the following directives are specified both as a flag and in the configuration file: "
        "debug: (from flag: false, from file: true), "
        "hosts: (from flag: [unix:///b tcp://1.2.3.4:5], from file: [unix:///a])"
    )


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ({"debug": "yes"}, "debug: "),
        ({"log-opts": {"max-file": 3}}, "log-opts.max-file: 3"),
        ({"mtu": 5}, "mtu: 5"),
        ({"bip": "10.0.0.1"}, "prefix length"),
        ({"bip": "10.0.0.300/24"}, "bip: "),
        ({"dns": ["nowhere"]}, 'dns: ["nowhere"]'),
        ({"default-shm-size": "lots"}, "default-shm-size"),
        ({"log-level": "loud"}, "log-level"),
        ({"labels": ["a=1", "a=2"]}, "conflict labels"),
        ({"labels": ["a"]}, "KEY=VALUE"),
        ({"storage-opts": ["size=1"]}, "DRIVER.OPTION=VALUE"),
        ({"iptables": False, "icc": False}, "icc"),
        ({"default-gateway": "10.1.2.3"}, "default-gateway needs the subnet"),
        ({"default-gateway": "10.1.2.3", "bip": "10.1.3.1/24"}, "10.1.2.3 is not in the subnet"),
        ({"default-gateway-v6": "10.1.2.3", "fixed-cidr-v6": "fd00::/64"}, "10.1.2.3 is not in the subnet"),
        ({"default-gateway": "router"}, "default-gateway: "),
        ({"tlsverify": True, "tls": False}, "tlsverify"),
        ({"default-address-pools": [{"base": "10.0.0.0/16", "size": 8}]}, "size 8"),
        ({"selinux-enabled": True}, "selinux-enabled is not supported"),
        ({"iptables": True, "drivers": {"network.bridge": {"iptables": False}}}, "given both as iptables and in"),
    ],
)
def test_bad_values_name_the_key(file, words):
    assert words in refused(file)


@pytest.mark.parametrize(
    "address", ["9323", "127.0.0.1", "127.0.0.1:http", "127.0.0.1:70000", "http://x:1", "a@b:1", "x:1/metrics"]
)
def test_addresses_of_metrics_that_are_none(address):
    with pytest.raises(InvalidArgument, match=r"metrics-addr: .* expected ADDRESS:PORT"):
        listeners.check_hosts(loaded({"metrics-addr": address}))


@pytest.mark.parametrize("address", ["127.0.0.1:9323", ":9323", "[::1]:9323", "localhost:0"])
def test_addresses_of_metrics(address):
    listeners.check_hosts(loaded({"metrics-addr": address}))


def test_a_switch_that_is_refused_may_be_off():
    assert loaded({"selinux-enabled": False}).debug is False


def test_keys_without_effect_are_reported():
    _, warnings = config.load({"userland-proxy-path": "/x"}, {"exec-opts": ["native.cgroupdriver=systemd"]})
    assert [warning.partition(" ")[0] for warning in warnings] == ["userland-proxy-path", "exec-opts"]
    assert all("has no effect: " in warning for warning in warnings)


def test_dockers_keys_become_drivers_settings():
    sections = mapping.driver_sections(
        loaded(
            {
                "storage-opts": ["overlay2.sync=false", "acme.pool=x=y"],
                "ip-forward": False,
                "allow-direct-routing": True,
                "bridge-accept-fwmark": "1",
                "default-address-pools": [{"base": "10.0.0.0/8", "size": 24}],
                "insecure-registries": ["r:5000"],
                "runtimes": {"crun": {"path": "/opt/crun"}, "mine": {"path": "runc", "runtimeArgs": ["--debug"]}},
                "drivers": {"storage.acme": {"server": "s"}},
            }
        )
    )
    assert sections == {
        "storage.acme": {"server": "s", "pool": "x=y"},
        "storage.overlay2": {"sync": "false"},
        "network.bridge": {"ip-forward": False, "allow-direct-routing": True, "bridge-accept-fwmark": "1"},
        "ipam.default": {"default-address-pools": [{"base": "10.0.0.0/8", "size": 24}]},
        "registry.oci": {"insecure-registries": ["r:5000"]},
        "runtime.crun": {"path": "/opt/crun"},
        "runtime.mine": {"path": "runc", "runtime-args": ["--debug"]},
    }


def test_runtimes_of_the_file_and_of_flags_add_up():
    file = {"runtimes": {"a": {"path": "/a"}, "b": {"path": "/b"}}}
    both, _ = config.load(file, {"runtimes": {"b": {"path": "/other"}, "c": {"path": "/c"}}})
    assert {name: runtime.path for name, runtime in both.runtimes.items()} == {"a": "/a", "b": "/other", "c": "/c"}
    assert "runtimes.a: " in refused({"runtimes": {"a": {"runtimeType": "io.containerd.runsc.v1"}}})
    assert "runtimes.a.path" in refused({"runtimes": {"a": {}}})
    assert refused({"runtimes": ["a"]}, {"runtimes": {"b": {"path": "/b"}}}).startswith("runtimes: ")


def test_engine_settings(tmp_path):
    settings = mapping.engine_settings(
        loaded(
            {
                "data-root": str(tmp_path),
                "default-shm-size": "32m",
                "default-ulimits": {"nofile": {"Name": "nofile", "Hard": 2, "Soft": 1}},
                "default-address-pools": [{"base": "10.0.0.0/8", "size": 24}],
                "bridge": "br7",
                "dns-opts": ["ndots:2"],
            }
        ),
        "01234567",
    )
    assert settings.data_root == tmp_path
    assert settings.default_shm_size == 32 * 1024 * 1024
    assert (settings.default_ulimits["nofile"].soft, settings.default_ulimits["nofile"].hard) == (1, 2)
    assert settings.default_address_pools == (AddressPool(base="10.0.0.0/8", size=24),)
    assert (settings.bridge, settings.dns_options, settings.instance) == ("br7", ("ndots:2",), "01234567")


def test_proxies_of_either_form_reach_the_environment():
    found = mapping.proxy_environment(loaded({"proxies": {"http-proxy": "http://p"}, "no-proxy": "127.0.0.0/8"}))
    assert found == {
        "http_proxy": "http://p",
        "HTTP_PROXY": "http://p",
        "no_proxy": "127.0.0.0/8",
        "NO_PROXY": "127.0.0.0/8",
    }


@pytest.mark.parametrize("text", ['{"debug": ', "[1]", '{"debug": true, "debug": false}', "{" * 100_000])
def test_broken_files_are_named(tmp_path, text):
    file = tmp_path / "daemon.json"
    file.write_text(text)
    with pytest.raises(InvalidArgument, match=f"unable to configure the daemon with file {file}: "):
        config.read_file(file, required=True)


def test_a_missing_file_matters_only_when_it_was_named(tmp_path):
    assert config.read_file(tmp_path / "none", required=False) == {}
    with pytest.raises(InvalidArgument, match="no such file"):
        config.read_file(tmp_path / "none", required=True)


def test_validate(tmp_path: Path):
    file = tmp_path / "daemon.json"
    file.write_text(json.dumps({"debug": True, "userland-proxy-path": "/x"}))
    result = validate("--config-file", str(file))
    assert result.exit_code == 0
    assert "configuration OK" in result.output
    assert "warning: userland-proxy-path has no effect" in result.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--storage-driver", "zfs"], "there is no storage driver of this name"),
        (["-H", "http://x"], "expected unix://PATH"),
        (["-H", "unix://relative"], "absolute path"),
        (["-H", "tcp://h:port"], "expected tcp://ADDRESS:PORT"),
        (["--authorization-plugin", "nobody"], "there is no authz driver of this name"),
        (["--tls", "--tlscert", "/none", "--tlskey", "/none"], "tlscert: /none cannot be read"),
        (["--default-ulimit", "nofile=x"], "expected NAME=SOFT[:HARD]"),
        (["--default-address-pool", "base=10.0.0.0/8"], "expected base=CIDR,size=N"),
    ],
)
def test_validate_refuses(arguments, words):
    result = validate(*arguments)
    assert result.exit_code != 0
    assert words in result.output


def test_flags_are_read_as_the_file_is():
    command_line = [
        *("--debug", "--ipv6=false", "--icc", "--mtu", "1400", "--dns", "192.0.2.1", "--dns", "192.0.2.2"),
        *("--log-opt", "max-size=1m", "--default-ulimit", "nofile=1:2", "--default-network-opt", "bridge=a=b"),
    ]
    context = command.make_context("wharfied", command_line)
    given = {name.replace("_", "-"): value for name, value in context.params.items() if value is not None}
    settings, _ = config.load({}, {name: value for name, value in given.items() if name not in ("validate", "config-file")})
    assert (settings.debug, settings.ipv6, settings.icc, settings.mtu) == (True, False, True, 1400)
    assert settings.dns == ["192.0.2.1", "192.0.2.2"]
    assert settings.log_opts == {"max-size": "1m"}
    assert settings.default_ulimits["nofile"].soft == 1
    assert settings.default_network_opts == {"bridge": {"a": "b"}}
