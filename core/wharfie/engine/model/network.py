"""Networks and endpoints as the API and the store know them. Docker Engine API, definitions Network, EndpointSettings."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from wharfie.engine.model.base import Model


class EndpointIPAMConfig(Model):
    ipv4_address: Annotated[str, Field(alias="IPv4Address")] = ""
    ipv6_address: Annotated[str, Field(alias="IPv6Address")] = ""
    link_local_ips: Annotated[list[str] | None, Field(alias="LinkLocalIPs")] = None


class EndpointSettings(Model):
    """What a user asks of an endpoint, and what came of it."""

    ipam_config: Annotated[EndpointIPAMConfig | None, Field(alias="IPAMConfig")] = None
    links: list[str] | None = None
    aliases: list[str] | None = None
    mac_address: str = ""
    driver_opts: dict[str, str] | None = None
    gw_priority: int = 0
    network_id: Annotated[str, Field(alias="NetworkID")] = ""
    endpoint_id: Annotated[str, Field(alias="EndpointID")] = ""
    gateway: str = ""
    ip_address: Annotated[str, Field(alias="IPAddress")] = ""
    ip_prefix_len: Annotated[int, Field(alias="IPPrefixLen")] = 0
    ipv6_gateway: Annotated[str, Field(alias="IPv6Gateway")] = ""
    global_ipv6_address: Annotated[str, Field(alias="GlobalIPv6Address")] = ""
    global_ipv6_prefix_len: Annotated[int, Field(alias="GlobalIPv6PrefixLen")] = 0
    dns_names: Annotated[list[str] | None, Field(alias="DNSNames")] = None


class NetworkingConfig(Model):
    endpoints_config: dict[str, EndpointSettings] = Field(default_factory=dict)


class IPAMPool(Model):
    subnet: str = ""
    ip_range: Annotated[str, Field(alias="IPRange")] = ""
    gateway: str = ""
    auxiliary_addresses: dict[str, str] | None = None


class IPAM(Model):
    driver: str = "default"
    options: dict[str, str] | None = None
    config: list[IPAMPool] | None = None


class ConfigReference(Model):
    """The configuration network that another one is made from."""

    network: str = ""


class NetworkCreate(Model):
    """Body of `POST /networks/create`."""

    name: str = ""
    check_duplicate: bool | None = None
    driver: str = ""
    scope: str = ""
    internal: bool = False
    attachable: bool = False
    ingress: bool = False
    config_only: bool = False
    config_from: ConfigReference | None = None
    ipam: Annotated[IPAM | None, Field(alias="IPAM")] = None
    enable_ipv4: Annotated[bool, Field(alias="EnableIPv4")] = True
    enable_ipv6: Annotated[bool, Field(alias="EnableIPv6")] = False
    options: dict[str, str] = Field(default_factory=dict)
    labels: dict[str, str] = Field(default_factory=dict)
