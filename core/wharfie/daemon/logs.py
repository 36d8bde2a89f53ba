"""The daemon's own log, on stderr: text or JSON, a line each, with the id of the request in whose name it was written."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable

LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "error": logging.ERROR,
    "fatal": logging.CRITICAL,
}
_WORDS = {logging.WARNING: "warn", logging.CRITICAL: "fatal"}


class _Formatter(logging.Formatter):
    """Time in UTC with milliseconds, level, logger, request, message."""

    def __init__(self, request_id: Callable[[], str]) -> None:
        super().__init__()
        self._request_id = request_id

    def fields(self, record: logging.LogRecord) -> dict[str, str]:
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        fields = {
            "time": f"{moment}.{int(record.msecs):03d}Z",
            "level": _WORDS.get(record.levelno, record.levelname.lower()),
            "logger": record.name,
        }
        request = self._request_id()
        if request:
            fields["request"] = request
        text = record.getMessage()
        if record.exc_info:
            text = f"{text}\n{self.formatException(record.exc_info)}"
        return fields | {"msg": text}


class TextFormatter(_Formatter):
    """For people."""

    def format(self, record: logging.LogRecord) -> str:
        fields = self.fields(record)
        request = f" [{fields['request']}]" if "request" in fields else ""
        return f"{fields['time']} {fields['level']:<5} {fields['logger']}{request}: {fields['msg']}"


class JsonFormatter(_Formatter):
    """For machines."""

    def format(self, record: logging.LogRecord) -> str:
        return json.dumps(self.fields(record))


def set_up(style: str, level: str, *, debug: bool, request_id: Callable[[], str]) -> None:
    """Log to stderr. `style`: "text" or "json"."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(request_id) if style == "json" else TextFormatter(request_id))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    set_level(level, debug=debug)
    logging.captureWarnings(True)


def set_level(level: str, *, debug: bool) -> None:
    """Ours at the chosen level; libraries only when something is wrong."""
    chosen = logging.DEBUG if debug else LEVELS[level]
    logging.getLogger().setLevel(max(chosen, logging.WARNING))
    logging.getLogger("wharfie").setLevel(chosen)
    # It repeats what our front has reported already, and reports each request that the end of the daemon cuts off.
    logging.getLogger("uvicorn").setLevel(logging.CRITICAL)
