"""Logs by a legacy LogDriver."""

from __future__ import annotations

import json
import re
from typing import Any, ClassVar

from wharfie.spi.driver import ContainerFacts, Context, Strings
from wharfie.spi.errors import InvalidArgument, Unsupported
from wharfie.spi.log import LogCapability, LogDriver, LogQuery, LogReader
from wharfie.spi.outflow import DEFAULT_LIMIT
from wharfie_docker_plugins.client import MethodAbsent, Plugin, Refused
from wharfie_docker_plugins.reader import StreamReader

_SECONDS = 9
_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([kmg]?)(?:i?b)?", re.IGNORECASE)
_POWER = {"": 0, "k": 1, "m": 2, "g": 3}


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
        mode = options.get("mode", "") or "blocking"
        if mode not in ("blocking", "non-blocking"):
            raise InvalidArgument(f"logger: logging mode not supported: {mode} (it can be blocking or non-blocking)")
        if "max-buffer-size" in options and mode != "non-blocking":
            raise InvalidArgument("logger: max-buffer-size option is only supported with 'mode=non-blocking'")
        place = self.plugin.place()
        planned = {
            "fifo": str(self._run / container.id),
            "info": json.dumps(_info(container, options)),
            "mode": mode,
            "buffer": str(_size(options.get("max-buffer-size", ""))),
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


def _size(text: str) -> int:
    """Bytes from "4m". Errors: InvalidArgument."""
    if not text:
        return DEFAULT_LIMIT
    match = _SIZE.fullmatch(text)
    if match is None:
        raise InvalidArgument(f"invalid value for max-buffer-size: invalid size: '{text}' (examples: 500k, 4m)")
    return int(float(match[1]) * 1024 ** _POWER[match[2].lower()])
