"""Whose namespaces a container uses: --network, --pid, --ipc, --uts, --cgroupns."""

from __future__ import annotations

from collections.abc import Callable

from wharfie.engine.model.config import Config
from wharfie.engine.model.container import Container
from wharfie.engine.model.host import HostConfig
from wharfie.engine.settings import EngineSettings
from wharfie.engine.spec import security
from wharfie.spi.driver import HostFacts
from wharfie.spi.errors import Conflict, InvalidArgument

CONTAINER = "container:"


def check_modes(config: Config, host: HostConfig) -> None:
    """Whether another container that is named exists is a question of the start. Errors: InvalidArgument, with Docker's
    texts."""
    for field, mode, plain in (
        ("PID", host.pid_mode, ("", "host", "private")),
        ("IPC", host.ipc_mode, ("", "none", "private", "shareable", "host")),
        ("UTS", host.uts_mode, ("", "host")),
        ("cgroup namespace", host.cgroupns_mode, ("", "private", "host")),
    ):
        shared = field in ("PID", "IPC") and mode.startswith(CONTAINER)
        if mode not in plain and not shared:
            raise InvalidArgument(f"invalid {field} mode: {mode}")
    if host.uts_mode == "host" and config.hostname:
        raise InvalidArgument("conflicting options: hostname and the UTS mode")
    if host.network_mode.startswith(CONTAINER):
        _check_joined_network(config, host)


def _check_joined_network(config: Config, host: HostConfig) -> None:
    """What belongs to the other container already."""
    for asked, text in (
        (config.hostname, "hostname and the network mode"),
        (host.links, "container type network can't be used with links. This would result in undefined behavior"),
        (host.dns, "dns and the network mode"),
        (host.extra_hosts, "custom host-to-IP mapping and the network mode"),
        (host.port_bindings or host.publish_all_ports, "port publishing and the container type network mode"),
        (config.exposed_ports, "port exposing and the container type network mode"),
    ):
        if asked:
            raise InvalidArgument(f"conflicting options: {text}")


def check_users(host: HostConfig, settings: EngineSettings) -> None:
    """What cannot be with users that are not the host's. Errors: InvalidArgument in dockerd's words."""
    if not remaps(host, settings):
        return
    if host.privileged:
        raise InvalidArgument(
            "privileged mode is incompatible with user namespaces.  You must run the container in the host namespace when "
            "running privileged mode"
        )
    if host.network_mode == "host":
        raise InvalidArgument("cannot share the host's network namespace when user namespaces are enabled")
    if host.pid_mode == "host":
        raise InvalidArgument("cannot share the host PID namespace when user namespaces are enabled")


def remaps(host: HostConfig, settings: EngineSettings) -> bool:
    """Whether a container has users of its own."""
    return settings.users is not None and host.userns_mode != "host"


def complete_modes(host: HostConfig, settings: EngineSettings, facts: HostFacts) -> None:
    """Fill in what the request left open, as inspect shows it."""
    if host.network_mode in ("", "default"):
        host.network_mode = "bridge" if settings.bridge != "none" else "none"
    host.ipc_mode = host.ipc_mode or settings.default_ipc_mode
    if host.pid_mode == "private":
        host.pid_mode = ""
    if not host.cgroupns_mode:
        private = facts.cgroup == "v2" and not host.privileged
        host.cgroupns_mode = settings.default_cgroupns_mode or ("private" if private else "host")
    host.shm_size = host.shm_size or settings.default_shm_size
    if host.privileged:
        host.masked_paths = host.readonly_paths = None
        return
    if host.masked_paths is None:
        host.masked_paths = security.masked_paths()
    if host.readonly_paths is None:
        host.readonly_paths = list(security.READONLY_PATHS)


def shared_namespaces(container: Container, find: Callable[[str], Container]) -> dict[str, str]:
    """Namespace type → path, for those that another running container owns. Errors: Conflict (it does not run)."""
    host = container.host_config
    paths = {}
    for kind, file, mode in (
        ("network", "net", host.network_mode),
        ("pid", "pid", host.pid_mode),
        ("ipc", "ipc", host.ipc_mode),
    ):
        if not mode.startswith(CONTAINER):
            continue
        other = find(mode.removeprefix(CONTAINER))
        if not other.state.running:
            raise Conflict(f"cannot join {kind} namespace of a non running container: {other.id}")
        if kind == "ipc" and other.host_config.ipc_mode not in ("shareable", "host"):
            raise InvalidArgument(
                f"cannot join IPC of container {other.id}: non-shareable IPC (hint: use IpcMode:shareable for the donor "
                "container)"
            )
        paths[kind] = f"/proc/{other.state.pid}/ns/{file}"
        # Whoever shares what another's users own has to be one of them; with the host's users it is the same namespace.
        paths["user"] = f"/proc/{other.state.pid}/ns/user"
    return paths
