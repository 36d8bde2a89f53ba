"""What a request may ask and this engine has not got: refused by name, so that nothing is ignored in silence."""

from __future__ import annotations

from collections.abc import Iterator

from wharfie.engine.model.container import ContainerCreate
from wharfie.spi.errors import InvalidArgument

_WINDOWS = (
    ("CpuCount", "cpu_count"),
    ("CpuPercent", "cpu_percent"),
    ("IOMaximumIOps", "io_maximum_i_ops"),
    ("IOMaximumBandwidth", "io_maximum_bandwidth"),
)


def check_refusals(request: ContainerCreate) -> None:
    """Errors: InvalidArgument naming the field."""
    for field, reason in _refused(request):
        raise InvalidArgument(f"{field}: {reason}")


def _refused(request: ContainerCreate) -> Iterator[tuple[str, str]]:
    host = request.host_config
    if host.userns_mode not in ("", "host"):
        yield "UsernsMode", f"invalid USER mode: {host.userns_mode}"
    if host.isolation not in ("", "default"):
        yield "Isolation", f"invalid isolation: \"{host.isolation}\" - linux only supports 'default'"
    if host.cgroup:
        yield "Cgroup", "another container's control group cannot be joined; use CgroupParent for a common one"
    if host.kernel_memory_tcp:
        yield "KernelMemoryTCP", "the kernel counts TCP buffers with all other memory: use Memory"
    if "" in (host.annotations or {}):
        yield "invalid Annotations", "the empty string is not permitted as an annotation key"
    for field, name in _WINDOWS:
        if getattr(host, name):
            yield field, "this limit exists on Windows only"
