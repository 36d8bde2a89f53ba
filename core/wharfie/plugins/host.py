"""`python -m wharfie.plugins.host KIND.NAME`: one driver in a process of its own, started by the daemon.

Its standard input is the socket to the daemon; its standard output and error are the daemon's to keep as last words.
"""

from __future__ import annotations

import os
import socket
import sys

from wharfie.plugins.remote.process import OWN_PATH
from wharfie.plugins.remote.serve import serve


def main() -> None:
    """Take the socket from standard input, where a driver that closes or reads it would find it, and serve."""
    if len(sys.argv) != 2:
        sys.exit(
            "usage: python -m wharfie.plugins.host KIND.NAME  (started by the daemon, with a socket as standard input)"
        )
    path = os.environ.pop(OWN_PATH, "")
    os.environ.pop("PYTHONPATH", "")
    if path:
        os.environ["PYTHONPATH"] = path
    sock = socket.socket(fileno=os.dup(0))
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    serve(sock, sys.argv[1])


if __name__ == "__main__":
    main()
