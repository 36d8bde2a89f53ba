"""The driver `journald`."""

from __future__ import annotations

import json
import re
import shutil
from typing import ClassVar

from wharfie.spi.driver import ContainerFacts, Context, Strings
from wharfie.spi.errors import Unsupported
from wharfie.spi.log import LogCapability, LogDriver, LogQuery, LogReader
from wharfie.spi.log_options import COMMON, attributes, buffer_size, check_names, tag
from wharfie_log_journald.reader import JOURNALCTL, JournalReader
from wharfie_log_journald.settings import JournaldSettings

_DEFAULT_TAG = "{{.ID}}"
_NOT_OF_A_FIELD = re.compile(r"[^A-Z0-9_]")


class JournaldDriver(LogDriver):
    """Sends a container's output to the journal, and reads it back by journalctl where there is one."""

    name: ClassVar[str] = "journald"
    spi: ClassVar[str] = "1.0"
    settings: ClassVar[str] = "wharfie_log_journald.settings:JournaldSettings"
    sink: ClassVar[str] = "wharfie_log_journald.sink:JournaldSink"

    def __init__(self, context: Context, settings: JournaldSettings) -> None:
        self._namespace = settings.namespace
        self._reads = False

    def open(self) -> None:
        self._reads = shutil.which(JOURNALCTL) is not None

    def capabilities(self) -> frozenset[LogCapability]:
        return frozenset({LogCapability.READ} if self._reads else ())

    def plan(self, container: ContainerFacts, options: Strings) -> Strings:
        check_names(options, COMMON, "unknown log opt '{}' for journald log driver")
        name = tag(container, options.get("tag") or _DEFAULT_TAG)
        chosen = attributes(container, {key: value for key, value in options.items() if key != "tag"})
        fields = {_field_name(key): value for key, value in chosen.items() if _field_name(key)}
        fields |= {
            "CONTAINER_ID": container.id[:12],
            "CONTAINER_ID_FULL": container.id,
            "CONTAINER_NAME": container.name,
            "CONTAINER_TAG": name,
            "IMAGE_NAME": container.image,
            "SYSLOG_IDENTIFIER": name,
        }
        folder = f"journal.{self._namespace}" if self._namespace else "journal"
        return {
            "socket": f"/run/systemd/{folder}/socket",
            "namespace": self._namespace,
            "fields": json.dumps(fields),
            "mode": options.get("mode") or "blocking",
            "buffer": str(buffer_size(options)),
        }

    def open_reader(self, container: ContainerFacts, options: Strings, query: LogQuery) -> LogReader:
        if not self._reads:
            raise Unsupported("configured logging driver does not support reading")
        return JournalReader(container.id, options["namespace"], query)

    def remove(self, container: ContainerFacts, options: Strings) -> None:
        """What was sent is the journal's."""


def _field_name(key: str) -> str:
    """A label's or variable's name as a field: capitals, digits, underscores, none of them first."""
    return _NOT_OF_A_FIELD.sub("_", key.upper()).lstrip("_0123456789")[:64]
