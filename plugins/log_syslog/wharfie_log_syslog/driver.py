"""The driver `syslog`."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from wharfie.spi.driver import ContainerFacts, Strings
from wharfie.spi.errors import InvalidArgument
from wharfie.spi.log import LogDriver
from wharfie.spi.log_options import COMMON, attributes, boolean, buffer_size, check_names, tag
from wharfie_log_syslog.address import parse
from wharfie_log_syslog.message import FACILITIES, FORMS

KNOWN = COMMON | {
    "syslog-address",
    "syslog-facility",
    "syslog-format",
    "syslog-tls-ca-cert",
    "syslog-tls-cert",
    "syslog-tls-key",
    "syslog-tls-skip-verify",
}
_DEFAULT_TAG = "{{.ID}}"


class SyslogDriver(LogDriver):
    """Sends a container's output to a syslog server. Reading is answered by the contract's own `Unsupported`."""

    name: ClassVar[str] = "syslog"
    spi: ClassVar[str] = "1.0"
    sink: ClassVar[str] = "wharfie_log_syslog.sink:SyslogSink"

    def plan(self, container: ContainerFacts, options: Strings) -> Strings:
        check_names(options, KNOWN, "unknown log opt '{}' for syslog log driver")
        attributes(container, options)  # their expressions must be right, though syslog has no place for them
        address = parse(options.get("syslog-address", ""))
        planned = {
            "scheme": address.scheme,
            "path": address.path,
            "host": address.host,
            "port": str(address.port),
            "format": _format(options),
            "facility": str(_facility(options)),
            "tag": _printable(tag(container, options.get("tag") or _DEFAULT_TAG)),
            "mode": options.get("mode") or "blocking",
            "buffer": str(buffer_size(options)),
        }
        return planned | _tls(options) if address.scheme == "tcp+tls" else planned

    def remove(self, container: ContainerFacts, options: Strings) -> None:
        """What was sent is the server's."""


def _format(options: Strings) -> str:
    form = options.get("syslog-format", "")
    if form not in FORMS:
        known = ", ".join(filter(None, FORMS))
        raise InvalidArgument(f"invalid value for syslog-format: Invalid syslog format: {form} (there are {known})")
    return form


def _facility(options: Strings) -> int:
    text = options.get("syslog-facility", "") or "daemon"
    if text in FACILITIES:
        return FACILITIES[text]
    if text.isascii() and text.isdigit() and int(text) <= 23:
        return int(text)
    raise InvalidArgument(f"invalid value for syslog-facility: invalid syslog facility: {text} (daemon, local0, 16, …)")


def _tls(options: Strings) -> dict[str, str]:
    skip = "syslog-tls-skip-verify" in options and boolean("syslog-tls-skip-verify", options["syslog-tls-skip-verify"])
    planned = {"tls-skip-verify": "true" if skip else "false"}
    for name, key in (("syslog-tls-ca-cert", "tls-ca"), ("syslog-tls-cert", "tls-cert"), ("syslog-tls-key", "tls-key")):
        planned[key] = options.get(name, "")
        if planned[key] and not Path(planned[key]).is_file():
            raise InvalidArgument(f"invalid value for {name}: there is no file {planned[key]}")
    return planned


def _printable(text: str) -> str:
    """A tag ends at the first blank for whoever reads it, and a line end would begin another message."""
    return "".join(character if character.isprintable() and character != " " else "_" for character in text)
