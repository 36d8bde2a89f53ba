"""An engine that drives an OCI binary by its command line, inside the shim (contract: `wharfie.shim.engine`).

The binary leaves its processes to the shim, which is their subreaper. Limits and life are the binary's; figures are read
from the container's control group, because not every binary can tell them.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal as signals
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any, Final

from wharfie.shim.cgroups import open_reader, path_of, warm
from wharfie.shim.engine import Engine, Streams
from wharfie.spi.errors import DriverError, InvalidArgument, WharfieError
from wharfie_runtime_oci import flavours
from wharfie_runtime_oci.binary import Binary, Failed
from wharfie_runtime_oci.bundle import configuration
from wharfie_runtime_oci.console import NAME, Console
from wharfie_runtime_oci.sweep import sweep
from wharfie_runtime_oci.words import explain

_SLOW: Final = 20.0
_QUICK: Final = 8.0
_SIGNAL: Final = 4.0
_KILL_ROUNDS: Final = 20  # a process that forks while the others are killed is met in the next round


class OciEngine(Engine):
    """One container by a binary. `options` are `driver.OciRuntime.engine_options`."""

    def __init__(self, id: str, bundle: str, spec: Mapping[str, Any], options: Mapping[str, Any]) -> None:
        super().__init__(id, bundle, spec, options)
        self._flavour = flavours.of(options["flavour"])
        self._folder = Path(options["bundles"]) / id
        self._binary = Binary(
            program=options["program"],
            arguments=tuple(options["arguments"]),
            root=Path(options["root"]),
            folder=self._folder,
            refuses_hybrid=self._flavour.refuses_hybrid,
        )
        self._cgroup = open_reader(path_of(spec, id))
        self._pid = 0
        self._inner: dict[int, str] = {}  # of a sandbox's execs: the pid on the host → the pid in the sandbox

    def create(self, rootfs: Path, streams: Streams) -> int:
        document = configuration(self.spec, self.id, self.options["init"])
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            (self._folder / "config.json").write_text(json.dumps(document))
            return self._make(document["process"], streams, "create", "--bundle", str(self._folder))
        except BaseException:
            with contextlib.suppress(WharfieError):  # the first error is the one to be told
                self.delete()
            raise

    def adopt(self, pid: int, kept: Sequence[int]) -> None:
        self._pid = pid

    def start(self) -> None:
        self._run_program(self.spec["process"], "start", self.id)

    def exec(self, process: Mapping[str, Any], streams: Streams) -> int:
        file, inner = self._folder / "process.json", self._folder / "inner.pid"
        if streams.size is not None:  # the program runs before its terminal arrives here
            process = {**process, "consoleSize": dict(zip(("height", "width"), streams.size, strict=True))}
        file.write_text(json.dumps(process))
        more = ("--internal-pid-file", str(inner)) if self._flavour.sandbox else ()
        try:
            pid = self._make(process, streams, "exec", "--detach", "--process", str(file), *more)
            if more:
                self._inner[pid] = inner.read_text().strip()
        finally:
            file.unlink(missing_ok=True)
            inner.unlink(missing_ok=True)
        return pid

    def _make(self, process: Mapping[str, Any], streams: Streams, *words: str) -> int:
        """Run a subcommand that leaves a process with these streams behind; its pid."""
        file = self._folder / "pid"
        words = (*words, "--pid-file", str(file))
        try:
            if streams.console < 0:
                stdio = (streams.stdin, streams.stdout, streams.stderr)
                self._run_program(process, *words, self.id, stdio=stdio)
                return int(file.read_text())
            with Console(self._folder) as console:
                self._run_program(process, *words, "--console-socket", NAME, self.id)
                pid = int(file.read_text())
                try:
                    console.hand_over(streams)
                except BaseException:
                    os.kill(pid, signals.SIGKILL)
                    raise
                return pid
        finally:
            file.unlink(missing_ok=True)

    def _run_program(self, process: Mapping[str, Any], *words: str, stdio: tuple[int, int, int] | None = None) -> None:
        try:
            self._binary.run(*words, seconds=_SLOW, stdio=stdio)
        except Failed as failure:
            raise explain(failure.text, str(process["args"][0])) from None

    def signal(self, pid: int, signal: int) -> None:
        if not self._flavour.sandbox or signal == signals.SIGKILL:
            super().signal(pid, signal)
        elif pid == self._pid:
            self._run(_SIGNAL, "kill", self.id, str(signal))
        elif pid in self._inner:
            self._run(_SIGNAL, "kill", "--pid", self._inner[pid], self.id, str(signal))

    def signal_all(self, signal: int) -> None:
        if self._flavour.sandbox:
            self._run(_SIGNAL, "kill", "--all", self.id, str(signal))
            return
        for _ in range(_KILL_ROUNDS if signal == signals.SIGKILL else 1):
            pids = self._cgroup.pids()
            for pid in pids:
                try:
                    os.kill(pid, signal)
                except ProcessLookupError:
                    pass
            if not pids:
                return

    def pause(self) -> None:
        self._run(_QUICK, "pause", self.id)

    def resume(self) -> None:
        self._run(_QUICK, "resume", self.id)

    def update(self, resources: Mapping[str, Any]) -> None:
        file = self._folder / "resources.json"
        file.write_text(json.dumps(resources))
        try:
            self._binary.run("update", "--resources", str(file), self.id, seconds=_QUICK)
        except Failed as failure:
            raise InvalidArgument(failure.text) from None
        finally:
            file.unlink(missing_ok=True)

    def stats(self) -> Mapping[str, Any]:
        return self._cgroup.stats()

    def pids(self) -> Sequence[int]:
        return self._cgroup.pids()

    def oom_fd(self) -> int:
        return self._cgroup.oom_fd()

    def oom_killed(self) -> bool:
        return self.oom_kills() > 0

    def oom_kills(self) -> int:
        return self._cgroup.oom_kills()

    def delete(self) -> None:
        if not self._folder.exists():  # no `create` has come so far, or an earlier `delete` was through
            return
        # runsc waits until its helpers are gone, and what nobody has collected is not gone.
        self._run(_SLOW, "delete", "--force", self.id, keep={self._pid, *self._inner} if self._flavour.sandbox else None)
        # A binary that was killed half-way has left what it does not know of itself.
        sweep(self._cgroup)
        for folder in (self._binary.root / self.id, self._folder):
            _remove(folder)

    def _run(self, seconds: float, *words: str, keep: Set[int] | None = None) -> None:
        try:
            self._binary.run(*words, seconds=seconds, keep=keep)
        except Failed as failure:
            raise DriverError(f"{words[0]} of container {self.id}: {failure.text}") from None


def _remove(folder: Path) -> None:
    """A folder of files. May be repeated."""
    try:
        for entry in folder.iterdir():
            entry.unlink(missing_ok=True)
        folder.rmdir()
    except FileNotFoundError:
        pass


# Found out here, where the zygote imports this, so that no shim spends time or memory on it.
warm()
