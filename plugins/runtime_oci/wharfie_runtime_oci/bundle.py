"""config.json as a binary takes it: what the house's configuration says in a way that only the native runtime knows is
said in the way that runc has known since version 1.0."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from wharfie.shim.cgroups import path_of
from wharfie.spi.errors import InvalidArgument

INIT_ANNOTATION: Final = "org.wharfie.init"
"""With "true" the container's first process is one that reaps and passes signals on (`docker run --init`)."""
INIT_PATH_ANNOTATION: Final = "org.wharfie.init-path"
"""The program for it, on the host, when daemon.json names one (`init-path`)."""
INIT_PROGRAMS: Final = ("docker-init", "tini-static", "catatonit")
"""Programs that are an init of this kind and linked statically, so that they run in any root."""

_OCI_VERSION: Final = "1.0.2"
_INIT_PLACE: Final = "/sbin/docker-init"


def configuration(spec: Mapping[str, Any], id: str, init: str) -> dict[str, Any]:
    """The document for the binary. `init`: a program on the host for `--init`, "" when there is none.

    Errors: InvalidArgument (`--init` without such a program).
    """
    linux = {**(spec.get("linux") or {}), "cgroupsPath": "/" + path_of(spec, id).lstrip("/")}
    document = {**spec, "ociVersion": _OCI_VERSION, "linux": linux}
    domain = document.pop("domainname", "")
    if domain:  # runc has known the field since 1.2 and ignores it before
        linux["sysctl"] = {"kernel.domainname": domain, **(linux.get("sysctl") or {})}
    propagation = _root_propagation(spec.get("mounts") or ())
    if propagation and not linux.get("rootfsPropagation"):
        linux["rootfsPropagation"] = propagation
    annotations = spec.get("annotations") or {}
    if annotations.get(INIT_ANNOTATION) == "true":
        # A binary that knows the annotation itself (wharfie-runtime) would put another one in front.
        document["annotations"] = {name: value for name, value in annotations.items() if name != INIT_ANNOTATION}
        if _own_pids(linux):
            _add_init(document, annotations.get(INIT_PATH_ANNOTATION) or init)
    return document


def _root_propagation(mounts: Sequence[Mapping[str, Any]]) -> str:
    """A mount's propagation counts only below a root that is not private (Docker sets the root's by the same rule)."""
    options = {option for mount in mounts for option in mount.get("options") or ()}
    if options & {"shared", "rshared"}:
        return "shared"
    return "rslave" if options & {"slave", "rslave"} else ""


def _own_pids(linux: Mapping[str, Any]) -> bool:
    """In another's pid namespace somebody is the first process already."""
    return any(entry.get("type") == "pid" and not entry.get("path") for entry in linux.get("namespaces") or ())


def _add_init(document: dict[str, Any], program: str) -> None:
    if not program:
        raise InvalidArgument(
            f"--init needs a program that is the container's first process, and none of {', '.join(INIT_PROGRAMS)} is "
            'installed on this host: apt-get install tini, or name one as "init-path" in daemon.json'
        )
    if not Path(program).is_file():
        raise InvalidArgument(f'--init: the program {program}, "init-path" in daemon.json, does not exist')
    place = {"destination": _INIT_PLACE, "type": "bind", "source": program, "options": ["bind", "ro"]}
    document["mounts"] = [*(document.get("mounts") or ()), place]
    process = document["process"]
    document["process"] = {**process, "args": [_INIT_PLACE, "--", *process["args"]]}
