"""Logs by a legacy LogDriver."""

from __future__ import annotations

import json
from typing import Any, ClassVar

from wharfie.spi.driver import ContainerFacts, Context, Strings
from wharfie.spi.errors import Unsupported
from wharfie.spi.log import LogCapability, LogDriver, LogQuery, LogReader
from wharfie.spi.log_options import buffer_size, check_mode
from wharfie_docker_plugins.client import MethodAbsent, Plugin, Refused
from wharfie_docker_plugins.reader import StreamReader

_SECONDS = 9


class LegacyLog(LogDriver):
    """The plugin reads a FIFO that the sink writes. Options but `mode` and `max-buffer-size` are the plugin's to judge."""

    spi: ClassVar[str] = "1.0"
    sink: ClassVar[str] = "wharfie_docker_plugins.sink:FifoSink"
    plugin: ClassVar[Plugin]

    def __init__(self, context: Context, settings: Any) -> None:
        self._run = context.run
        self._reads = False

    def open(self) -> None:
        try:
            answer = self.plugin.call("LogDriver.Capabilities", {}, seconds=_SECONDS)
        except (MethodAbsent, Refused):
            answer = {}
        # The documentation has the flag at the top, the source in `Cap`; plugins do either.
        inner = answer.get("Cap")
        self._reads = answer.get("ReadLogs") is True or (isinstance(inner, dict) and inner.get("ReadLogs") is True)

    def capabilities(self) -> frozenset[LogCapability]:
        return frozenset({LogCapability.READ} if self._reads else ())

    def probe(self) -> None:
        self.plugin.call("Plugin.Activate", seconds=1)

    def plan(self, container: ContainerFacts, options: Strings) -> Strings:
        check_mode(options)
        place = self.plugin.place()
        planned = {
            "fifo": str(self._run / container.id),
            "info": json.dumps(_info(container, options)),
            "mode": options.get("mode") or "blocking",
            "buffer": str(buffer_size(options)),
        }
        if place.socket:
            return {**planned, "socket": place.socket}
        planned |= {"host": place.host, "port": str(place.port)}
        if place.tls is not None:
            tls = {"ca": place.tls.ca, "cert": place.tls.cert, "key": place.tls.key, "insecure": place.tls.insecure}
            planned["tls"] = json.dumps(tls)
        return planned

    def open_reader(self, container: ContainerFacts, options: Strings, query: LogQuery) -> LogReader:
        if not self._reads:
            raise Unsupported("configured logging driver does not support reading")
        config = {
            "Since": _stamp(query.since_ns),
            "Until": _stamp(query.until_ns),
            "Tail": query.tail,
            "Follow": query.follow,
        }
        document = {"Config": config, "Info": json.loads(options["info"])}
        answer, connection = self.plugin.stream("LogDriver.ReadLogs", document, seconds=_SECONDS)
        return StreamReader(answer, connection, query)

    def remove(self, container: ContainerFacts, options: Strings) -> None:
        """What the plugin keeps is its own; the FIFO is gone since the container ended, unless its shim was killed."""
        (self._run / container.id).unlink(missing_ok=True)


def _info(container: ContainerFacts, options: Strings) -> dict[str, Any]:
    """moby's logger.Info."""
    return {
        "Config": {key: value for key, value in options.items() if key not in ("mode", "max-buffer-size")},
        "ContainerID": container.id,
        "ContainerName": f"/{container.name}",
        "ContainerEntrypoint": container.command[0] if container.command else "",
        "ContainerArgs": list(container.command[1:]),
        "ContainerImageID": container.image_id,
        "ContainerImageName": container.image,
        "ContainerCreated": container.created,
        "ContainerEnv": list(container.env),
        "ContainerLabels": dict(container.labels),
        "LogPath": "",
        "DaemonName": "docker",
    }


def _stamp(time_ns: int) -> str:
    """RFC 3339 as Go writes it; its zero time for no bound."""
    from datetime import UTC, datetime

    if not time_ns:
        return "0001-01-01T00:00:00Z"
    seconds, fraction = divmod(time_ns, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{fraction:09d}Z"
