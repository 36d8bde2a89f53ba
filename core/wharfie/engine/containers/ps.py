"""`docker top`: the host's ps(1), restricted to a container's processes."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Collection
from dataclasses import dataclass

from wharfie.spi.errors import InvalidArgument, WharfieError


@dataclass(frozen=True, slots=True)
class Top:
    titles: list[str]
    processes: list[list[str]]


async def top(arguments: str, pids: Collection[int]) -> Top:
    """Errors: InvalidArgument (ps refuses the arguments, or they hide the PID column)."""
    try:
        words = shlex.split(arguments or "-ef")
    except ValueError as error:
        raise InvalidArgument(f"error parsing ps arguments {arguments!r}: {error}") from error
    try:
        process = await asyncio.create_subprocess_exec(
            "ps", *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
    except FileNotFoundError as error:
        raise WharfieError("docker top needs the program ps: apt-get install procps") from error
    output, complaint = await process.communicate()
    if process.returncode:
        reason = complaint.decode(errors="replace").partition("\n")[0]  # the rest is its usage
        raise InvalidArgument(f"ps: {reason}")
    return _parse(output.decode(errors="replace"), pids)


def _parse(text: str, pids: Collection[int]) -> Top:
    lines = text.splitlines()
    titles = lines[0].split() if lines else []
    if "PID" not in titles:
        raise InvalidArgument("Couldn't find PID field in ps output")
    column = titles.index("PID")
    processes = []
    for line in lines[1:]:
        words = line.split(None, len(titles) - 1)
        if len(words) > column and words[column].isdecimal() and int(words[column]) in pids:
            processes.append(words)
    return Top(titles, processes)
