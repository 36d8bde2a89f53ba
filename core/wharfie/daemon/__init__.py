"""The process `wharfied`: flags and daemon.json, sockets and TLS, signals, the order of start and end."""

from __future__ import annotations

import sys

TOOLS = ("doctor", "enable", "disable")
"""Commands that work without a daemon; `wharfie plugin` runs them when none answers."""


def main() -> None:
    """Console script `wharfied`."""
    if sys.argv[1:2] and sys.argv[1] in TOOLS:
        from wharfie.daemon.tools import tools  # only when asked for

        tools()
    from wharfie.daemon.flags import command  # click and pydantic are needed by nobody who only imports the package

    command()
