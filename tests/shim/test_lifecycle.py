from __future__ import annotations

import os
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from conftest import House, eventually, fds, frames, read_all

from wharfie.shim.connection import Connection
from wharfie.spi.errors import Conflict, InvalidArgument, NotFound, OutOfSpace, Unavailable
from wharfie.spi.runtime import AttachRequest, ExecExited, Exited, Io, OutOfMemory, Preparation


def test_exit_code_comes_as_an_event_and_stays_in_the_state(house: House) -> None:
    process = house.create("one", "exit 7")
    assert house.driver.state("one").status == "created"
    assert process.netns is not None and process.netns.exists()
    house.driver.start("one")
    end = house.exit("one")
    assert end.code == 7
    state = house.driver.state("one")
    assert (state.status, state.pid, state.exit) == ("stopped", 0, end)
    house.driver.delete("one")
    with pytest.raises(NotFound):
        house.driver.state("one")
    house.driver.delete("one")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGKILL, 137), (signal.SIGHUP, 129)])
def test_ended_by_a_signal(house: House, number: int, code: int) -> None:
    house.create("one", ["/bin/sleep", "100"], namespaces=())
    house.driver.start("one")
    house.driver.signal("one", number)
    assert house.exit("one").code == code
    with pytest.raises(Conflict):
        house.driver.signal("one", number)


def test_a_program_that_is_not_there(house: House) -> None:
    house.create("one", ["/bin/nosuch"])
    client = house.attach("one")
    with pytest.raises(InvalidArgument, match='exec: "/bin/nosuch": no such file or directory'):
        house.driver.start("one")
    assert read_all(client) == b""
    assert house.driver.state("one").status == "stopped"
    house.driver.delete("one")
    assert house.events.empty()


def test_refused_by_the_engine_leaves_nothing(house: House, options: dict[str, str], tmp_path: Path) -> None:
    options["refuse"] = "no capability CAP_X"
    with pytest.raises(InvalidArgument, match="no capability CAP_X"):
        house.create("one", "true")
    assert not house.folder("one").exists()
    time.sleep(0.1)
    assert house.events.empty()
    options.clear()
    house.create("one", "true")


def test_the_id_is_taken(house: House) -> None:
    house.create("one", "true")
    with pytest.raises(Conflict, match="exists already"):
        house.create("one", "true")
    with pytest.raises(InvalidArgument):
        house.create("../one", "true")


def test_started_once_only(house: House) -> None:
    house.create("one", "exec sleep 100")
    house.driver.start("one")
    with pytest.raises(Conflict, match="it is running"):
        house.driver.start("one")


def test_delete_of_a_running_container_needs_force(house: House) -> None:
    process = house.create("one", "exec sleep 100")
    house.driver.start("one")
    with pytest.raises(Conflict):
        house.driver.delete("one")
    house.driver.delete("one", force=True)
    assert house.event(Exited).exit.code == 137
    assert not Path(f"/proc/{process.pid}").exists()


def test_a_shim_that_hung_up_has_ended_also_before_the_reader_hears_of_it() -> None:
    """Of two who delete one container the second may find nobody at the other end: that is as good as done."""
    ours, theirs = socket.socketpair()
    connection = Connection("one", ours)
    assert not connection.ended
    theirs.close()
    with pytest.raises(Unavailable):
        connection.call("delete", 10)
    assert connection.ended
    connection.end()


def test_several_delete_one_container_at_a_time(house: House, options: dict[str, str], tmp_path: Path) -> None:
    for number in range(5):
        options["deleted"] = str(tmp_path / f"deleted{number}")
        name = f"one{number}"
        house.create(name, "exec sleep 100")
        with ThreadPoolExecutor(8) as threads:
            for done in [threads.submit(house.driver.delete, name, force=True) for _ in range(8)]:
                done.result()
        assert not house.folder(name).exists()
        assert Path(options["deleted"]).read_text() == name, "the engine is asked once for all who ask"


