"""`HostConfig`: how a container stands on this host. Docker Engine API, definitions HostConfig and Resources.

The fields stand in the order in which Docker answers them.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SerializerFunctionWrapHandler, model_serializer

from wharfie.engine.model.base import Model, Size, Sparse


class PortBinding(Model):
    """`host_port` may be empty (any), a number or a range "8000-8010"."""

    host_ip: str = ""
    host_port: str = ""


class RestartPolicy(Model):
    name: str = ""
    maximum_retry_count: int = 0


class LogConfig(Model):
    type: str = ""
    config: dict[str, str] = Field(default_factory=dict)


class BindOptions(Sparse):
    propagation: str = ""
    non_recursive: bool = False
    create_mountpoint: bool = False
    read_only_non_recursive: bool = False
    read_only_force_recursive: bool = False


class DriverConfig(Sparse):
    name: str = ""
    options: dict[str, str] = Field(default_factory=dict)


class VolumeOptions(Sparse):
    no_copy: bool = False
    labels: dict[str, str] = Field(default_factory=dict)
    driver_config: DriverConfig | None = None
    subpath: str = ""


class ImageOptions(Sparse):
    subpath: str = ""


class TmpfsOptions(Sparse):
    size_bytes: int = 0
    mode: int = 0
    options: list[list[str]] | None = None


class MountSpec(Sparse):
    """`docker run --mount`."""

    type: str = ""
    source: str = ""
    target: str = ""
    read_only: bool = False
    consistency: str = ""
    bind_options: BindOptions | None = None
    volume_options: VolumeOptions | None = None
    image_options: ImageOptions | None = None
    tmpfs_options: TmpfsOptions | None = None


class DeviceMapping(Model):
    path_on_host: str = ""
    path_in_container: str = ""
    cgroup_permissions: str = ""


class DeviceRequest(Model):
    driver: str = ""
    count: int = 0
    device_i_ds: Annotated[list[str] | None, Field(alias="DeviceIDs")] = None
    capabilities: list[list[str]] | None = None
    options: dict[str, str] | None = None


class Ulimit(Model):
    name: str = ""
    hard: int = 0
    soft: int = 0


class WeightDevice(Model):
    path: str = ""
    weight: int = 0


class ThrottleDevice(Model):
    path: str = ""
    rate: int = 0


def _port_bindings(value: Any) -> Any:
    """`"80/tcp": null` means an empty list of bindings."""
    if isinstance(value, dict):
        return {port: bindings or [] for port, bindings in value.items()}
    return value


class HostConfig(Model):
    binds: list[str] | None = None
    container_id_file: Annotated[str, Field(alias="ContainerIDFile")] = ""
    log_config: LogConfig = Field(default_factory=LogConfig)
    network_mode: str = ""
    port_bindings: Annotated[dict[str, list[PortBinding]] | None, BeforeValidator(_port_bindings)] = None
    restart_policy: RestartPolicy = Field(default_factory=RestartPolicy)
    auto_remove: bool = False
    volume_driver: str = ""
    volumes_from: list[str] | None = None
    console_size: Size = (0, 0)
    annotations: dict[str, str] | None = None
    cap_add: list[str] | None = None
    cap_drop: list[str] | None = None
    cgroupns_mode: str = ""
    dns: list[str] | None = None
    dns_options: list[str] | None = None
    dns_search: list[str] | None = None
    extra_hosts: list[str] | None = None
    group_add: list[str] | None = None
    ipc_mode: str = ""
    cgroup: str = ""
    links: list[str] | None = None
    oom_score_adj: int = 0
    pid_mode: str = ""
    privileged: bool = False
    publish_all_ports: bool = False
    readonly_rootfs: bool = False
    security_opt: list[str] | None = None
    storage_opt: dict[str, str] | None = None
    tmpfs: dict[str, str] | None = None
    uts_mode: Annotated[str, Field(alias="UTSMode")] = ""
    userns_mode: str = ""
    shm_size: int = 0
    sysctls: dict[str, str] | None = None
    runtime: str = ""
    isolation: str = ""
    cpu_shares: int = 0
    memory: int = 0
    nano_cpus: int = 0
    cgroup_parent: str = ""
    blkio_weight: int = 0
    blkio_weight_device: list[WeightDevice] | None = None
    blkio_device_read_bps: list[ThrottleDevice] | None = None
    blkio_device_write_bps: list[ThrottleDevice] | None = None
    blkio_device_read_i_ops: Annotated[list[ThrottleDevice] | None, Field(alias="BlkioDeviceReadIOps")] = None
    blkio_device_write_i_ops: Annotated[list[ThrottleDevice] | None, Field(alias="BlkioDeviceWriteIOps")] = None
    cpu_period: int = 0
    cpu_quota: int = 0
    cpu_realtime_period: int = 0
    cpu_realtime_runtime: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    devices: list[DeviceMapping] | None = None
    device_cgroup_rules: list[str] | None = None
    device_requests: list[DeviceRequest] | None = None
    kernel_memory_tcp: Annotated[int, Field(alias="KernelMemoryTCP")] = 0
    memory_reservation: int = 0
    memory_swap: int = 0
    memory_swappiness: int | None = None
    oom_kill_disable: bool | None = False
    pids_limit: int | None = None
    ulimits: list[Ulimit] | None = None
    cpu_count: int = 0
    cpu_percent: int = 0
    io_maximum_i_ops: Annotated[int, Field(alias="IOMaximumIOps")] = 0
    io_maximum_bandwidth: Annotated[int, Field(alias="IOMaximumBandwidth")] = 0
    mounts: list[MountSpec] | None = None
    masked_paths: list[str] | None = None
    readonly_paths: list[str] | None = None
    init: bool | None = None

    @model_serializer(mode="wrap")
    def _omit_empty(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        document: dict[str, Any] = handler(self)
        for key in ("Annotations", "StorageOpt", "Tmpfs", "Sysctls", "Mounts", "Init"):
            if document.get(key) is None:
                document.pop(key, None)
        if document.get("KernelMemoryTCP") == 0:
            document.pop("KernelMemoryTCP")
        return document


MountType = Literal["bind", "volume", "tmpfs"]
