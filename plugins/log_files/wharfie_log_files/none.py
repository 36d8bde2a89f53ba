"""`none`: output is not kept."""

from __future__ import annotations

from typing import ClassVar

from wharfie.spi.driver import ContainerFacts, Strings
from wharfie.spi.errors import InvalidArgument
from wharfie.spi.log import LogDriver


class NoneDriver(LogDriver):
    """Drops a container's output. Reading is answered by the contract's own `Unsupported`."""

    name: ClassVar[str] = "none"
    spi: ClassVar[str] = "1.0"
    sink: ClassVar[str] = "wharfie_log_files.sink:NoneSink"

    def plan(self, container: ContainerFacts, options: Strings) -> Strings:
        for option in options:
            raise InvalidArgument(f"unknown log opt '{option}' for none log driver")
        return {}

    def remove(self, container: ContainerFacts, options: Strings) -> None:
        """There is none."""
