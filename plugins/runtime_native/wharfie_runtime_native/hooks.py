"""Hooks: programs that the configuration wants run at six points of a container's life (OCI runtime-spec, config.md
"POSIX-platform Hooks"). Imported only when a configuration has some.

    create   prestart, createRuntime    by the parent, with the namespaces and mounts there, before the root is entered
             createContainer            by the container's first process, in its namespaces, still with the runtime's root
    start    startContainer             by the same, in the container's root, as its user and under its filter
             poststart                  by the parent, when the program runs
    delete   poststop                   by the parent, when all is gone

The first that fails ends the operation and the container; after poststop there is nothing to end, and the next ones run.
"""

from __future__ import annotations

import json
import os
import select
import signal
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from wharfie.shim.signals import default_signals
from wharfie.spi.errors import DriverError, InvalidArgument
from wharfie_runtime_native.errors import reason
from wharfie_runtime_native.syscalls import close_range

KINDS: Final = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
_SHOWN: Final = 4096
"""How much of a failed hook's output is told, in bytes."""


class Hook(NamedTuple):
    """One program. `timeout`: seconds, None when it may take as long as it likes."""

    path: str
    args: tuple[str, ...]
    env: Mapping[str, str]
    timeout: float | None = None


Hooks = Mapping[str, tuple[Hook, ...]]
"""By kind."""


def parse(hooks: Mapping[str, Any]) -> Hooks:
    """`hooks` of config.json. Errors: InvalidArgument naming the hook."""
    for kind in hooks:
        if kind not in KINDS:
            raise InvalidArgument(f"hooks.{kind} is unknown; kinds of hooks are {', '.join(KINDS)}")
    return {kind: tuple(_hook(kind, index, entry) for index, entry in enumerate(hooks.get(kind) or ())) for kind in KINDS}


def _hook(kind: str, index: int, entry: Mapping[str, Any]) -> Hook:
    path, timeout = str(entry.get("path") or ""), entry.get("timeout")
    if not path.startswith("/"):
        raise InvalidArgument(f'hooks.{kind}[{index}]: path "{path}" is not absolute')
    if timeout is not None and timeout <= 0:
        raise InvalidArgument(f"hooks.{kind}[{index}]: timeout {timeout} is not above 0")
    env = dict(text.partition("=")[::2] for text in entry.get("env") or ())
    return Hook(path=path, args=tuple(entry.get("args") or (path,)), env=env, timeout=timeout)


def allowance(hooks: Hooks, *kinds: str) -> float | None:
    """Seconds that these kinds may take together; None without a limit."""
    timeouts = [hook.timeout for kind in kinds for hook in hooks[kind]]
    return None if None in timeouts else sum(timeout for timeout in timeouts if timeout is not None)


def run(
    hooks: Hooks,
    kind: str,
    state: Mapping[str, Any],
    *,
    folder: str = "",
    confine: Callable[[], None] | None = None,
    report: Callable[[str], None] | None = None,
) -> None:
    """Run one kind's, in their order, each with the state on stdin. `folder`: where they start. `confine`: called in each
    hook's process before it is executed. `report`: told of failures, after which the next hook runs.

    Errors: DriverError (the first failure, when there is no `report`).
    """
    text = json.dumps(state).encode()
    for index, hook in enumerate(hooks[kind]):
        failure = _run(hook, text, folder, confine)
        if failure:
            message = f"error running {kind} hook #{index} ({hook.path}): {failure}"
            if report is None:
                raise DriverError(message)
            report(message)


def _run(hook: Hook, text: bytes, folder: str, confine: Callable[[], None] | None) -> str:
    """What went wrong, "" when nothing did."""
    input_read, input_write = os.pipe()
    output_read, output_write = os.pipe()
    pid = os.fork()
    if pid == 0:
        _become(hook, input_read, output_write, folder, confine)
    os.close(input_read)
    os.close(output_write)
    os.set_blocking(input_write, False)
    os.set_blocking(output_read, False)
    try:
        output = _attend(pid, text, input_write, output_read, hook.timeout)
    finally:
        os.close(output_read)
    status = os.waitpid(pid, 0)[1]
    if output is None:
        return f"it did not end within {hook.timeout} s"
    code = os.waitstatus_to_exitcode(status)
    if code == 0:
        return ""
    word = f"exit status {code}" if code > 0 else f"killed by signal {-code}"
    told = output[-_SHOWN:].decode("utf-8", "replace").strip()
    return f"{word}{', output: ' if told else ''}{told}"


def _become(hook: Hook, stdin: int, output: int, folder: str, confine: Callable[[], None] | None) -> None:
    """In the forked child; does not return."""
    try:
        if confine is None:  # in a container they are already as they should be, and its /proc need not be one
            default_signals()
        os.setsid()  # so that all of it can be ended
        for target, fd in enumerate((stdin, output, output)):
            os.dup2(fd, target)
        close_range(3, 0xFFFFFFFF, 0)
        if folder:
            os.chdir(folder)
        if confine is not None:
            confine()
        os.execve(hook.path, hook.args, dict(hook.env))
    except OSError as error:
        os.write(2, f"{error.filename or hook.path}: {reason(error)}".encode())
    except BaseException as error:  # noqa: BLE001  # a fork of the runtime must not go on as the runtime
        os.write(2, str(error).encode())
    finally:
        os._exit(127)


def _attend(pid: int, text: bytes, stdin: int, output: int, timeout: float | None) -> bytes | None:
    """Give it its input and take its output until the process ends; None when it was killed for its timeout.

    Programs that it leaves behind may keep the streams open: its end is its own, not that of its output.
    """
    end = None if timeout is None else time.monotonic() + timeout
    told = b""
    process = os.pidfd_open(pid)
    poll = select.poll()
    poll.register(process, select.POLLIN)
    poll.register(output, select.POLLIN)
    poll.register(stdin, select.POLLOUT)
    try:
        while True:
            left = None if end is None else max(0.0, end - time.monotonic())
            ready = dict(poll.poll(None if left is None else left * 1000))
            if not ready:
                _kill(pid)
                return None
            if output in ready or process in ready:
                data = _read(output)
                told = (told + data)[-2 * _SHOWN :]
                if process in ready:
                    return told
                if not data:
                    poll.unregister(output)
            if stdin in ready:
                text = _write(stdin, text)
                if not text:
                    poll.unregister(stdin)
                    os.close(stdin)
                    stdin = -1
    finally:
        os.close(process)
        if stdin >= 0:
            os.close(stdin)


def _kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)  # not collected yet, so it is there
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:  # it did not come as far as its own session
        pass


def _read(output: int) -> bytes:
    try:
        return os.read(output, 65536)
    except BlockingIOError:
        return b""


def _write(stdin: int, text: bytes) -> bytes:
    """What is left to write: nothing when the hook does not read."""
    try:
        return text[os.write(stdin, text) :]
    except BlockingIOError:
        return text
    except BrokenPipeError:
        return b""
