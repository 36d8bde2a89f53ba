"""A process that serves the daemon: a bare, sealed interpreter that takes what comes on its channel, and ends with it."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Sequence
from typing import Final

from wharfie.shim.sealed import interpreter, sealed_interpreter

_GRACE: Final = 1.0
"""Seconds in which one whose channel was closed ends by itself."""


class Attendant:
    """The process, and our end of a SOCK_SEQPACKET pair; its own end is the first argument that `boot` finds, a number."""

    def __init__(self, boot: str, arguments: Sequence[str]) -> None:
        """Start it; `boot` is its program, `arguments` are the following ones. Errors: OSError."""
        environment = {"PATH": os.environ.get("PATH", os.defpath)}
        if "LD_LIBRARY_PATH" in os.environ:  # an interpreter may find its own library by it
            environment["LD_LIBRARY_PATH"] = os.environ["LD_LIBRARY_PATH"]
        self.channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        image = sealed_interpreter()
        try:
            self._process = subprocess.Popen(
                [interpreter(), "-I", "-S", "-X", "utf8", "-c", boot, str(theirs.fileno()), *arguments],
                executable=f"/proc/self/fd/{image}",
                pass_fds=(theirs.fileno(), image),
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                env=environment,
                cwd="/",
            )
        except BaseException:
            self.channel.close()
            raise
        finally:
            theirs.close()
            os.close(image)

    @property
    def pid(self) -> int:
        return self._process.pid

    def end(self) -> None:
        """Close the channel, and kill what does not end by that."""
        self.channel.close()
        try:
            self._process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
