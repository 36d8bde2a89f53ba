"""The file of reserved addresses."""

from __future__ import annotations

import json
import os
import stat
import tomllib
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError, model_validator

from wharfie.spi.errors import InvalidArgument, Unavailable
from wharfie.spi.ipam import Address, Subnet

_LIMIT = 4 * 1024 * 1024


def _range(text: str) -> str:
    borders(text)
    return text


def borders(text: str) -> tuple[Address, Address]:
    """First and last address of "A-B", "NETWORK/LENGTH" or one address. Errors: ValueError."""
    first, dash, last = (part.strip() for part in text.partition("-"))
    if dash:
        low, high = ip_address(first), ip_address(last)
        if low.version != high.version or int(low) > int(high):
            raise ValueError(f"{text} is no range: it ends before it begins")
        return low, high
    network = ip_network(text)
    return network.network_address, network.broadcast_address


class Pool(BaseModel):
    """One subnet: who has which address in it, and which are for everybody."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    subnet: IPv4Network | IPv6Network
    gateway: IPv4Address | IPv6Address | None = None
    hosts: Mapping[str, IPv4Address | IPv6Address] = {}
    ranges: tuple[Annotated[str, AfterValidator(_range)], ...] = ()

    @model_validator(mode="after")
    def _fits(self) -> Pool:
        seen: dict[Address, str] = {}
        for name, address in self.hosts.items():
            if address not in self.subnet:
                raise ValueError(f"the address of {name}, {address}, is not in {self.subnet}")
            if address in seen or address == self.gateway:
                raise ValueError(f"{address} is reserved for {name} and for {seen.get(address, 'the gateway')}")
            seen[address] = name
        if self.gateway is not None and self.gateway not in self.subnet:
            raise ValueError(f"the gateway {self.gateway} is not in {self.subnet}")
        for text in self.ranges:
            if not all(border in self.subnet for border in borders(text)):
                raise ValueError(f"the range {text} is not in {self.subnet}")
        return self

    @property
    def first(self) -> Address:
        """What a gateway is that nobody named: the first address that an interface may have."""
        return self.subnet[1 if self.subnet.num_addresses > 2 else 0]

    def open_addresses(self) -> Iterator[Address]:
        """Those of the ranges that are nobody's, lowest of each range first."""
        kept: set[Address | None] = {*self.hosts.values(), self.gateway}
        if self.subnet.num_addresses > 2:
            kept.add(self.subnet.network_address)
            if self.subnet.version == 4:
                kept.add(self.subnet.broadcast_address)
        for text in self.ranges:
            low, high = borders(text)
            for number in range(int(low), int(high) + 1):
                address = type(low)(number)
                if address not in kept:
                    yield address

    def is_open(self, address: Address) -> bool:
        """Is the address in a range, and nobody's?"""
        if address in self.hosts.values() or address == self.gateway:
            return False
        return any(
            low.version == address.version and int(low) <= int(address) <= int(high)
            for low, high in map(borders, self.ranges)
        )

    def owner(self, address: Address) -> str:
        """Whom the address is reserved for; empty: nobody."""
        return next((name for name, reserved in self.hosts.items() if reserved == address), "")


class _File(BaseModel):
    """Pools may overlap: the engine lets only one of them be held at a time."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    pools: tuple[Pool, ...]


def read(path: str) -> tuple[Pool, ...]:
    """The pools of a file. Errors: InvalidArgument (it is wrong; with the place), Unavailable (it cannot be read)."""
    try:
        return _File.model_validate(_document(path)).pools
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in fault["loc"])
        raise InvalidArgument(f"file: {path}: {where + ': ' if where else ''}{fault['msg']}") from None
    except OSError as error:
        raise Unavailable(f"file: {path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"file: {path}: {error}") from None


def find(pools: tuple[Pool, ...], subnet: Subnet) -> Pool | None:
    """The pool of exactly this subnet."""
    return next((pool for pool in pools if pool.subnet == subnet), None)


def _document(path: str) -> Any:
    with open(path, "rb", opener=_without_waiting) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ValueError("it is no regular file")
        content = file.read(_LIMIT + 1)
    if len(content) > _LIMIT:
        raise ValueError(f"it is larger than {_LIMIT} bytes")
    text = content.decode()
    return json.loads(text) if Path(path).suffix == ".json" else tomllib.loads(text)


def _without_waiting(path: str, flags: int) -> int:
    """A FIFO in the file's place must not hold a worker."""
    return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)
