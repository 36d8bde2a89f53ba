"""daemon.json and flags, read together and validated.

The rules are Docker's: an unknown key, and a key that is given both ways, keep the daemon from starting, with a message
that names the key. Keys that Docker has and this daemon has not are refused or reported, never ignored in silence.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from wharfie.daemon.keys import BY_NAME, Fate
from wharfie.spi.errors import InvalidArgument

DEFAULT_FILE = Path("/etc/wharfie/daemon.json")
DEFAULT_HOST = "unix:///var/run/docker.sock"
DEFAULT_GROUP = "docker"
FILE_LIMIT = 1024 * 1024

_BOTH_WAYS = frozenset({"runtimes"})
"""Keys whose flags add to what the file says."""

_UNITS = {"": 1, "b": 1, "k": 1024, "m": 1024**2, "g": 1024**3, "t": 1024**4}
_SIZE = re.compile(r"(\d+)\s*([bkmgt]?)(?:i?b)?", re.IGNORECASE)


def _size(value: Any) -> Any:
    """Bytes from "64MiB", "64m" or a number."""
    if not isinstance(value, str):
        return value
    match = _SIZE.fullmatch(value.strip())
    if match is None:
        raise ValueError('expected a size like "64MiB"')
    return int(match[1]) * _UNITS[match[2].lower()]


def _address(value: str) -> str:
    return value and str(ip_address(value))


def _interface(value: str) -> str:
    if value and "/" not in value:
        raise ValueError("expected an address with its prefix length, like 192.168.1.1/24")
    return value and str(ip_interface(value))


def _network(value: str) -> str:
    return value and str(ip_network(value, strict=False))


Bytes = Annotated[int, BeforeValidator(_size), Field(gt=0)]
Text = Annotated[str, Field(min_length=1)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", populate_by_name=True, strict=True)


class Pool(_Part):
    base: str
    size: int

    @model_validator(mode="after")
    def _fits(self) -> Pool:
        network = ip_network(self.base, strict=False)
        if not network.prefixlen <= self.size <= network.max_prefixlen:
            raise ValueError(f"size {self.size} does not fit {self.base}")
        return self


class Ulimit(_Part):
    name: Annotated[str, Field(alias="Name")]
    hard: Annotated[int, Field(alias="Hard")]
    soft: Annotated[int, Field(alias="Soft")]


class Runtime(_Part):
    path: Text
    runtime_args: Annotated[list[str], Field(alias="runtimeArgs")] = []

    @model_validator(mode="before")
    @classmethod
    def _no_containerd(cls, value: Any) -> Any:
        for key in ("runtimeType", "options"):
            if isinstance(value, dict) and key in value:
                raise ValueError(f'{key} is for containerd\'s shims, which are not supported: name an OCI binary as "path"')
        return value


class Proxies(_Part):
    http_proxy: Annotated[str, Field(alias="http-proxy")] = ""
    https_proxy: Annotated[str, Field(alias="https-proxy")] = ""
    no_proxy: Annotated[str, Field(alias="no-proxy")] = ""


class Mirror(_Part):
    """`listen`: ADDRESS:PORT. With `tlscert` and `tlskey` by TLS, with `tlscacert` only for clients that it signed."""

    listen: Text
    tlscert: str = ""
    tlskey: str = ""
    tlscacert: str = ""

    @model_validator(mode="after")
    def _together(self) -> Mirror:
        if bool(self.tlscert) != bool(self.tlskey) or (self.tlscacert and not self.tlscert):
            raise ValueError("TLS needs both tlscert and tlskey")
        return self


class DaemonConfig(BaseModel):
    """All supported keys, by their names with dashes. Defaults are Docker's, but for the folders."""

    model_config = ConfigDict(
        extra="forbid", strict=True, alias_generator=lambda name: name.replace("_", "-"), populate_by_name=True
    )

    data_root: Text = "/var/lib/wharfie"
    exec_root: Text = "/run/wharfie"
    hosts: list[str] = [DEFAULT_HOST]
    pidfile: str = ""
    group: str | None = None
    tls: bool = False
    tlsverify: bool = False
    tlscacert: str = ""
    tlscert: str = ""
    tlskey: str = ""
    authorization_plugins: list[Text] = []

    debug: bool = False
    log_level: Literal["debug", "info", "warn", "error", "fatal"] = "info"
    log_format: Literal["text", "json"] = "text"
    experimental: bool = False
    labels: list[str] = []
    live_restore: bool = False
    shutdown_timeout: Annotated[int, Field(ge=-1)] = 15
    default_stop_timeout: Annotated[int, Field(ge=0)] = 10
    proxies: Proxies = Proxies()
    http_proxy: str = ""
    https_proxy: str = ""
    no_proxy: str = ""

    storage_driver: str = ""
    storage_opts: list[str] = []
    log_driver: Text = "json-file"
    log_opts: dict[str, str] = {}
    default_runtime: Text = "native"
    runtimes: dict[Text, Runtime] = {}
    default_network_driver: Text = "bridge"
    default_volume_driver: Text = "local"
    registry_driver: Text = "oci"
    registries: dict[str, Text] = {}
    drivers: dict[str, dict[str, Any]] = {}
    plugins: dict[str, dict[str, Any]] = {}
    disabled_plugins: list[str] = []
    required_plugins: list[str] = []

    bridge: str = ""
    bip: str = ""
    bip6: str = ""
    fixed_cidr: str = ""
    fixed_cidr_v6: str = ""
    default_gateway: str = ""
    default_gateway_v6: str = ""
    ipv6: bool = False
    icc: bool = True
    ip_masq: bool = True
    ip: str = "0.0.0.0"
    mtu: Annotated[int, Field(ge=68, le=65535)] = 1500
    default_address_pools: list[Pool] = []
    default_network_opts: dict[str, dict[str, str]] = {}
    host_gateway_ips: list[str] = []
    host_gateway_ip: str = ""
    dns: list[str] = []
    dns_opts: list[str] = []
    dns_search: list[str] = []
    userland_proxy: bool = True
    iptables: bool = True
    ip6tables: bool = True
    ip_forward: bool = True
    ip_forward_no_drop: bool = False
    allow_direct_routing: bool = False
    bridge_accept_fwmark: str = ""

    cdi_spec_dirs: list[str] = ["/etc/cdi", "/var/run/cdi"]
    cgroup_parent: Text = "/wharfie"
    default_shm_size: Bytes = 64 * 1024 * 1024
    default_ulimits: dict[str, Ulimit] = {}
    default_cgroupns_mode: Literal["", "host", "private"] = ""
    default_ipc_mode: Literal["shareable", "private"] = "private"
    init: bool = False
    init_path: str = ""
    no_new_privileges: bool = False
    userns_remap: str = ""
    seccomp_profile: str = "builtin"

    max_concurrent_downloads: Annotated[int, Field(ge=1)] = 3
    max_concurrent_uploads: Annotated[int, Field(ge=1)] = 5
    max_download_attempts: Annotated[int, Field(ge=1)] = 5
    insecure_registries: list[str] = []
    registry_mirrors: list[str] = []
    mirror: Mirror | None = None
    metrics_addr: str = ""

    @field_validator("ip", "host_gateway_ip", "default_gateway", "default_gateway_v6")
    @classmethod
    def _one_address(cls, value: str) -> str:
        return _address(value)

    @field_validator("dns", "host_gateway_ips")
    @classmethod
    def _addresses(cls, values: list[str]) -> list[str]:
        return [_address(value) for value in values]

    @field_validator("bip", "bip6")
    @classmethod
    def _one_interface(cls, value: str) -> str:
        return _interface(value)

    @field_validator("fixed_cidr", "fixed_cidr_v6")
    @classmethod
    def _one_network(cls, value: str) -> str:
        return _network(value)

    @field_validator("labels")
    @classmethod
    def _labels(cls, values: list[str]) -> list[str]:
        seen: dict[str, str] = {}
        for value in values:
            key, equals, text = value.partition("=")
            if not equals or not key:
                raise ValueError(f"bad attribute format: {value}, expected KEY=VALUE")
            if seen.setdefault(key, text) != text:
                raise ValueError(f"conflict labels for {key}={seen[key]} and {key}={text}")
        return values

    @field_validator("storage_opts")
    @classmethod
    def _storage_opts(cls, values: list[str]) -> list[str]:
        for value in values:
            name, equals, _ = value.partition("=")
            if not equals or "." not in name:
                raise ValueError(f'"{value}" is no storage option: expected DRIVER.OPTION=VALUE')
        return values

    @model_validator(mode="after")
    def _together(self) -> DaemonConfig:
        if not self.iptables and not self.icc:
            raise ValueError("icc cannot be false while iptables is false, for keeping containers apart is a firewall rule")
        for key, gateway, own, part in (
            ("default-gateway", self.default_gateway, self.bip, self.fixed_cidr),
            ("default-gateway-v6", self.default_gateway_v6, self.bip6, self.fixed_cidr_v6),
        ):
            if gateway and not (own or part):
                raise ValueError(f"{key} needs the subnet of the default bridge: set bip or fixed-cidr of its version too")
            if gateway and ip_address(gateway) not in ip_network(own or part, strict=False):
                raise ValueError(f"{key} {gateway} is not in the subnet of the default bridge")
        if self.tlsverify and "tls" in self.model_fields_set and not self.tls:
            raise ValueError("tlsverify is true while tls is false")
        return self

    @property
    def uses_tls(self) -> bool:
        return self.tls or self.tlsverify

    @property
    def pid_path(self) -> Path:
        return Path(self.pidfile or f"{self.exec_root}/wharfied.pid")


