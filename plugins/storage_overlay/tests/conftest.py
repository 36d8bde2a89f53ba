from __future__ import annotations

import logging
import os
import pickle
import stat
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from wharfie_storage_overlay.driver import OverlayDriver
from wharfie_storage_overlay.settings import OverlaySettings

from wharfie.shim.root import mount_root
from wharfie.shim.system import CLONE_NEWNS, MS_PRIVATE, MS_REC, mount, unshare
from wharfie.spi.driver import Context, HostFacts
from wharfie.spi.storage import Layer, Mount

KINDS = {
    "dir": tarfile.DIRTYPE,
    "link": tarfile.SYMTYPE,
    "hard": tarfile.LNKTYPE,
    "char": tarfile.CHRTYPE,
    "file": tarfile.REGTYPE,
}


def make_tar(*specs: Any) -> bytes:
    """A tar of (name, kind, value) tuples or TarInfo objects."""
    out = bytearray()
    for spec in specs:
        data = b""
        if isinstance(spec, tarfile.TarInfo):
            info = spec
        else:
            name, kind, *rest = spec
            info = tarfile.TarInfo(name)
            info.type = KINDS[kind]
            info.mode = 0o755 if kind == "dir" else 0o644
            if kind in ("link", "hard"):
                info.linkname = rest[0]
            elif kind == "char":
                info.devmajor, info.devminor = rest[0]
            elif rest:
                data = rest[0]
                info.size = len(data)
        out += info.tobuf(tarfile.PAX_FORMAT) + data + bytes(-len(data) % 512)
    return bytes(out) + bytes(1024)


def folder_entry(name: str, mode: int, mtime: int = 0, uid: int = 0) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.mtime, info.uid = tarfile.DIRTYPE, mode, mtime, uid
    return info


class Bench:
    """A driver on a state folder, and what tests do with it."""

    def __init__(self, state: Path, mountpoint: Path) -> None:
        self.state = state
        self.mountpoint = mountpoint
        self.made: list[OverlayDriver] = []
        self.driver = self.another()

    def trash(self) -> list[Path]:
        """What is left in the trash when its thread has nothing to do."""
        until = time.monotonic() + 10
        while self.driver._store._trash._thread is not None and time.monotonic() < until:
            time.sleep(0.01)
        return list(self.state.glob("trash/*"))

    def another(self, *, sync: bool = False) -> OverlayDriver:
        """What a daemon started anew would have."""
        facts = HostFacts(kernel=(6, 1), architecture="amd64", cgroup="v2", cpus=2, memory=1 << 30)
        context = Context(
            state=self.state,
            run=self.state,
            instance="00000000",
            log=logging.getLogger("test"),
            host=facts,
            emit=lambda event: None,
        )
        driver = OverlayDriver(context, OverlaySettings(sync=sync))
        driver.open()
        self.made.append(driver)
        return driver

    def apply(self, layer: str, parent: str | None, *specs: Any) -> Layer:
        return self.apply_bytes(layer, parent, make_tar(*specs))

    def apply_bytes(self, layer: str, parent: str | None, data: bytes) -> Layer:
        with tempfile.TemporaryFile() as file:
            file.write(data)
            file.seek(0)
            return self.driver.apply(layer, parent, file.fileno())

    def diff(self, key: str) -> bytes:
        with tempfile.TemporaryFile() as file:
            self.driver.diff(key, file.fileno())
            file.seek(0)
            return file.read()

    def inside(self, name: str, work: Callable[[Path], Any] = lambda root: contents(root)) -> Any:
        """What `work` returns in a process of its own that has the snapshot or layer mounted."""
        return mounted(self.driver.mounts(name), self.mountpoint, work)

    def files(self) -> list[str]:
        """All folders and files of the driver but those of layers and snapshots that are there."""
        self.trash()
        return sorted(str(path.relative_to(self.state)) for path in self.state.glob("*/*"))


def contents(root: Path) -> dict[str, tuple]:
    """path → type and mode, and the content or link."""
    found: dict[str, tuple] = {}
    for path in sorted(root.rglob("*")):
        facts = path.lstat()
        value: Any = None
        if stat.S_ISREG(facts.st_mode):
            value = path.read_bytes()
        elif stat.S_ISLNK(facts.st_mode):
            value = str(path.readlink())
        found[str(path.relative_to(root))] = (facts.st_mode, value)
    return found


def mounted(mounts: tuple[Mount, ...], target: Path, work: Callable[[Path], Any]) -> Any:
    """Mount as the shim does, in a child with a mount namespace of its own: whatever happens, nothing is left mounted."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            unshare(CLONE_NEWNS)
            mount("none", "/", "none", MS_REC | MS_PRIVATE)
            mount_root([(item.type, item.source, item.options) for item in mounts], str(target))
            answer: Any = work(target)
        except BaseException as error:
            answer = RuntimeError(f"{type(error).__name__}: {error}")
        with open(writing, "wb") as out:
            pickle.dump(answer, out)
        os._exit(0)
    os.close(writing)
    with open(reading, "rb") as stream:
        data = stream.read()
    os.waitpid(child, 0)
    answer = pickle.loads(data)
    if isinstance(answer, Exception):
        raise answer
    return answer


@contextmanager
def new_bench() -> Iterator[Bench]:
    with tempfile.TemporaryDirectory(prefix="wh-overlay-") as place:
        state = Path(place) / "state"
        state.mkdir(mode=0o700)
        bench = Bench(state, Path(place) / "mnt")
        try:
            yield bench
        finally:
            for driver in bench.made:
                driver.close()


@pytest.fixture
def bench() -> Iterator[Bench]:
    with new_bench() as one:
        yield one


@pytest.fixture(scope="session")
def benches() -> Callable[[], Any]:
    """For property tests, which need a fresh one for each example."""
    return new_bench


@pytest.fixture(scope="session")
def tar() -> Callable[..., bytes]:
    return make_tar


@pytest.fixture(scope="session")
def folder() -> Callable[..., tarfile.TarInfo]:
    return folder_entry
