"""What the global flags say: where the state is, and where errors go."""

from __future__ import annotations

import json
import sys
import time
from typing import Final

from wharfie_runtime_native.command.store import Store

DEFAULT_ROOT: Final = "/run/wharfie-runtime"


class Log:
    """`--log`, `--log-format` and `--debug`. Lines look like runc's (logrus), which conmon and containerd read."""

    def __init__(self) -> None:
        self.path = ""
        self.json = False
        self.verbose = False

    def debug(self, message: str) -> None:
        if self.verbose:
            self._write("debug", message)

    def warning(self, message: str) -> None:
        self._write("warning", message)

    def error(self, message: str) -> None:
        """One line into the log and one on stderr, the same one where stderr is the log."""
        self._write("error", message)
        if self.path:
            print(message, file=sys.stderr)

    def _write(self, level: str, message: str) -> None:
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        message = " ".join(message.splitlines())
        if self.json:
            line = json.dumps({"level": level, "msg": message, "time": at}, ensure_ascii=False)
        else:
            line = f'time="{at}" level={level} msg={json.dumps(message, ensure_ascii=False)}'
        if not self.path:
            print(line, file=sys.stderr)
            return
        try:
            with open(self.path, "a", encoding="utf-8", errors="surrogateescape") as file:
                file.write(line + "\n")
        except OSError as error:
            print(f"cannot write to the log {self.path}: {error.strerror}: {line}", file=sys.stderr)


class Session:
    """One call of the command line. `command`: its name, "" as long as it is not known."""

    def __init__(self) -> None:
        self.store = Store(DEFAULT_ROOT)
        self.log = Log()
        self.command = ""
