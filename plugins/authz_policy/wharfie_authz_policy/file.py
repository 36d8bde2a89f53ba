"""The policy file: read again when it has changed, never half, never an older one in place of a broken one."""

from __future__ import annotations

import json
import os
import stat
import threading
import time
import tomllib
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from wharfie.spi.errors import Unavailable
from wharfie_authz_policy.rules import Policy

_SETTLED_NS = 2_000_000_000
"""A file that changed this recently may change again without a new time stamp: its content is not kept."""
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_LIMIT = 1024 * 1024

_Version = tuple[int, int, int, int]


class PolicyFile:
    """The rules that hold now. Thread-safe."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._version: _Version | None = None
        self._policy: Policy | Unavailable = Unavailable(f"the policy file {path} was not read yet")

    def current(self) -> Policy:
        """Errors: Unavailable (the file is missing, broken, or writable by others), with the place that is wrong."""
        with self._lock:
            try:
                version, changed = _version(self._path)
            except OSError as error:
                self._version = None
                raise Unavailable(f"the policy file {self._path} cannot be read: {error.strerror}") from error
            if version != self._version:
                self._policy = self._read()
                self._version = version if abs(time.time_ns() - changed) > _SETTLED_NS else None
            if isinstance(self._policy, Unavailable):
                raise self._policy
            return self._policy

    def _read(self) -> Policy | Unavailable:
        try:
            return Policy.model_validate(_document(self._path))
        except ValidationError as error:
            fault = error.errors(include_url=False)[0]
            where = ".".join(str(part) for part in fault["loc"])
            problem = f"{where}: {fault['msg']}"
        except (OSError, ValueError, RecursionError) as error:
            problem = str(error)
        return Unavailable(f"the policy file {self._path} is broken: {problem}")


def _version(path: Path) -> tuple[_Version, int]:
    """What changes when the file does, and when it changed."""
    facts = path.stat()
    version = (facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)
    return version, max(facts.st_mtime_ns, facts.st_ctime_ns)


def _document(path: Path) -> Any:
    with open(path, "rb", opener=_without_waiting) as file:
        facts = os.fstat(file.fileno())
        if not stat.S_ISREG(facts.st_mode):
            raise ValueError("it is no regular file")
        if facts.st_uid not in (0, os.geteuid()) or facts.st_mode & _OTHERS_WRITE:
            raise ValueError("others than its owner root may write it; chown root and chmod 0644")
        content = file.read(_LIMIT + 1)
    if len(content) > _LIMIT:
        raise ValueError(f"it is larger than {_LIMIT} bytes")
    text = content.decode()
    return json.loads(text) if path.suffix == ".json" else tomllib.loads(text)


def _without_waiting(path: str, flags: int) -> int:
    """A FIFO in the file's place must not hold every request."""
    return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)
