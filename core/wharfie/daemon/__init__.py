"""The process `wharfied`: flags and daemon.json, sockets and TLS, signals, the order of start and end."""

from __future__ import annotations


def main() -> None:
    """Console script `wharfied`."""
    from wharfie.daemon.flags import command  # click and pydantic are needed by nobody who only imports the package

    command()
