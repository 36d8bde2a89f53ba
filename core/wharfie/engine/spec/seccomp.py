"""Seccomp profiles: Docker's form, with conditions on the container and the host, made into OCI's, which has none.

Docker's form (`--security-opt seccomp=FILE`, moby's profiles/seccomp) adds to OCI's `linux.seccomp`: `archMap` in place of
`architectures`, and for each rule `includes` and `excludes` by capability, architecture and kernel.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any, Final

from wharfie.spi.errors import InvalidArgument

_NATIVE: Final = {
    "amd64": "SCMP_ARCH_X86_64",
    "arm64": "SCMP_ARCH_AARCH64",
    "arm": "SCMP_ARCH_ARM",
    "386": "SCMP_ARCH_X86",
    "mips64": "SCMP_ARCH_MIPS64",
    "mips64le": "SCMP_ARCH_MIPSEL64",
    "ppc64le": "SCMP_ARCH_PPC64LE",
    "riscv64": "SCMP_ARCH_RISCV64",
    "s390x": "SCMP_ARCH_S390X",
}
"""OCI's names of architectures (as in images) in libseccomp's terms."""

_KEPT: Final = ("names", "action", "errnoRet", "args")


@cache
def default_profile() -> Mapping[str, Any]:
    """Docker's default profile, with AF_ALG sockets refused as well (CVE-2026-31431)."""
    text = resources.files(__package__).joinpath("seccomp-default.json").read_text("utf-8")
    profile: Mapping[str, Any] = json.loads(text)
    return profile


def oci_seccomp(
    profile: Mapping[str, Any], capabilities: frozenset[str], architecture: str, kernel: tuple[int, int]
) -> dict[str, Any]:
    """`linux.seccomp` for a container with these capabilities (bounding set, "CAP_…") on this host.

    `architecture` is OCI's name ("amd64"). Errors: InvalidArgument (a profile that makes no sense), as dockerd says it.
    """
    if not profile.get("defaultAction"):
        raise InvalidArgument("seccomp profile has no defaultAction")
    if profile.get("architectures") and profile.get("archMap"):
        raise InvalidArgument("'architectures' and 'archMap' were specified in the seccomp profile, use either one")
    oci: dict[str, Any] = {"defaultAction": profile["defaultAction"]}
    for key in ("defaultErrnoRet", "flags", "listenerPath", "listenerMetadata"):
        if profile.get(key):
            oci[key] = profile[key]
    if architectures := _architectures(profile, _NATIVE.get(architecture, "")):
        oci["architectures"] = architectures
    rules = []
    for rule in profile.get("syscalls") or ():
        if rule.get("name") and rule.get("names"):
            raise InvalidArgument("'name' and 'names' were specified in the seccomp profile, use either one")
        if _applies(rule, capabilities, architecture, kernel):
            kept = {key: rule[key] for key in _KEPT if rule.get(key) is not None}
            kept.setdefault("names", [rule["name"]] if rule.get("name") else [])
            rules.append(kept)
    oci["syscalls"] = rules
    return oci


def _architectures(profile: Mapping[str, Any], native: str) -> list[str]:
    if profile.get("architectures"):
        return list(profile["architectures"])
    for entry in profile.get("archMap") or ():
        if entry.get("architecture") == native:
            return [native, *(entry.get("subArchitectures") or ())]
    return []


def _applies(rule: Mapping[str, Any], capabilities: frozenset[str], architecture: str, kernel: tuple[int, int]) -> bool:
    """Excludes: any match keeps the rule out. Includes: all must match."""
    excludes, includes = rule.get("excludes") or {}, rule.get("includes") or {}
    if architecture in (excludes.get("arches") or ()) or not capabilities.isdisjoint(excludes.get("caps") or ()):
        return False
    if excludes.get("minKernel") and kernel >= _kernel(excludes["minKernel"]):
        return False
    if includes.get("arches") and architecture not in includes["arches"]:
        return False
    if not capabilities.issuperset(includes.get("caps") or ()):
        return False
    return not includes.get("minKernel") or kernel >= _kernel(includes["minKernel"])


def _kernel(text: Any) -> tuple[int, int]:
    """As numbers, of "4.8". Errors: InvalidArgument."""
    major, _, minor = str(text).partition(".")
    if not (major.isdigit() and minor.isdigit()):
        raise InvalidArgument(f'seccomp profile: minKernel "{text}" is not of the form MAJOR.MINOR')
    return int(major), int(minor)
