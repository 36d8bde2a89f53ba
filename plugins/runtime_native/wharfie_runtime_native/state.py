"""A container's state as hooks and seccomp agents are told it (OCI runtime-spec, runtime.md "State")."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

_DEFAULT_VERSION: Final = "1.0.0"


def describe(spec: Mapping[str, Any], id: str, bundle: str, status: str, pid: int = 0) -> dict[str, Any]:
    """`status`: creating, created, running or stopped. `pid`: as the reader of the state sees it; 0 when there is none."""
    state: dict[str, Any] = {
        "ociVersion": spec.get("ociVersion") or _DEFAULT_VERSION,
        "id": id,
        "status": status,
        "bundle": bundle,
    }
    if pid:
        state["pid"] = pid
    if annotations := spec.get("annotations"):
        state["annotations"] = annotations
    return state