def read_file(path: Path, *, required: bool) -> dict[str, Any]:
    """The keys of a configuration file; none when it is missing and not `required`. Errors: InvalidArgument."""
    try:
        with path.open("rb") as file:
            text = file.read(FILE_LIMIT + 1)
    except FileNotFoundError:
        if required:
            raise InvalidArgument(f"unable to configure the daemon with file {path}: there is no such file") from None
        return {}
    except OSError as error:
        raise InvalidArgument(f"unable to configure the daemon with file {path}: {error}") from None
    if not text.strip():
        return {}
    try:
        document = json.loads(text, object_pairs_hook=_no_duplicates) if len(text) <= FILE_LIMIT else None
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"unable to configure the daemon with file {path}: {error}") from None
    if not isinstance(document, dict):
        raise InvalidArgument(f"unable to configure the daemon with file {path}: expected one JSON object")
    return document


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document: dict[str, Any] = {}
    for name, value in pairs:
        if name in document:
            raise ValueError(f"the key {name} is there twice")
        document[name] = value
    return document


def load(file: Mapping[str, Any], flags: Mapping[str, Any], *, where: str = "") -> tuple[DaemonConfig, list[str]]:
    """Both sources as one configuration, and warnings about keys without an effect. Errors: InvalidArgument."""
    prefix = f"unable to configure the daemon with file {where}: " if where else ""
    _check_unknown(file, prefix)
    _check_conflicts(file, flags, prefix)
    warnings = []
    for name in [*file, *flags]:
        key = BY_NAME[name]
        if key.fate is Fate.REFUSED and (file.get(name) or flags.get(name)):
            raise InvalidArgument(f"{prefix}{name} is not supported: {key.why}; remove it")
        if key.fate is Fate.ACCEPTED:
            warnings.append(f"{name} has no effect: {key.why}")
    merged = {**file, **flags}
    for name in _BOTH_WAYS & file.keys() & flags.keys():
        merged[name] = {**file[name], **flags[name]} if isinstance(file[name], dict) else file[name]
    values = {name: value for name, value in merged.items() if BY_NAME[name].fate is Fate.SUPPORTED}
    try:
        return DaemonConfig.model_validate(values), warnings
    except ValidationError as error:
        raise InvalidArgument(prefix + "; ".join(_faults(error))) from None


