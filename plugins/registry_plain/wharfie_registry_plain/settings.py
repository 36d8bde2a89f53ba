"""This driver's part of daemon.json (`"drivers": {"registry.plain": {…}}`)."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

from pydantic import BaseModel, ConfigDict, Field, field_validator


class Settings(BaseModel):
    """Times are seconds."""

    model_config = ConfigDict(alias_generator=lambda name: name.replace("_", "-"), populate_by_name=True, extra="forbid")

    insecure_registries: list[str] = Field(default_factory=list)
    """host[:port] or CIDR: plain HTTP and certificates of any origin are accepted. Loopback addresses always are."""
    timeout: float = Field(default=20, gt=0)
    """For a connection, and then for each wait without a byte."""

    @field_validator("insecure_registries")
    @classmethod
    def _networks(cls, values: list[str]) -> list[str]:
        for text in values:
            if "/" in text:
                ip_network(text, strict=False)
        return values

    def insecure(self, host: str) -> bool:
        """`host`: with or without a port. Names are compared as they are written, never looked up."""
        name, _, port = host.lower().rpartition(":")
        if not name or not port.isdecimal():
            name = host.lower()
        named = {text.lower() for text in self.insecure_registries}
        if name == "localhost" or name in named or host.lower() in named:
            return True
        try:
            address = ip_address(name.strip("[]"))
        except ValueError:
            return False
        return address.is_loopback or any(
            address in ip_network(text, strict=False) for text in self.insecure_registries if "/" in text
        )
