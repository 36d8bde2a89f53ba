"""The command line `wharfie`: a client of the HTTP API and nothing else. One module per command group, loaded lazily."""

from __future__ import annotations


def main() -> int:
    """The console script. The exit code is Docker's for the same command."""
    from wharfie.cli.app import run

    return run()
