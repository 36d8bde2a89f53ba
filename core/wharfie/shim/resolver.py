"""The name server of a container's network namespace (not there yet)."""

from __future__ import annotations

from pathlib import Path

from wharfie.shim.loop import Loop


class Resolver:
    @classmethod
    def open(cls, loop: Loop, path: Path, netns: str) -> Resolver | None:
        return None

    def close(self) -> None:
        return
