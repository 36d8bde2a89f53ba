"""From a request to a container that is about to run: root, user, engine, in a mount namespace of its own.

All of it is done by a child of the shim, the maker. An interpreter writes to whatever memory it so much as looks at, and a
page that was written to is no longer shared with the zygote: what the making takes goes with the maker.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from wharfie.shim import copy_up, json_text, resolver, root, safe_path, users
from wharfie.shim.ends import Ends
from wharfie.shim.engine import Engine
from wharfie.shim.folder import ROOT
from wharfie.shim.log_lines import LogLines
from wharfie.shim.protocol import error_from_message, failure_to_message
from wharfie.shim.system import CLONE_NEWNS, PR_SET_PDEATHSIG, prctl, unshare
from wharfie.spi.errors import DriverError, InvalidArgument
from wharfie.spi.log import LogSink

Request = Mapping[str, Any]
"""request.json: id, bundle, engine ("module:Class"), options, rootfs, io, preparation."""

MAP_ROOT = "org.wharfie.map-root"
"""Annotation: with "true" the root's owners are those that the image names, and are to be mapped as `linux.uidMappings`."""

_MESSAGE_LIMIT = 64 * 1024
_FDS_LIMIT = socket.CMSG_SPACE(4 * 32)


class Made:
    """What the shim needs of a container that was made; the descriptors are the shim's, -1 where there is none."""

    __slots__ = ("engine", "input", "oom", "outputs", "own_pids", "pid", "resolver", "user")

    def __init__(self, message: Mapping[str, Any], fds: Sequence[int]) -> None:
        """`message`: as `_make` sends it."""
        self.pid: int = message["pid"]
        self.own_pids: bool = message["own_pids"]
        """Whether the kernel ends all processes of the container with its first one."""
        self.user: Mapping[str, Any] = message["user"]
        """OCI's `process.user`, as it was resolved in the container's root."""
        self.outputs = fds[: message["outputs"]]
        self.resolver = fds[message["outputs"] : message["resolver"]]
        self.engine = fds[message["resolver"] : message["engine"]]
        self.input = fds[message["input"]] if message["input"] >= 0 else -1
        self.oom = fds[message["oom"]] if message["oom"] >= 0 else -1


