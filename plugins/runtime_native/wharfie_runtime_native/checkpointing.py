"""The parent's side of checkpoints: forking the children that write one and bring one back (`checkpoints`)."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from wharfie.spi.errors import DriverError
from wharfie_runtime_native.container import Container


class Checkpointing(Container):
    """A container that can be written down."""

    restore_options: Sequence[str] = ("--tcp-close",)
    """Of criu's."""

    # What checkpoints take is loaded in the child that works on one: no shim needs it but in that moment.

    def _work(self) -> Path:
        """A folder for what is left of work in a child: a log, a pid, why it failed."""
        return Path(self.bundle)

    def checkpoint(self, folder: str, pipes: Mapping[int, int]) -> int:
        def write() -> None:
            from wharfie_runtime_native.checkpoints import dump

            dump.write(self.spec, self._pid, self._cgroup, Path(folder), pipes)

        return self._fork_worker(write)

    def checkpointed(self, folder: str, code: int) -> None:
        if code:
            from wharfie_runtime_native.checkpoints import worker

            raise worker.failure(self._work()) or DriverError("the process that writes the checkpoint was killed")

    def restore(self, folder: str) -> int:
        def bring_back() -> None:
            from wharfie_runtime_native.beginning import keyring
            from wharfie_runtime_native.checkpoints import restore

            self._cgroup.join()
            if self.manner.keyring:
                keyring(self.id)
            restore.run(self.spec, self._pid, Path(folder), self._work(), self.restore_options)

        return self._fork_worker(bring_back)

    def restored(self, folder: str, code: int) -> int:
        from wharfie_runtime_native.checkpoints import restore, worker

        if code and (error := worker.failure(self._work())):
            raise error
        pid = restore.result(self._work(), code)
        if self._channel >= 0:
            os.close(self._channel)
        self._pid, self._channel = pid, -1
        return pid

    def _fork_worker(self, task: Callable[[], None]) -> int:
        from wharfie_runtime_native.checkpoints import worker

        report = worker.begin(self._work())
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            worker.work(parent, report, task)
        os.close(report)
        return pid
