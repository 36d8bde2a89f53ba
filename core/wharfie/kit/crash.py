"""Killing a driver at every line of its own package that an operation executes, and at random instants.

Limits: Python lines of the calling thread. What a driver's child processes and own threads do is met by the random
instants. The kill is SIGKILL to the process, as when the daemon is killed.
"""

from __future__ import annotations

import os
import pickle
import random
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Generic, TypeVar

from wharfie.kit.room import fork
from wharfie.spi.driver import Driver

D = TypeVar("D", bound=Driver[Any])

RANDOM = {"sample": 2, "all": 40}
"""Kills at random instants of one operation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation(Generic[D]):
    """A call that is killed. `before` prepares and returns what `run` needs (picklable); then, in a new process on the
    same folders: `repair` is what the core does after a start (reconcile with what it wanted before the call), `run` is
    repeated, `verify` looks at the result, `undo` takes everything away."""

    name: str
    before: Callable[[D], Any]
    run: Callable[[D, Any], object]
    repair: Callable[[D, Any], object]
    verify: Callable[[D, Any], object]
    undo: Callable[[D, Any], object]


def package_of(driver: Driver[Any]) -> Callable[[str], bool]:
    """Is this source file the driver's own? Its package is, or its module when it has none, and helpers of the core that
    its class derives from (`wharfie.shim`), but the contracts are not."""
    files: set[str] = set()
    folders: set[str] = set()
    for cls in type(driver).__mro__:
        module = sys.modules[cls.__module__]
        if cls.__module__.startswith("wharfie.spi.") or getattr(module, "__file__", None) is None:
            continue
        core = cls.__module__.startswith("wharfie.")
        package = cls.__module__.rpartition(".")[0] if core else cls.__module__.partition(".")[0]
        found = getattr(sys.modules.get(package), "__path__", None)
        if found:
            folders.update(str(Path(folder)) + os.sep for folder in found)
        elif cls.__module__ not in sys.stdlib_module_names:
            files.add(str(module.__file__))
    own = tuple(folders)
    return lambda name: name in files or name.startswith(own)


@dataclass(frozen=True, slots=True, kw_only=True)
class Killed:
    """`lines`: how many were executed; None: the process was killed. `memo`: what `before` returned."""

    memo: Any
    lines: int | None
    where: str  # file:line of the kill
    took: float
    failure: str = ""


def in_child(driver: Callable[[], D], operation: Operation[D], *, at_line: int = 0, after: float = -1.0) -> Killed:
    """Open a driver in a child, prepare, run the operation, and kill the child at the `at_line`-th line or `after` seconds;
    with neither, let it go to its end and die without a close."""
    reading, writing = os.pipe()
    pid = fork()
    if pid == 0:
        os.close(reading)
        try:
            _child(driver, operation, at_line, writing)
        except BaseException:  # noqa: BLE001 - told to the parent
            os.write(writing, pickle.dumps(("failure", traceback.format_exc())))
        finally:
            os._exit(1)
    os.close(writing)
    with open(reading, "rb") as pipe:
        memo, where, lines, took, failure = None, "", None, 0.0, ""
        try:
            for word, value in _messages(pipe):
                if word == "ready":
                    memo = value
                    if after >= 0:
                        select.select([pipe], [], [], after)
                        os.kill(pid, signal.SIGKILL)
                elif word == "at":
                    where = value
                elif word == "done":
                    lines, took = value
                elif word == "failure":
                    failure = value
        finally:
            os.waitpid(pid, 0)
    return Killed(memo=memo, where=where, lines=lines, took=took, failure=failure)


def _messages(pipe: Any) -> Iterator[tuple[str, Any]]:
    while True:
        try:
            yield pickle.load(pipe)  # written by our own child
        except (EOFError, pickle.UnpicklingError):
            return


def _child(make: Callable[[], D], operation: Operation[D], at_line: int, writing: int) -> None:
    from wharfie.kit.rig import raw

    driver = make()
    memo = operation.before(driver)
    own = package_of(raw(driver))
    os.write(writing, pickle.dumps(("ready", memo)))
    count = 0

    def line(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal count
        if event == "line":
            count += 1
            if count == at_line:
                name = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
                os.write(writing, pickle.dumps(("at", name)))
                os.kill(os.getpid(), signal.SIGKILL)
        return line

    def call(frame: FrameType, event: str, argument: object) -> Any:
        return line if own(frame.f_code.co_filename) else None

    begin = time.monotonic()
    if at_line >= 0:
        sys.settrace(call)
    try:
        operation.run(driver, memo)
    finally:
        sys.settrace(None)
    os.write(writing, pickle.dumps(("done", (count, time.monotonic() - begin))))
    os.kill(os.getpid(), signal.SIGKILL)


def lines_to_kill(total: int, mode: str, sample: int) -> list[int]:
    """The lines at which to kill an operation of `total` lines: all, or a sample that always has the first and the last."""
    if mode == "all" or total <= sample:
        return list(range(1, total + 1))
    return sorted({1 + round(index * (total - 1) / (sample - 1)) for index in range(sample)})


def instants(took: float, mode: str) -> list[float]:
    """Random moments within an operation that takes `took` seconds."""
    return [random.uniform(0, took) for _ in range(RANDOM[mode])]
