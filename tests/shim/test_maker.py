"""Who makes a container, and what is left of the making."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from conftest import House, eventually, fds

from wharfie.shim.launch import folder_of
from wharfie.spi.errors import DriverError
from wharfie.spi.runtime import Io, LogTarget, Lost


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_the_container_is_the_shims_only_child(house: House) -> None:
    pid = house.create("one", "exec sleep 100").pid
    assert children(house.shim_pid("one")) == [pid]
    house.driver.start("one")
    assert children(house.shim_pid("one")) == [pid]


def test_a_container_that_was_not_started_goes_with_its_shim(house: House) -> None:
    pid = house.create("one", "exec sleep 100").pid
    os.kill(house.shim_pid("one"), signal.SIGKILL)
    house.event(Lost)
    eventually(lambda: not Path(f"/proc/{pid}").exists())


def test_a_killed_maker(house: House, options: dict[str, str], tmp_path: Path) -> None:
    options.update(deleted=str(tmp_path / "deleted"), hang="1")

    def kill() -> None:
        eventually((house.folder("one") / "shim.pid").exists)
        (maker,) = eventually(lambda: children(house.shim_pid("one")))
        os.kill(maker, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(DriverError, match="the process that makes it was killed"):
        house.create("one", "true")
    killer.join()
    assert (tmp_path / "deleted").read_text() == "one"
    assert not house.folder("one").exists()


def test_a_rehearsal_leaves_nothing_behind(house: House) -> None:
    house.create("one", "true")
    zygote = house.driver._zygote.pid
    assert [path.name for path in (house.base / "run").iterdir()] == ["one"]
    assert children(zygote) == [house.shim_pid("one")]
    assert {name.partition(":")[0] for name in fds(zygote)} == {"/dev/null", "socket"}
    assert Path(f"/proc/{zygote}/comm").read_text() == "wharfie-zygote\n"


def test_a_sinks_module_takes_part_in_the_rehearsal(house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "nervous_sink.py").write_text("def rehearse():\n    raise RuntimeError('no stage')\n")
    with pytest.raises(DriverError, match="no stage"):
        house.create("one", "true", io=Io(log=LogTarget(sink="nervous_sink:Sink")))


def test_what_a_killed_zygote_left_of_its_rehearsal(house: House) -> None:
    run = house.base / "run"
    for name in (".rehearsal-4999999", ".rehearsal-4999999-bundle"):
        (run / name).mkdir()
    for name in ("shim.sock", "request.json"):
        (run / ".rehearsal-4999999" / name).touch()
    assert house.driver.containers() == []
    house.create("one", "true")
    assert [path.name for path in run.iterdir()] == ["one"]


def test_the_zygote_imports_nothing_that_acts_at_a_fork() -> None:
    folders = [folder_of("wharfie"), folder_of("plain_engine")]
    script = (
        f"import sys; sys.path[:0] = {folders!r}\n"
        "import wharfie.shim.zygote, plain_engine\n"
        "print(sorted({'logging', 'threading', 'random', 'subprocess', 'pydantic'} & sys.modules.keys()))"
    )
    run = subprocess.run([sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"
