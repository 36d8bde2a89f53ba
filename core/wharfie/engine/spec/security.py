"""Confinement: --security-opt, masked and read-only paths, the seccomp profile."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from wharfie.engine.spec.seccomp import oci_seccomp
from wharfie.spi.driver import HostFacts
from wharfie.spi.errors import InvalidArgument

# Docker 28's lists (contract defaults, "Masked paths, read-only paths").
MASKED_PATHS = (
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
)
READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


def masked_paths() -> list[str]:
    """The list for this host: each CPU's thermal throttle counters are masked too where they exist."""
    return [*MASKED_PATHS, *_throttles()]


@cache  # read once, as Docker does
def _throttles() -> tuple[str, ...]:
    return tuple(sorted(map(str, Path("/sys/devices/system/cpu").glob("cpu[0-9]*/thermal_throttle"))))


@dataclass(slots=True)
class SecurityOptions:
    """What --security-opt says. `seccomp`: None for the daemon's profile, "unconfined", or a profile's JSON text."""

    no_new_privileges: bool = False
    seccomp: str | None = None
    apparmor: str = ""


def parse(options: Sequence[str]) -> SecurityOptions:
    """Errors: InvalidArgument."""
    result = SecurityOptions()
    for option in options:
        key, separator, value = option.partition("=")
        if not separator:
            key, separator, value = option.partition(":")
        if key == "no-new-privileges":
            if value not in ("", "true", "false"):
                raise InvalidArgument(f'invalid --security-opt 2: "{option}"')
            result.no_new_privileges = value != "false"
        elif key == "seccomp" and value:
            if value not in ("unconfined", "builtin"):
                _parse_profile(value)
            result.seccomp = None if value == "builtin" else value
        elif key == "apparmor" and value:
            result.apparmor = "" if value == "unconfined" else value
        elif key == "label" and value:
            if value != "disable":
                raise InvalidArgument(f'--security-opt "{option}": SELinux is not enabled in this daemon')
        else:
            raise InvalidArgument(f'invalid --security-opt 2: "{option}"')
    return result


def _parse_profile(text: str) -> dict[str, Any]:
    try:
        profile = json.loads(text)
    except ValueError as error:
        raise InvalidArgument(f"Decoding seccomp profile failed: {error}") from error
    if not isinstance(profile, dict) or "defaultAction" not in profile:
        raise InvalidArgument("Decoding seccomp profile failed: it has no defaultAction")
    return profile


def seccomp(option: str | None, daemon_profile: str, capabilities: Sequence[str], host: HostFacts) -> dict[str, Any] | None:
    """OCI `linux.seccomp`; None: unconfined."""
    chosen = option or daemon_profile
    if chosen == "unconfined":
        return None
    if chosen == "builtin":
        return _builtin(frozenset(capabilities), host.architecture, host.kernel)
    text = chosen if option else Path(chosen).read_text()
    return oci_seccomp(_parse_profile(text), frozenset(capabilities), host.architecture, host.kernel)


@cache
def _builtin(capabilities: frozenset[str], architecture: str, kernel: tuple[int, int]) -> dict[str, Any]:
    text = resources.files("wharfie.engine.spec").joinpath("seccomp-default.json").read_text()
    return oci_seccomp(json.loads(text), capabilities, architecture, kernel)
