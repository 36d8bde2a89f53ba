"""A process that pulls one image and is meant to be killed: `python -m tests.images.killed DATA NAME`."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from tests.images.conftest import House


async def main() -> None:
    async with House(Path(sys.argv[1])) as house:
        print("begun", flush=True)
        await house.pull(sys.argv[2], "1")
        print("done", flush=True)


if __name__ == "__main__":
    asyncio.run(main())
