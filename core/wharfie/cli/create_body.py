"""From the flags of `run` to the body of `POST /containers/create` (API 1.50, ContainerCreateRequest)."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import click

from wharfie.cli.context import pairs
from wharfie.cli.ports import port_bindings
from wharfie.cli.units import size

Flags = Mapping[str, Any]


def create_body(image: str, command: tuple[str, ...], flags: Flags, *, detach: bool) -> dict[str, Any]:
    """Errors: click.BadParameter naming the flag."""
    exposed, bindings = port_bindings(flags["publish"], flags["expose"])
    binds, anonymous = _volumes(flags["volume"])
    attach = {stream.lower() for stream in flags["attach"]}
    streams = {
        "AttachStdin": not detach and flags["interactive"] and (not attach or "stdin" in attach),
        "AttachStdout": not detach and (not attach or "stdout" in attach),
        "AttachStderr": not detach and (not attach or "stderr" in attach),
    }
    body: dict[str, Any] = {
        "Hostname": flags["hostname"],
        "Domainname": flags["domainname"],
        "User": flags["user"],
        **streams,
        "Tty": flags["tty"],
        "OpenStdin": flags["interactive"],
        "StdinOnce": streams["AttachStdin"],
        "Env": _environment(flags),
        "Cmd": list(command) or None,
        "Image": image,
        "WorkingDir": flags["workdir"],
        "Entrypoint": [flags["entrypoint"]] if flags["entrypoint"] else None,
        "Labels": {**_label_files(flags["label_file"]), **pairs(flags["label"])},
        "Volumes": {path: {} for path in anonymous},
        "ExposedPorts": {port: {} for port in exposed},
        "HostConfig": _host_config(flags, binds, bindings),
        "NetworkingConfig": {"EndpointsConfig": _endpoints(flags)},
    }
    if flags["stop_signal"]:
        body["StopSignal"] = flags["stop_signal"]
    if flags["stop_timeout"] is not None:
        body["StopTimeout"] = flags["stop_timeout"]
    if health := _health(flags):
        body["Healthcheck"] = health
    return body


def _host_config(flags: Flags, binds: list[str], bindings: Mapping[str, Any]) -> dict[str, Any]:
    policy, _, times = flags["restart"].partition(":")
    if times and not times.isdigit():
        raise click.BadParameter("maximum retry count must be a number: on-failure:3", param_hint="--restart")
    config = {
        "Binds": binds or None,
        "Mounts": [_mount(text) for text in flags["mount"]],
        "Tmpfs": dict(text.partition(":")[::2] for text in flags["tmpfs"]),
        "VolumesFrom": list(flags["volumes_from"]),
        "VolumeDriver": flags["volume_driver"],
        "NetworkMode": _networks(flags)[0][0] if flags["network"] else "default",
        "PortBindings": bindings,
        "PublishAllPorts": flags["publish_all"],
        "RestartPolicy": {"Name": policy or "no", "MaximumRetryCount": int(times or 0)},
        "AutoRemove": flags["rm"],
        "Privileged": flags["privileged"],
        "ReadonlyRootfs": flags["read_only"],
        "CapAdd": list(flags["cap_add"]),
        "CapDrop": list(flags["cap_drop"]),
        "SecurityOpt": [_security(text) for text in flags["security_opt"]],
        "GroupAdd": list(flags["group_add"]),
        "Dns": list(flags["dns"]),
        "DnsSearch": list(flags["dns_search"]),
        "DnsOptions": list(flags["dns_option"]),
        "ExtraHosts": [_extra_host(text) for text in flags["add_host"]],
        "Links": list(flags["link"]),
        "LogConfig": {"Type": flags["log_driver"], "Config": pairs(flags["log_opt"])},
        "StorageOpt": pairs(flags["storage_opt"]) or None,
        "Annotations": pairs(flags["annotation"]),
        "Sysctls": pairs(flags["sysctl"]),
        "Ulimits": [_ulimit(text) for text in flags["ulimit"]],
        "Devices": [_device(text) for text in flags["device"]],
        "DeviceCgroupRules": list(flags["device_cgroup_rule"]),
        "IpcMode": flags["ipc"],
        "PidMode": flags["pid"],
        "UTSMode": flags["uts"],
        "UsernsMode": flags["userns"],
        "CgroupnsMode": flags["cgroupns"],
        "CgroupParent": flags["cgroup_parent"],
        "CpusetCpus": flags["cpuset_cpus"],
        "CpusetMems": flags["cpuset_mems"],
        "Runtime": flags["runtime"],
        "Memory": flags["memory"] or 0,
        "MemoryReservation": flags["memory_reservation"] or 0,
        "MemorySwap": flags["memory_swap"] or 0,
        "NanoCpus": round((flags["cpus"] or 0) * 1e9),
        "CpuShares": flags["cpu_shares"] or 0,
        "CpuPeriod": flags["cpu_period"] or 0,
        "CpuQuota": flags["cpu_quota"] or 0,
        "BlkioWeight": flags["blkio_weight"] or 0,
        "OomScoreAdj": flags["oom_score_adj"] or 0,
        "OomKillDisable": flags["oom_kill_disable"],
        "ShmSize": flags["shm_size"] or 0,
    }
    if flags["pids_limit"] is not None:
        config["PidsLimit"] = flags["pids_limit"]
    if flags["memory_swappiness"] is not None:
        config["MemorySwappiness"] = flags["memory_swappiness"]
    if flags["init"]:
        config["Init"] = True
    if flags["tty"]:
        window = os.get_terminal_size() if os.isatty(1) else os.terminal_size((0, 0))
        config["ConsoleSize"] = [window.lines, window.columns]
    return config


def _environment(flags: Flags) -> list[str]:
    entries = [line for file in flags["env_file"] for line in _lines(file, "--env-file")] + list(flags["env"])
    known: list[str] = []
    for entry in entries:
        if "=" in entry:
            known.append(entry)
        elif entry in os.environ:
            known.append(f"{entry}={os.environ[entry]}")
    return known


def _label_files(files: Iterable[str]) -> dict[str, str]:
    return pairs(line for file in files for line in _lines(file, "--label-file"))


def _lines(file: str, flag: str) -> list[str]:
    try:
        text = Path(file).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise click.BadParameter(f"cannot read {file}: {error}", param_hint=flag) from None
    lines = (line.lstrip() for line in text.splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def _volumes(texts: Iterable[str]) -> tuple[list[str], list[str]]:
    """Binds, and paths of anonymous volumes."""
    binds: list[str] = []
    anonymous: list[str] = []
    for text in texts:
        source, separator, rest = text.partition(":")
        if not separator:
            anonymous.append(source)
        elif source.startswith((".", "~")):
            binds.append(f"{Path(source).expanduser().absolute()}:{rest}")
        else:
            binds.append(text)
    return binds, anonymous


def _mount(text: str) -> dict[str, Any]:
    mount: dict[str, Any] = {"Type": "volume"}
    options: dict[str, dict[str, Any]] = {"BindOptions": {}, "VolumeOptions": {}, "TmpfsOptions": {}}
    for part in text.split(","):
        key, separator, value = part.partition("=")
        match key.strip().lower():
            case "type":
                mount["Type"] = value
            case "source" | "src":
                mount["Source"] = str(Path(value).absolute()) if value.startswith(".") else value
            case "target" | "destination" | "dst":
                mount["Target"] = value
            case "readonly" | "ro":
                mount["ReadOnly"] = not separator or value.lower() in ("1", "true")
            case "consistency":
                mount["Consistency"] = value
            case "bind-propagation":
                options["BindOptions"]["Propagation"] = value
            case "bind-recursive":
                options["BindOptions"]["NonRecursive"] = value == "disabled"
            case "volume-nocopy":
                options["VolumeOptions"]["NoCopy"] = not separator or value.lower() in ("1", "true")
            case "volume-subpath":
                options["VolumeOptions"]["Subpath"] = value
            case "volume-label":
                options["VolumeOptions"].setdefault("Labels", {}).update(pairs([value]))
            case "volume-driver":
                options["VolumeOptions"].setdefault("DriverConfig", {})["Name"] = value
            case "volume-opt":
                options["VolumeOptions"].setdefault("DriverConfig", {}).setdefault("Options", {}).update(pairs([value]))
            case "tmpfs-size":
                options["TmpfsOptions"]["SizeBytes"] = size(value)
            case "tmpfs-mode":
                options["TmpfsOptions"]["Mode"] = int(value, 8)
            case _:
                raise click.BadParameter(f"unexpected key '{key}' in '{text}'", param_hint="--mount")
    if "Target" not in mount:
        raise click.BadParameter(f"target is required in '{text}' (dst=/path)", param_hint="--mount")
    return mount | {name: value for name, value in options.items() if value}


def _networks(flags: Flags) -> list[tuple[str, dict[str, Any]]]:
    """Each `--network`: its name and endpoint settings; the short form, or name=…,alias=…,ip=…."""
    networks: list[tuple[str, dict[str, Any]]] = []
    for text in flags["network"]:
        settings: dict[str, Any] = {}
        name = text
        if "=" in text:
            name = ""
            for part in text.split(","):
                key, _, value = part.partition("=")
                match key.strip():
                    case "name":
                        name = value
                    case "alias":
                        settings.setdefault("Aliases", []).append(value)
                    case "ip":
                        settings.setdefault("IPAMConfig", {})["IPv4Address"] = value
                    case "ip6":
                        settings.setdefault("IPAMConfig", {})["IPv6Address"] = value
                    case "mac-address":
                        settings["MacAddress"] = value
                    case "gw-priority":
                        settings["GwPriority"] = int(value)
                    case "driver-opt":
                        settings.setdefault("DriverOpts", {}).update(pairs([value]))
                    case _:
                        raise click.BadParameter(f"invalid field {part!r} in {text!r}", param_hint="--network")
        networks.append((name, settings))
    return networks


def _endpoints(flags: Flags) -> dict[str, Any]:
    networks = _networks(flags)
    first: dict[str, Any] = {}
    if flags["network_alias"]:
        first["Aliases"] = list(flags["network_alias"])
    addresses = {"IPv4Address": flags["ip"], "IPv6Address": flags["ip6"]}
    if any(addresses.values()):
        first["IPAMConfig"] = {key: value for key, value in addresses.items() if value}
    if flags["mac_address"]:
        first["MacAddress"] = flags["mac_address"]
    if not networks:
        return {"default": first} if first else {}
    networks[0][1].update(first)
    return {name: settings for name, settings in networks if settings or len(networks) > 1}


def _security(text: str) -> str:
    """A seccomp profile is sent as its content: the engine may be on another host."""
    name, _, value = text.partition("=")
    if name != "seccomp" or value in ("unconfined", "builtin", ""):
        return text
    try:
        return f"seccomp={json.dumps(json.loads(Path(value).read_text()))}"
    except (OSError, ValueError) as error:
        raise click.BadParameter(
            f"opening seccomp profile ({value}) failed: {error}", param_hint="--security-opt"
        ) from None


def _extra_host(text: str) -> str:
    name, separator, address = text.partition("=") if "=" in text else text.partition(":")
    if not separator or not name:
        raise click.BadParameter(f"bad format for add-host: {text!r} (NAME:ADDRESS)", param_hint="--add-host")
    return f"{name}:{address}"


def _ulimit(text: str) -> dict[str, Any]:
    name, _, limits = text.partition("=")
    soft, _, hard = limits.partition(":")
    try:
        return {"Name": name, "Soft": int(soft), "Hard": int(hard or soft)}
    except ValueError:
        raise click.BadParameter(f"invalid ulimit argument: {text} (NAME=SOFT[:HARD])", param_hint="--ulimit") from None


def _device(text: str) -> dict[str, str]:
    parts = text.split(":")
    if len(parts) == 2 and not parts[1].startswith("/"):
        parts = [parts[0], parts[0], parts[1]]
    host, container, rights = (*parts, "", "")[:3]
    return {"PathOnHost": host, "PathInContainer": container or host, "CgroupPermissions": rights or "rwm"}


def _health(flags: Flags) -> dict[str, Any]:
    if flags["no_healthcheck"]:
        return {"Test": ["NONE"]}
    health = {
        "Test": ["CMD-SHELL", flags["health_cmd"]] if flags["health_cmd"] else None,
        "Interval": flags["health_interval"],
        "Timeout": flags["health_timeout"],
        "StartPeriod": flags["health_start_period"],
        "StartInterval": flags["health_start_interval"],
        "Retries": flags["health_retries"],
    }
    return {key: value for key, value in health.items() if value is not None}
