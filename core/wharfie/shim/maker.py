"""From a request to a container that is about to run: root, user, engine, in a mount namespace of its own."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from wharfie.shim import copy_up, root, safe_path, users
from wharfie.shim.engine import Engine
from wharfie.shim.log_lines import LogLines
from wharfie.shim.system import CLONE_NEWNS, setns, unshare
from wharfie.spi.errors import InvalidArgument
from wharfie.spi.log import LogSink

Request = Mapping[str, Any]
"""request.json: id, bundle, engine ("module:Class"), options, rootfs, io, preparation."""


@contextlib.contextmanager
def mount_namespace() -> Iterator[None]:
    """A mount namespace that lives on in the processes made within, and only there.

    Propagation stays as it is, so that a container's rshared mounts reach the host. The shim itself goes back to the host's
    namespace: it sees later mounts, and keeps none busy that the host wants to get rid of.
    """
    host = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    try:
        unshare(CLONE_NEWNS)
        try:
            yield
        finally:
            setns(host, CLONE_NEWNS)
    finally:
        os.close(host)


def prepare_root(request: Request, target: Path) -> users.User:
    """Mount the root at `target` and do on it what `Preparation` says; the container's user.

    Errors: InvalidArgument (user, group), OSError.
    """
    root.mount_root([(mount["type"], mount["source"], mount["options"]) for mount in request["rootfs"]], str(target))
    preparation = request["preparation"]
    folder = safe_path.open_root(str(target))
    try:
        for path in preparation["files"]:
            safe_path.ensure_in(folder, path)
        user = users.resolve(folder, preparation["user"], preparation["groups"])
        for copy in preparation["copy_up"]:
            copy_up.copy_up(folder, copy["destination"], copy["folder"])
    finally:
        os.close(folder)
    return user


def read_spec(request: Request) -> dict[str, Any]:
    """The bundle's config.json. Errors: InvalidArgument."""
    path = Path(request["bundle"]) / "config.json"
    try:
        spec = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InvalidArgument(f"bundle of container {request['id']}: {path}: {error}") from error
    if not isinstance(spec, dict) or not isinstance(spec.get("process"), dict):
        raise InvalidArgument(f"bundle of container {request['id']}: {path} has no process")
    return spec


def make_engine(request: Request, spec: Mapping[str, Any]) -> Engine:
    kind = load(request["engine"])
    engine = kind(request["id"], Path(request["bundle"]), spec, request["options"])
    assert isinstance(engine, Engine)
    return engine


def open_log(request: Request) -> LogLines | None:
    """The sink that the daemon chose. Errors: OSError of its opening."""
    log = request["io"]["log"]
    if log is None:
        return None
    sink = load(log["sink"])(log["options"])
    assert isinstance(sink, LogSink)
    return LogLines(sink)


def load(name: str) -> Any:
    """`package.module:Class`, from a module that the zygote has imported."""
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


def has_own_pids(spec: Mapping[str, Any]) -> bool:
    """Whether the kernel ends all processes of the container with its first one."""
    namespaces = (spec.get("linux") or {}).get("namespaces") or ()
    return any(namespace.get("type") == "pid" and not namespace.get("path") for namespace in namespaces)
