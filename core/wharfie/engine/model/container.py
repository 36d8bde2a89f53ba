"""The record of a container: what was asked, what was decided, and what is so now. Stored whole at each change."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from wharfie.engine.model.base import NO_TIME, Model, Size
from wharfie.engine.model.config import Config
from wharfie.engine.model.host import HostConfig
from wharfie.engine.model.network import IPAM, EndpointSettings, NetworkingConfig
from wharfie.spi.driver import ContainerFacts
from wharfie.spi.network import Joined

Status = Literal["created", "running", "paused", "restarting", "removing", "exited", "dead"]


class ContainerCreate(Config):
    """Body of `POST /containers/create`."""

    host_config: HostConfig = Field(default_factory=HostConfig)
    networking_config: NetworkingConfig = Field(default_factory=NetworkingConfig)


class HealthLog(Model):
    start: str
    end: str
    exit_code: int
    output: str


class Health(Model):
    status: str = "starting"
    failing_streak: int = 0
    log: list[HealthLog] = Field(default_factory=list)


class State(Model):
    """`status` is the one truth; the API's booleans are derived from it. Times are RFC 3339.

    `in_passing`: it stands still for an operation of the daemon, which sends it on, also after a crash.
    """

    status: Status = "created"
    oom_killed: Annotated[bool, Field(alias="OOMKilled")] = False
    pid: int = 0
    exit_code: int = 0
    error: str = ""
    started_at: str = NO_TIME
    finished_at: str = NO_TIME
    health: Health | None = None
    in_passing: bool = False

    @property
    def running(self) -> bool:
        """Whether a process is there (paused counts)."""
        return self.status in ("running", "paused")


class MountPoint(Model):
    """One user mount. `source` is the host's folder; for a volume it is known once it was mounted.

    The fields up to `propagation` are the API's (definition MountPoint); the rest is what `start` needs.
    """

    type: Literal["bind", "volume", "tmpfs", "image"]
    name: str = ""
    source: str = ""
    destination: str
    driver: str = ""
    mode: str = ""
    rw: Annotated[bool, Field(alias="RW")] = True
    propagation: str = ""
    anonymous: bool = False
    copy_up: bool = False
    subpath: str = ""
    layer: str = ""  # of an image: the chain id of its top layer
    recursive: bool = True
    read_only_below: Literal["", "never", "always"] = ""  # what is mounted below; empty: where the kernel can
    options: list[str] = Field(default_factory=list)


class JoinedEndpoint(Model):
    """An endpoint that is in its network, as the network driver returned it."""

    network_id: str
    network: str
    joined: Joined


class Container(Model):
    id: str
    name: str  # without the leading slash
    created: str
    image_id: str  # "sha256:…"
    top_layer: str = ""  # chain id; empty for an image without layers
    config: Config
    host_config: HostConfig
    state: State = Field(default_factory=State)
    storage_driver: str
    runtime: str
    log_driver: str
    log_options: dict[str, str] = Field(default_factory=dict)  # as `LogDriver.plan` gave them
    log_path: str = ""  # the log's file, when the driver has one
    mounts: list[MountPoint] = Field(default_factory=list)
    networks: dict[str, EndpointSettings] = Field(default_factory=dict)  # by network name, as asked and as it came
    joined: list[JoinedEndpoint] = Field(default_factory=list)
    sandbox_id: str = ""
    link_environment: list[str] = Field(default_factory=list)  # as it was at the last start
    restart_count: int = 0
    manually_stopped: bool = False
    exposed: list[str] = Field(default_factory=list)
    intent: str = ""  # an operation of several steps that is under way: "start", "remove", …

    @property
    def short_id(self) -> str:
        return self.id[:12]

    @property
    def command(self) -> list[str]:
        """Program and arguments as they are executed: entrypoint, then command."""
        return [*(self.config.entrypoint or []), *(self.config.cmd or [])]

    def uses_image(self, id: str) -> bool:
        """As its root, or mounted in it."""
        return self.image_id == id or any(mount.type == "image" and mount.source == id for mount in self.mounts)

    def facts(self, folder: Path) -> ContainerFacts:
        """What drivers may know of this container."""
        return ContainerFacts(
            id=self.id,
            name=self.name,
            hostname=self.config.hostname,
            image=self.config.image,
            image_id=self.image_id,
            command=tuple(self.command),
            created=self.created,
            labels=dict(self.config.labels),
            env=tuple(self.config.env or ()),
            folder=folder,
        )


class CheckpointCreate(Model):
    """Body of `POST /containers/{id}/checkpoints`. `exit`: the container ends."""

    checkpoint_id: str = Field(default="", alias="CheckpointID")
    checkpoint_dir: str = ""
    exit: bool = False


class ExecCreate(Model):
    """Body of `POST /containers/{id}/exec`."""

    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    console_size: Size | None = None
    detach_keys: str = ""
    tty: bool = False
    env: list[str] | None = None
    cmd: list[str] | None = None
    privileged: bool = False
    user: str = ""
    working_dir: str = ""


class ExecRecord(Model):
    """An exec instance; lives as long as the daemon or its container, whichever ends first."""

    id: str
    container_id: str
    request: ExecCreate
    running: bool = False
    started: bool = False
    exit_code: int | None = None
    pid: int = 0


class NetworkRecord(Model):
    """A network, as stored. `pools` hold the leases of its IPAM driver."""

    id: str
    name: str
    created: str
    driver: str
    scope: str = "local"
    internal: bool = False
    attachable: bool = False
    enable_ipv4: bool = True
    enable_ipv6: bool = False
    options: dict[str, str] = Field(default_factory=dict)  # as the user gave them
    planned: dict[str, str] = Field(default_factory=dict)  # completed by the driver's `plan`
    labels: dict[str, str] = Field(default_factory=dict)
    ipam_driver: str = "default"
    ipam_options: dict[str, str] | None = None
    pools: list[PoolRecord] = Field(default_factory=list)
    config_only: bool = False
    config_from: str = ""  # the name of a configuration network
    asked: IPAM | None = None  # of a configuration network: what networks made from it ask their IPAM driver for
    predefined: bool = False
    needs_gateway: bool = True
    host_address: str = ""  # filled in by the driver's `plan`, as the next
    direct: list[int] = Field(default_factory=list)


class PoolRecord(Model):
    """`id`: the IPAM driver's. Everything else in the API's spelling of addresses."""

    id: str
    subnet: str
    gateway: str = ""
    ip_range: str = ""
    auxiliary: dict[str, str] = Field(default_factory=dict)
    user_gateway: bool = False
    data: dict[str, str] = Field(default_factory=dict)


class VolumeRecord(Model):
    """A volume, as stored. The folder is the driver's to know."""

    name: str
    driver: str
    created: str
    options: dict[str, str] | None = None
    labels: dict[str, str] | None = None
    anonymous: bool = False
    mountpoint: str = ""
    status: dict[str, Any] | None = None


NetworkRecord.model_rebuild()
