"""spec: a configuration to begin with."""

from __future__ import annotations

import json
import os
from typing import Any, Final

from wharfie.spi.errors import Conflict
from wharfie_runtime_native.command.session import Session
from wharfie_runtime_native.command.words import Command, Given, Option
from wharfie_runtime_native.features import OCI_VERSION

_CAPABILITIES: Final = ("CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE")


def _mount(destination: str, kind: str, source: str, options: str) -> dict[str, Any]:
    return {"destination": destination, "type": kind, "source": source, "options": options.split()}


def _template() -> dict[str, Any]:
    """A shell on a read-only root, with the namespaces, mounts and masks that runtimes give by default."""
    return {
        "ociVersion": OCI_VERSION,
        "process": {
            "terminal": True,
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": {kind: list(_CAPABILITIES) for kind in ("bounding", "effective", "permitted")},
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "wharfie",
        "mounts": [
            _mount("/proc", "proc", "proc", ""),
            _mount("/dev", "tmpfs", "tmpfs", "nosuid strictatime mode=755 size=65536k"),
            _mount("/dev/pts", "devpts", "devpts", "nosuid noexec newinstance ptmxmode=0666 mode=0620 gid=5"),
            _mount("/dev/shm", "tmpfs", "shm", "nosuid noexec nodev mode=1777 size=65536k"),
            _mount("/dev/mqueue", "mqueue", "mqueue", "nosuid noexec nodev"),
            _mount("/sys", "sysfs", "sysfs", "nosuid noexec nodev ro"),
            _mount("/sys/fs/cgroup", "cgroup", "cgroup", "nosuid noexec nodev relatime ro"),
        ],
        "linux": {
            "resources": {"devices": [{"allow": False, "access": "rwm"}]},
            "namespaces": [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount", "cgroup")],
            "maskedPaths": [
                "/proc/acpi",
                "/proc/asound",
                "/proc/kcore",
                "/proc/keys",
                "/proc/latency_stats",
                "/proc/timer_list",
                "/proc/timer_stats",
                "/proc/sched_debug",
                "/sys/firmware",
                "/proc/scsi",
            ],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    }


def _rootless(config: dict[str, Any]) -> dict[str, Any]:
    """The same for a container in a user namespace whose only user is the caller: with the host's network, since nobody in
    there could set one up, and with what belongs to it (/sys), and without limits and ids that it may not set."""
    linux = {key: value for key, value in config["linux"].items() if key != "resources"}
    linux["namespaces"] = [entry for entry in linux["namespaces"] if entry["type"] != "network"] + [{"type": "user"}]
    linux["uidMappings"] = [{"containerID": 0, "hostID": os.geteuid(), "size": 1}]
    linux["gidMappings"] = [{"containerID": 0, "hostID": os.getegid(), "size": 1}]
    mounts = []
    for entry in config["mounts"]:
        if entry["destination"] == "/sys":
            entry = _mount("/sys", "none", "/sys", "rbind nosuid noexec nodev ro")
        mounts.append({**entry, "options": [word for word in entry["options"] if not word.startswith(("uid=", "gid="))]})
    return {**config, "mounts": mounts, "linux": linux}


def _spec(session: Session, given: Given) -> None:
    """Write a config.json to begin with."""
    config = _rootless(_template()) if given.has("rootless") else _template()
    file = os.path.join(given.text("bundle"), "config.json")
    try:
        with open(file, "x", encoding="utf-8") as target:
            json.dump(config, target, indent="\t")
            target.write("\n")
    except FileExistsError:
        raise Conflict(f"File {file} exists. Remove it first") from None


spec_command = Command(
    _spec,
    (),
    (
        Option(("b", "bundle"), "Folder to write config.json into; else the working directory.", "FOLDER"),
        Option(("rootless",), "For a user namespace in which root is the caller."),
    ),
)