def test_delete_of_a_container_that_was_never_started(house: House, options: dict[str, str], tmp_path: Path) -> None:
    options["deleted"] = str(tmp_path / "deleted")
    house.create("one", "true")
    shim = house.shim_pid("one")
    house.driver.delete("one", force=True)
    assert (tmp_path / "deleted").read_text() == "one"
    eventually(lambda: not Path(f"/proc/{shim}").exists())


def test_pause_and_resume(house: House) -> None:
    house.create("one", "exec sleep 100")
    house.driver.start("one")
    house.driver.pause("one")
    assert house.driver.state("one").status == "paused"
    with pytest.raises(Conflict):
        house.driver.pause("one")
    house.driver.resume("one")
    assert house.driver.state("one").status == "running"
    house.driver.pause("one")
    house.driver.delete("one", force=True)


def test_errors_of_the_engine_keep_their_kind(house: House) -> None:
    house.create("one", "exec sleep 100")
    house.driver.start("one")
    with pytest.raises(OutOfSpace):
        house.driver.update("one", {})
    assert house.driver.stats("one") == {"pids": {"current": 1}}
    assert len(house.driver.pids("one")) == 1


def test_out_of_memory_is_said_before_the_exit(house: House, options: dict[str, bool]) -> None:
    options["oom"] = True
    house.create("one", "exit 137")
    house.driver.start("one")
    house.event(OutOfMemory)
    assert house.exit("one").out_of_memory
    assert house.driver.state("one").out_of_memory


def test_orphans_of_the_container_are_buried(house: House) -> None:
    house.create("one", "(sleep 0.5 & ); (sleep 0.5 & ); exec sleep 100", namespaces=())
    house.driver.start("one")
    shim = house.shim_pid("one")

    def children() -> list[str]:
        return Path(f"/proc/{shim}/task/{shim}/children").read_text().split()

    eventually(lambda: len(children()) == 3)
    eventually(lambda: len(children()) == 1)


def test_descendants_that_hold_the_output_do_not_hold_the_exit(house: House) -> None:
    (house.root / "bin/setsid").symlink_to("busybox")
    house.create("one", "setsid sleep 3 & echo last; exit 3", namespaces=())
    client = house.attach("one", framed=False)
    house.driver.start("one")
    before = time.monotonic()
    assert house.exit("one").code == 3
    assert read_all(client) == b"last\n"
    assert time.monotonic() - before < 3  # that of the sleep


def test_no_descriptor_leaks_in_shim_or_daemon(house: House) -> None:
    house.create("one", "exec sleep 100", io=Io(stdin=True))
    house.driver.start("one")
    shim = house.shim_pid("one")

    def counts() -> tuple[int, int]:
        return len(fds(shim)), len(list(Path("/proc/self/fd").iterdir()))

    process = {"args": ["/bin/true"], "env": []}

    def round_trip(number: int) -> None:
        exec_id = f"x{number}"
        house.driver.exec("one", exec_id, process, Io(stdin=True))
        client = house.attach("one", exec_id)
        house.driver.exec_start("one", exec_id)
        assert house.exec_exit("one", exec_id) == 0
        read_all(client)
        house.attach("one").close()
        ours, theirs = socket.socketpair()
        with ours, theirs, pytest.raises(NotFound):
            house.driver.attach("one", "nosuch", theirs, AttachRequest())

    round_trip(0)
    before = eventually(lambda: counts())
    for number in range(1, 20):
        round_trip(number)
    eventually(lambda: counts() <= before)


def test_the_interpreter_is_a_sealed_copy(house: House) -> None:
    house.create("one", "true")
    for pid in (house.shim_pid("one"), house.driver._zygote.pid):
        exe = f"/proc/{pid}/exe"
        assert str(Path(exe).readlink()).startswith("/memfd:wharfie-python")
        with pytest.raises(OSError):
            os.close(os.open(exe, os.O_WRONLY))


