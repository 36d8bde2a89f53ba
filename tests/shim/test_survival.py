"""What happens when somebody dies: the daemon, the shim, the zygote."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from conftest import HERE, House, eventually, read_all

from wharfie.spi.errors import Conflict, DriverError, NotFound, Unavailable
from wharfie.spi.runtime import ExecExited, Exited, ExitReply, Io, LogTarget, Lost

REPLY = ExitReply(before=b'{"StatusCode":', after=b"}\n")


def wait_for_exit(house: House, id: str) -> socket.socket:
    ours, theirs = socket.socketpair()
    with theirs:
        house.driver.notify_exit(id, theirs, REPLY)
    ours.settimeout(20)
    return ours


def is_silent(client: socket.socket) -> bool:
    client.settimeout(0.2)
    try:
        client.recv(1, socket.MSG_PEEK)
    except TimeoutError:
        return True
    finally:
        client.settimeout(20)
    return False


def test_a_new_daemon_finds_everything(house: House) -> None:
    house.create("runs", "trap 'echo ended; exit 9' TERM; echo up; while :; do sleep 0.05; done", log=True)
    house.create("ended", "echo last; exit 4", log=True)
    house.create("made", "exit 6")
    client = house.attach("runs", framed=False)
    house.driver.start("runs")
    assert client.recv(100) == b"up\n"
    house.driver.close()
    house.open()
    house.driver.start("ended")
    assert house.exit("ended").code == 4
    house.driver.close()
    house.open()
    states = {state.id: state for state in house.driver.containers()}
    assert {name: state.status for name, state in states.items()} == {
        "runs": "running",
        "ended": "stopped",
        "made": "created",
    }
    ended = states["ended"].exit
    assert ended is not None
    assert ended.code == 4
    house.driver.signal("runs", signal.SIGTERM)
    assert house.exit("runs").code == 9
    assert read_all(client) == b"ended\n"
    house.driver.start("made")
    assert house.exit("made").code == 6


def test_an_end_while_no_daemon_is_there(house: House) -> None:
    house.create("one", "read x; seq 1 10000; exit 5", io=Io(stdin=True), log=False)
    house.driver.start("one")
    client = house.attach("one", framed=False)
    waiting = wait_for_exit(house, "one")
    house.driver.close()
    client.sendall(b"\n")
    assert read_all(client).endswith(b"\n10000\n")
    assert read_all(waiting) == b'{"StatusCode":5}\n'
    house.open()
    state = house.driver.state("one")
    assert (state.status, state.exit and state.exit.code) == ("stopped", 5)
    assert house.events.empty()


def test_events_of_execs_are_kept_for_the_next_daemon(house: House) -> None:
    house.create("one", "exec sleep 100")
    house.driver.start("one")
    house.driver.exec("one", "x1", {"args": ["/bin/sh", "-c", "sleep 0.2; exit 3"], "env": ["PATH=/bin"]}, Io())
    house.driver.exec_start("one", "x1")
    house.driver.close()
    time.sleep(0.5)
    house.open()
    event = house.event(ExecExited)
    assert (event.exec_id, event.exit.code) == ("x1", 3)


def test_an_exec_that_no_daemon_will_start_is_gone(house: House) -> None:
    house.create("one", "exec sleep 100")
    house.driver.start("one")
    house.driver.exec("one", "x1", {"args": ["/bin/true"], "env": ["PATH=/bin"]}, Io())
    client = house.attach("one", "x1")
    house.driver.close()
    assert read_all(client) == b""
    house.open()
    with pytest.raises(NotFound):
        house.driver.exec_start("one", "x1")


def test_waiting_clients_are_answered_after_the_deletion(house: House) -> None:
    house.create("one", "exit 5")
    early = wait_for_exit(house, "one")
    house.driver.start("one")
    house.exit("one")
    late = wait_for_exit(house, "one")
    assert is_silent(early)
    assert is_silent(late)
    house.driver.delete("one")
    assert read_all(early) == read_all(late) == b'{"StatusCode":5}\n'


def test_waiting_clients_are_answered_when_the_daemon_dies_before_the_deletion(house: House) -> None:
    house.create("one", "exit 5")
    waiting = wait_for_exit(house, "one")
    house.driver.start("one")
    house.exit("one")
    assert is_silent(waiting)
    house.driver.close()
    assert read_all(waiting) == b'{"StatusCode":5}\n'
    house.open()


@pytest.mark.slow
def test_waiting_clients_are_answered_although_nobody_deletes(house: House) -> None:
    house.create("one", "exit 5")
    waiting = wait_for_exit(house, "one")
    house.driver.start("one")
    house.exit("one")
    assert read_all(waiting) == b'{"StatusCode":5}\n'


def test_a_waiting_client_that_hangs_up_is_forgotten(house: House) -> None:
    house.create("one", "exec sleep 100")
    house.driver.start("one")
    descriptors = Path(f"/proc/{house.shim_pid('one')}/fd")
    before = len(list(descriptors.iterdir()))
    for _ in range(5):
        wait_for_exit(house, "one").close()
    eventually(lambda: len(list(descriptors.iterdir())) == before)


def test_a_killed_shim_takes_its_container_along(house: House, options: dict[str, str], tmp_path: Path) -> None:
    options["deleted"] = str(tmp_path / "deleted")
    process = house.create("one", "exec sleep 100")
    house.driver.start("one")
    client = house.attach("one")
    os.kill(house.shim_pid("one"), signal.SIGKILL)
    assert house.event(Lost).id == "one"
    assert read_all(client) == b""
    eventually(lambda: not Path(f"/proc/{process.pid}").exists())
    state = house.driver.state("one")
    assert (state.status, state.exit and state.exit.code) == ("stopped", 137)
    with pytest.raises(Conflict, match="its shim is gone"):
        house.driver.signal("one", 15)
    house.driver.close()
    house.open()
    assert [state.status for state in house.driver.containers()] == ["stopped"]
    house.driver.delete("one")
    assert (tmp_path / "deleted").read_text() == "one"
    assert not house.folder("one").exists()


def test_a_shim_killed_after_the_end_keeps_the_exit_code(house: House) -> None:
    house.create("one", "exit 5")
    house.driver.start("one")
    house.exit("one")
    os.kill(house.shim_pid("one"), signal.SIGKILL)
    eventually(lambda: house.driver._find("one") is None)
    state = house.driver.state("one")
    assert state.exit is not None
    assert state.exit.code == 5
    assert house.events.empty()


def test_a_killed_zygote_is_started_again(house: House) -> None:
    house.create("one", "exit 1")
    first = house.driver._zygote.pid
    os.kill(first, signal.SIGKILL)
    eventually(lambda: Path(f"/proc/{first}/stat").read_text().split()[2] == "Z")
    house.create("two", "exit 2")
    for name, code in (("one", 1), ("two", 2)):
        house.driver.start(name)
        assert house.exit(name).code == code


def test_a_stopped_shim_delays_only_its_own_container(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wharfie.shim.driver._QUICK", 0.5)
    house.create("one", "exec sleep 100")
    house.create("two", "exec sleep 100")
    house.driver.start("one")
    house.driver.start("two")
    shim = house.shim_pid("one")
    os.kill(shim, signal.SIGSTOP)
    try:
        with pytest.raises(Unavailable, match="no answer within"):
            house.driver.signal("one", 0)
        assert house.driver.state("two").status == "running"
        assert {state.id: state.status for state in house.driver.containers()} == {"one": "running", "two": "running"}
    finally:
        os.kill(shim, signal.SIGCONT)
    house.driver.signal("one", 9)
    house.event(Exited)


DAEMON = """
import sys
sys.path.insert(0, {here!r})
from pathlib import Path
from conftest import House
from wharfie.spi.runtime import Io
house = House(Path({base!r}))
house.create("one", "i=0; while [ $i -lt 200 ]; do echo $i; i=$((i+1)); sleep 0.01; done; exit 8", log=True)
house.driver.start("one")
print("ready", flush=True)
import time
time.sleep(100)
"""


def test_the_daemon_is_killed(house: House) -> None:
    house.driver.close()
    script = DAEMON.format(here=str(HERE), base=str(house.base))
    daemon = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert daemon.stdout is not None
    assert daemon.stdout.readline() == "ready\n"
    daemon.kill()
    daemon.wait()
    daemon.stdout.close()
    house.open()
    assert house.driver.state("one").status == "running"
    assert house.exit("one").code == 8
    lines = [json.loads(line)[1] for line in house.log("one").read_text().splitlines()]
    assert lines[:-1] == [f"{n}\n" for n in range(200)]


def test_the_daemon_is_killed_while_it_creates(house: House) -> None:
    """A shim whose daemon never asked for anything leaves nothing behind."""
    house.driver.close()
    folder = house.folder("one")
    script = DAEMON.format(here=str(HERE), base=str(house.base)).replace(
        'house.create("one"',
        'house.driver._fork = lambda *a: __import__("os").kill(__import__("os").getpid(), 9)\nhouse.create("one"',
    )
    daemon = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert daemon.returncode == -9
    assert folder.exists()
    house.open()
    assert [state.status for state in house.driver.containers()] == ["stopped"]
    house.driver.delete("one")
    assert not folder.exists()


def test_a_shim_killed_while_it_creates(house: House, options: dict[str, str], tmp_path: Path) -> None:
    options.update(deleted=str(tmp_path / "deleted"), hang="1")

    def kill() -> None:
        eventually((house.folder("one") / "shim.pid").exists)
        time.sleep(0.2)
        os.kill(house.shim_pid("one"), signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(Unavailable, match="is gone"):
        house.create("one", "true")
    killer.join()
    assert (tmp_path / "deleted").read_text() == "one"
    assert not house.folder("one").exists()
    assert house.events.empty()


def test_a_sink_that_cannot_be_imported(house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "slow_sink.py").write_text("import time; time.sleep(100)")
    (tmp_path / "exiting_sink.py").write_text("import os; os._exit(3)")
    (tmp_path / "needy_sink.py").write_text("import no_such_module")
    for module, seconds, words in (
        ("slow_sink", 0.5, r"within 0\.5 s"),
        ("exiting_sink", 20.0, "it ends the process"),
        ("needy_sink", 20.0, "no_such_module"),
    ):
        monkeypatch.setattr("wharfie.shim.launch._IMPORT", seconds)
        with pytest.raises(DriverError, match=words):
            house.create("one", "true", io=Io(log=LogTarget(sink=f"{module}:Sink")))
        assert not house.folder("one").exists()
    monkeypatch.undo()
    house.create("one", "true", log=True)


def test_a_shim_that_nobody_can_reach_any_more_ends(house: House, options: dict[str, str], tmp_path: Path) -> None:
    options["deleted"] = str(tmp_path / "deleted")
    house.create("one", "read x", io=Io(stdin=True))
    house.driver.start("one")
    client = house.attach("one")
    shim = house.shim_pid("one")
    house.driver.close()
    shutil.rmtree(house.folder("one"))
    client.sendall(b"\n")
    client.close()
    eventually(lambda: not Path(f"/proc/{shim}").exists())
    assert (tmp_path / "deleted").read_text() == "one"