def make_apart(request: Request, path: str) -> Made:
    """Have a maker make the container. Errors: the maker's, DriverError when it was killed. Nothing is left then."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    shim = os.getpid()
    maker = os.fork()
    if maker == 0:
        ours.close()
        _run_maker(request, path, theirs, shim)
    os.close(theirs.detach())
    data, ancillary, _, _ = ours.recvmsg(_MESSAGE_LIMIT, _FDS_LIMIT, socket.MSG_CMSG_CLOEXEC)
    os.close(ours.detach())
    # Only when the maker has ended are its children the shim's.
    os.waitpid(maker, 0)
    if not data:
        make_engine(request, read_spec(request)).delete()
        raise DriverError(f"container {request['id']}: the process that makes it was killed")
    message = json_text.decode(data)
    if "error" in message:
        raise error_from_message(message["error"])
    return Made(message, memoryview(ancillary[0][2]).cast("i").tolist())


def _run_maker(request: Request, path: str, end: socket.socket, shim: int) -> None:
    """In the forked child; does not return."""
    try:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == shim:
            try:
                _make(request, path, end)
            except Exception as error:  # noqa: BLE001  # whatever it is, the shim has to hear of it
                end.send(json_text.encode({"error": failure_to_message(error)}).encode())
    finally:
        os._exit(0)


def _make(request: Request, path: str, end: socket.socket) -> None:
    unshare(CLONE_NEWNS)  # Propagation stays as it is, so that a container's rshared mounts reach the host.
    spec = read_spec(request)
    target = f"{path}/{ROOT}"
    user = prepare_root(request, target)
    if (spec.get("annotations") or {}).get(MAP_ROOT) == "true":
        from wharfie.shim.mapped_root import replace_root  # of a daemon that remaps users

        replace_root(
            [(mount["type"], mount["source"], mount["options"]) for mount in request["rootfs"]], target, spec["linux"]
        )
    io = request["io"]
    terminal = bool(io["terminal"])
    spec["process"] = {**users.apply(spec["process"], user), "terminal": terminal}
    spec["root"] = {**(spec.get("root") or {}), "path": target}
    engine = make_engine(request, spec)
    ends = Ends(terminal=terminal, stdin=bool(io["stdin"]), size=tuple(io["size"]) if io["size"] else None)
    pid = engine.create(Path(target), ends.streams)
    try:
        ends.settle()
        netns = f"/proc/{pid}/ns/net"
        resolving = resolver.open_sockets(netns) if request["preparation"]["resolver"] else []
        oom = engine.oom_fd()
        fds = [*ends.outputs, *resolving, *engine.keep()]
        message = {
            "pid": pid,
            "own_pids": has_own_pids(spec),
            "user": spec["process"]["user"],
            # Where in `fds` each kind ends, or what there may be one of is.
            "outputs": len(ends.outputs),
            "resolver": len(ends.outputs) + len(resolving),
            "engine": len(fds),
            "input": -1,
            "oom": -1,
        }
        for name, fd in (("input", ends.input), ("oom", oom)):
            if fd >= 0:
                message[name] = len(fds)
                fds.append(fd)
        socket.send_fds(end, [json_text.encode(message).encode()], fds)
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        engine.delete()
        raise


def prepare_root(request: Request, target: str) -> users.User:
    """Mount the root at `target` and do on it what `Preparation` says; the container's user.

    Errors: InvalidArgument (user, group), OSError.
    """
    root.mount_root([(mount["type"], mount["source"], mount["options"]) for mount in request["rootfs"]], target)
    preparation = request["preparation"]
    folder = safe_path.open_root(target)
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
    path = f"{request['bundle']}/config.json"
    try:
        with open(path, "rb") as file:
            spec = json_text.decode(file.read())
    except (OSError, ValueError) as error:
        raise InvalidArgument(f"bundle of container {request['id']}: {path}: {error}") from error
    if not isinstance(spec, dict) or not isinstance(spec.get("process"), dict):
        raise InvalidArgument(f"bundle of container {request['id']}: {path} has no process")
    return spec


class Configuration(Mapping[str, Any]):
    """`read_spec` on first use: most shims never need it."""

    def __init__(self, request: Request, user: Mapping[str, Any]) -> None:
        """`user`: as it was resolved when the container was made."""
        self._request = request
        self._user = user
        self._spec: dict[str, Any] = {}

    def __getitem__(self, key: str) -> Any:
        return self._read()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._read())

    def __len__(self) -> int:
        return len(self._read())

    def _read(self) -> dict[str, Any]:
        if not self._spec:
            spec = read_spec(self._request)
            spec["process"]["user"] = self._user
            self._spec = spec
        return self._spec


def make_engine(request: Request, spec: Mapping[str, Any]) -> Engine:
    kind = load(request["engine"])
    engine: Engine = kind(request["id"], request["bundle"], spec, request["options"])
    return engine


def open_log(request: Request) -> LogLines | None:
    """The sink that the daemon chose. Errors: OSError of its opening."""
    log = request["io"]["log"]
    if log is None:
        return None
    sink: LogSink = load(log["sink"])(log["options"])
    return LogLines(sink)


def load(name: str) -> Any:
    """`package.module:Class`, from a module that the zygote has imported."""
    module, _, attribute = name.partition(":")
    return getattr(sys.modules[module], attribute)


def has_own_pids(spec: Mapping[str, Any]) -> bool:
    """Whether the kernel ends all processes of the container with its first one."""
    namespaces = (spec.get("linux") or {}).get("namespaces") or ()
    return any(namespace.get("type") == "pid" and not namespace.get("path") for namespace in namespaces)
