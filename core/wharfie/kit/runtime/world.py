"""What the rules of runtimes have at hand: containers of a static busybox, their lives, and their ends."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from wharfie.kit.bundle import Client, alive, configuration, make_image, unframed, write_bundle
from wharfie.kit.contract import Contract
from wharfie.kit.crash import Operation
from wharfie.kit.rig import Rig
from wharfie.kit.rules import require
from wharfie.shim.cgroups import roots
from wharfie.spi.errors import Conflict, NotFound
from wharfie.spi.runtime import (
    AttachRequest,
    ExecExited,
    Exit,
    Exited,
    Io,
    Preparation,
    Process,
    RuntimeCapability,
    RuntimeDriver,
)
from wharfie.spi.storage import Mount

Runtime = RuntimeDriver
SINK = "wharfie.kit.filesink:FileSink"
OUTPUT = AttachRequest(stdout=True, stderr=True)


class RuntimeWorld(Contract[RuntimeDriver]):
    """Every container's control group is in `PARENT`."""

    kind: ClassVar[str] = "runtime"
    needs_root: ClassVar[bool] = True
    sample: ClassVar[int] = 3  # a container for each
    abilities: ClassVar[Any] = {
        RuntimeCapability.PAUSE: ("pause", "resume"),
        RuntimeCapability.UPDATE: ("update",),
        RuntimeCapability.STATS: ("stats",),
        RuntimeCapability.TOP: ("pids",),
        RuntimeCapability.CHECKPOINT: ("checkpoint", "restore"),
    }

    PARENT: ClassVar[str] = f"wharfie-kit-{os.getpid()}"

    def world(self, rig: Rig[Runtime]) -> None:
        self._rig = rig
        self._image = make_image(rig.scratch / "image")
        rig.folder.chmod(0o755)
        rig.scratch.chmod(0o755)

    def mark(self) -> str:
        return f"/{self.PARENT}/"

    @classmethod
    def tidy(cls) -> None:
        """The room's end was the end of its processes, their groups stay when a rule failed half-way."""
        for root in roots():
            parent = Path(root, cls.PARENT)
            for folder, _, _ in os.walk(parent, topdown=False):
                with contextlib.suppress(OSError):
                    Path(folder).rmdir()

    def create(
        self,
        driver: Runtime,
        id: str,
        *words: str,
        io: Io | None = None,
        preparation: Preparation | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Process:
        """A container that executes `words`, in a bundle of its own; a bundle that is there is taken again."""
        io = io or Io()
        bundle = self.bundle(id)
        if not bundle.exists():
            config = configuration(words, f"/{self.PARENT}/{self._rig.instance}-{id}", terminal=io.terminal, env=env)
            write_bundle(bundle, config, self._image)
        root = (Mount(type="bind", source=str(bundle / "root"), options=("bind",)),)
        return driver.create(id, bundle, root, io, preparation or Preparation())

    def bundle(self, id: str) -> Path:
        return self._rig.scratch / f"bundle-{id}"

    @contextmanager
    def running(self, driver: Runtime, id: str, *words: str, **how: Any) -> Iterator[Process]:
        made = self.create(driver, id, *(words or ("sleep", "600")), **how)
        driver.start(id)
        try:
            yield made
        finally:
            driver.delete(id, force=True)

    def ended(self, id: str, exec_id: str = "", *, seconds: float = 8) -> Exit:
        """The exit that the driver told of, waiting for it."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for event in list(self._rig.events):
                if exec_id and isinstance(event, ExecExited) and (event.id, event.exec_id) == (id, exec_id):
                    return event.exit
                if not exec_id and isinstance(event, Exited) and event.id == id:
                    return event.exit
            time.sleep(0.01)
        require(False, f"no event tells of the end of {id} {exec_id}")
        raise AssertionError

    def ran(self, driver: Runtime, id: str, *words: str, **how: Any) -> tuple[int, dict[int, bytes]]:
        """A container from its making to its end, deleted: exit code, output by stream."""
        self.create(driver, id, *words, **how)
        client = Client()
        driver.attach(id, "", client.theirs, OUTPUT)
        client.theirs.close()
        driver.start(id)
        data = client.all()
        code = self.ended(id).code
        client.close()
        driver.delete(id)
        return code, unframed(data)

    def life(self, rig: Rig[Runtime], driver: Runtime, number: int) -> None:
        name = f"life-{number}-{time.monotonic_ns()}"
        config = configuration(["sh", "-c", "echo out; exit 3"], f"/{self.PARENT}/{rig.instance}-{name}")
        bundle = write_bundle(rig.scratch / f"bundle-{name}", config, self._image)
        root = (Mount(type="bind", source=str(bundle / "root"), options=("bind",)),)
        made = driver.create(name, bundle, root, Io(), Preparation())
        require(made.pid > 0 and alive(made.pid), f"create returned the process {made.pid}, which is not there")
        require(name in {state.id for state in driver.containers()}, "a container is not among the containers")
        driver.start(name)
        rig.settle(lambda: driver.state(name).status != "stopped", seconds=15)
        found = driver.state(name).exit
        require(found is not None and found.code == 3, f"a container that exits with 3 has the exit {found}")
        driver.delete(name)

    def shared(self, rig: Rig[Runtime], driver: Runtime) -> Callable[[], None]:
        self._shared = f"both-{time.monotonic_ns()}"
        self.create(driver, self._shared, "sleep", "600")
        driver.start(self._shared)

        def finish() -> None:
            driver.delete(self._shared, force=True)
            require(self._shared not in {state.id for state in driver.containers()}, "a deleted container is still there")

        return finish

    def share(self, rig: Rig[Runtime], driver: Runtime, number: int) -> None:
        driver.delete(self._shared, force=True)

    def operations(self, rig: Rig[Runtime]) -> Sequence[Operation[Runtime]]:
        def make(driver: Runtime, memo: object = None) -> None:
            self.create(driver, "c", "sleep", "600")

        def started(driver: Runtime) -> None:
            make(driver)
            driver.start("c")

        def repair(driver: Runtime, memo: object) -> None:
            for state in driver.containers():
                with contextlib.suppress(NotFound):  # what the killed daemon asked for last may go on
                    driver.state(state.id)

        def clear(driver: Runtime, memo: object) -> None:
            driver.delete("c", force=True)

        def make_again(driver: Runtime, memo: object) -> None:
            try:
                make(driver)
            except Conflict:  # made, and not acknowledged: the core deletes it and makes it anew
                driver.delete("c", force=True)
                make(driver)

        def start_again(driver: Runtime, memo: object) -> None:
            try:
                driver.start("c")
            except Conflict:  # started, and not acknowledged
                pass

        def lives(status: str) -> Callable[[Runtime, object], None]:
            def look(driver: Runtime, memo: object) -> None:
                state = driver.state("c")
                require(state.status == status and alive(state.pid), f"the container is {state}, not {status}")

            return look

        def gone(driver: Runtime, memo: object) -> None:
            require(not driver.containers(), f"a deleted container is still there: {list(driver.containers())}")

        def nothing(driver: Runtime) -> None:
            pass

        return (
            Operation(name="create", before=nothing, run=make_again, repair=repair, verify=lives("created"), undo=clear),
            Operation(name="start", before=make, run=start_again, repair=repair, verify=lives("running"), undo=clear),
            Operation(name="delete", before=started, run=clear, repair=repair, verify=gone, undo=clear),
        )

    def appears(self, id: str, name: str) -> None:
        path = self.bundle(id) / "root/data" / name
        require(not self._rig.settle(lambda: not path.exists()), f"the container's process does not run: {name} is missing")