def test_the_shim_has_imported_nothing_that_it_does_not_need(house: House) -> None:
    house.create("one", "true")
    maps = Path(f"/proc/{house.shim_pid('one')}/maps").read_text()
    for name in ("pydantic", "httptools", "_ssl", "_sqlite3", "uvloop", "_asyncio"):
        assert name not in maps


def test_mounts_are_seen_by_the_container_alone(house: House, tmp_path: Path) -> None:
    house.create("one", "exec sleep 100")
    house.driver.start("one")
    mounts = Path("/proc/self/mountinfo").read_text()
    assert str(tmp_path / "run") in mounts
    assert "rootfs" not in mounts
    assert Path(f"/proc/{house.shim_pid('one')}/ns/mnt").readlink() == Path("/proc/self/ns/mnt").readlink()


def test_exec(house: House) -> None:
    house.create("one", "exec sleep 100")
    house.driver.start("one")
    process = {"args": ["/bin/sh", "-c", "echo out; echo err >&2; id -u; id -g; echo $HOME; exit 5"], "env": ["PATH=/bin"]}
    house.driver.exec("one", "x1", process, Io(), user="web")
    with pytest.raises(Conflict):
        house.driver.exec("one", "x1", process, Io())
    client = house.attach("one", "x1")
    house.driver.exec_start("one", "x1")
    assert house.exec_exit("one", "x1") == 5
    assert frames(read_all(client)) == {1: b"out\n33\n44\n/srv/web\n", 2: b"err\n"}
    with pytest.raises(NotFound):
        house.driver.exec_start("one", "x1")


def test_exec_of_a_missing_program_is_gone(house: House) -> None:
    house.create("one", "exec sleep 100")
    house.driver.start("one")
    house.driver.exec("one", "x1", {"args": ["/bin/nosuch"], "env": []}, Io())
    client = house.attach("one", "x1")
    with pytest.raises(InvalidArgument, match="no such file"):
        house.driver.exec_start("one", "x1")
    assert read_all(client) == b""
    with pytest.raises(NotFound):
        house.driver.signal("one", 9, exec_id="x1")
    with pytest.raises(InvalidArgument, match="unable to find user nobodyhere: no matching entries in passwd file"):
        house.driver.exec("one", "x2", {"args": ["/bin/true"]}, Io(), user="nobodyhere")
        house.driver.exec_start("one", "x2")


def test_exec_is_signalled_alone(house: House) -> None:
    house.create("one", "exec sleep 100")
    house.driver.start("one")
    house.driver.exec("one", "x1", {"args": ["/bin/sleep", "100"]}, Io())
    house.driver.exec_start("one", "x1")
    house.driver.signal("one", signal.SIGTERM, exec_id="x1")
    assert house.event(ExecExited).exit.code == 143
    assert house.driver.state("one").status == "running"


def test_twenty_at_once(house: House) -> None:
    def run(number: int) -> None:
        house.create(f"c{number}", f"exit {number}")
        house.driver.start(f"c{number}")

    with ThreadPoolExecutor(10) as pool:
        list(pool.map(run, range(20)))
    codes = {house.event(Exited).exit.code for _ in range(20)}
    assert codes == set(range(20))


def test_preparation_with_an_unknown_user(house: House) -> None:
    with pytest.raises(InvalidArgument, match="unable to find user nosuch: no matching entries in passwd file"):
        house.create("one", "true", preparation=Preparation(user="nosuch"))
    with pytest.raises(InvalidArgument, match="unable to find group nosuch: no matching entries in group file"):
        house.create("one", "true", preparation=Preparation(groups=("nosuch",)))
    assert not house.folder("one").exists()


def test_an_end_before_anybody_listens_is_heard(house: House, options: dict[str, Any]) -> None:
    """Killed between the end of the process that made it and the shim's first look at its children."""
    options["ends early"] = True
    house.create("one", "true")
    assert house.exit("one").code == 9
    with pytest.raises(Conflict):
        house.driver.start("one")
    house.driver.delete("one")