def _check_unknown(file: Mapping[str, Any], prefix: str) -> None:
    unknown = [name for name in file if name not in BY_NAME]
    if not unknown:
        return
    message = f"{prefix}the following directives don't match any configuration option: {', '.join(unknown)}"
    for name in unknown:
        near = difflib.get_close_matches(name, BY_NAME, 1)
        message += f" ({name}: did you mean {near[0]}?)" if near else ""
    raise InvalidArgument(message)


def _check_conflicts(file: Mapping[str, Any], flags: Mapping[str, Any], prefix: str) -> None:
    both = [name for name in file if name in flags and name not in _BOTH_WAYS]
    if both:
        conflicts = ", ".join(
            f"{name}: (from flag: {_shown(flags[name])}, from file: {_shown(file[name])})" for name in both
        )
        raise InvalidArgument(
            f"{prefix}the following directives are specified both as a flag and in the configuration file: {conflicts}"
        )


def _shown(value: Any) -> str:
    """As Go prints it, for people know these messages."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{' '.join(_shown(item) for item in value)}]"
    return str(value)


def _faults(error: ValidationError) -> Iterable[str]:
    for fault in error.errors(include_url=False):
        where = ".".join(str(part) for part in fault["loc"])
        text = fault["msg"].removeprefix("Value error, ")
        if not where:
            yield text
        else:
            yield f"{where}: {json.dumps(fault['input'], default=str)} is not valid: {text}"
