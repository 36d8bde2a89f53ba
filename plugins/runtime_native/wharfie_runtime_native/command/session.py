"""What the global flags say: where the state is, and where errors go."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from wharfie_runtime_native.command.store import Store

DEFAULT_ROOT: Final = Path("/run/wharfie-runtime")


@dataclass(slots=True)
class Log:
    """`--log`, `--log-format` and `--debug`. Lines look like runc's (logrus), which conmon and containerd read."""

    path: Path | None = None
    format: Literal["text", "json"] = "text"
    verbose: bool = False

    def debug(self, message: str) -> None:
        if self.verbose:
            self._write("debug", message)

    def warning(self, message: str) -> None:
        self._write("warning", message)

    def error(self, message: str) -> None:
        """One line into the log and one on stderr, the same one where stderr is the log."""
        self._write("error", message)
        if self.path is not None:
            print(message, file=sys.stderr)

    def _write(self, level: str, message: str) -> None:
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        message = " ".join(message.splitlines())
        if self.format == "json":
            line = json.dumps({"level": level, "msg": message, "time": at}, ensure_ascii=False)
        else:
            line = f'time="{at}" level={level} msg={json.dumps(message, ensure_ascii=False)}'
        if self.path is None:
            print(line, file=sys.stderr)
            return
        try:
            with self.path.open("a", encoding="utf-8", errors="surrogateescape") as file:
                file.write(line + "\n")
        except OSError as error:
            print(f"cannot write to the log {self.path}: {error.strerror}: {line}", file=sys.stderr)


@dataclass(slots=True)
class Session:
    """One call of the command line."""

    store: Store = field(default_factory=lambda: Store(DEFAULT_ROOT))
    log: Log = field(default_factory=Log)
