"""This driver's part of daemon.json (`"drivers": {"registry.oci": {…}}`); the first two are Docker's own keys as well."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field


def _kebab(name: str) -> str:
    return name.replace("_", "-")


class Settings(BaseModel):
    """Times are seconds."""

    model_config = ConfigDict(alias_generator=_kebab, populate_by_name=True, extra="forbid")

    insecure_registries: list[str] = Field(default_factory=list)
    """host[:port] or CIDR: plain HTTP and certificates of any origin are accepted. Loopback addresses always are."""
    registry_mirrors: list[str] = Field(default_factory=list)
    """URLs that are asked first for images of docker.io."""
    connect_timeout: float = Field(default=15, gt=0)
    read_timeout: float = Field(default=30, gt=0)
    """Seconds without a byte, not in all."""
    max_redirects: int = Field(default=5, ge=0)
    certificates: Path = Path("/etc/docker/certs.d")
    """HOST[:PORT]/*.crt: authorities to trust for that server; *.cert with *.key: to identify ourselves there."""
