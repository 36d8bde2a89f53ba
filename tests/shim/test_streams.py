from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import time
from pathlib import Path

import pytest
from conftest import House, eventually, frames, read_all

from wharfie.shim.attach import HIGH_WATER
from wharfie.spi.errors import Conflict, InvalidArgument
from wharfie.spi.log import LINE_LIMIT
from wharfie.spi.runtime import Detached, Exited, Io, LogTarget


def logged(house: House, id: str) -> list[list[object]]:
    return [json.loads(line) for line in house.log(id).read_text().splitlines()]


def test_all_output_reaches_client_and_log_before_the_exit(house: House) -> None:
    house.create("one", "seq 1 100000; echo done >&2", log=True)
    client = house.attach("one")
    house.driver.start("one")
    received = frames(read_all(client))
    expected = "".join(f"{n}\n" for n in range(1, 100001)).encode()
    assert received[1] == expected
    assert received[2] == b"done\n"
    house.exit("one")
    entries = logged(house, "one")
    assert "".join(str(data) for stream, data, _ in entries if stream == "stdout").encode() == expected
    assert all(str(data).endswith("\n") and not partial for stream, data, partial in entries if stream != "closed")
    assert entries[-1][0] == "closed"


def test_output_before_the_first_client_is_only_in_the_log(house: House) -> None:
    house.create("one", "echo early; read x; echo late", io=Io(stdin=True, log=_log(house)))
    house.driver.start("one")
    eventually(lambda: house.log("one").exists() and house.log("one").read_text())
    client = house.attach("one", framed=False, initial=b"go\n")
    assert read_all(client) == b"late\n"


def _log(house: House, **options: str) -> LogTarget:
    return LogTarget(sink="file_sink:FileSink", options={"path": str(house.log("one")), **options})


def test_long_lines_are_cut_and_the_last_one_needs_no_end(house: House) -> None:
    size = 2 * LINE_LIMIT + 100
    house.create("one", f"dd if=/bin/busybox bs={size} count=1 2>/dev/null | seq -s '' 1 9000; echo -n end", log=True)
    house.driver.start("one")
    house.exit("one")
    entries = logged(house, "one")
    text = "".join(str(n) for n in range(1, 9001)) + "\n"
    assert "".join(str(data) for _, data, _ in entries) == text + "end"
    assert [partial for _, _, partial in entries[:-3]] == [True] * (len(text) // LINE_LIMIT)
    assert all(len(str(data)) == LINE_LIMIT for _, data, partial in entries if partial)
    assert entries[-2][1:] == ["end", False]


def test_a_failing_log_is_counted_and_the_container_goes_on(house: House) -> None:
    house.create("one", "seq 1 100; exit 2", io=Io(log=_log(house, limit="50")))
    client = house.attach("one", framed=False)
    house.driver.start("one")
    assert read_all(client).count(b"\n") == 100
    assert house.exit("one").code == 2


def test_a_log_that_cannot_be_opened_prevents_the_container(house: House) -> None:
    from wharfie.spi.errors import DriverError

    target = LogTarget(sink="file_sink:FileSink", options={"path": "/nonexistent/log"})
    with pytest.raises(DriverError, match="no such file"):
        house.create("one", "true", io=Io(log=target))
    with pytest.raises(DriverError, match="there is no package nosuch_sink"):
        house.create("one", "true", io=Io(log=LogTarget(sink="nosuch_sink:Sink")))
    house.create("one", "true")


def test_half_close_ends_stdin_and_output_goes_on(house: House) -> None:
    house.create("one", "cat; echo after", io=Io(stdin=True, stdin_once=True))
    client = house.attach("one", framed=False, initial=b"first ")
    house.driver.start("one")
    client.sendall(b"second\n")
    client.shutdown(socket.SHUT_WR)
    assert read_all(client) == b"first second\nafter\n"
    assert house.exit("one").code == 0


def test_much_input_arrives_whole(house: House) -> None:
    house.create("one", "sleep 0.3; wc -c", io=Io(stdin=True, stdin_once=True))
    client = house.attach("one", framed=False)
    house.driver.start("one")
    client.sendall(bytes(3_000_000))
    client.shutdown(socket.SHUT_WR)
    assert read_all(client) == b"3000000\n"


def test_input_that_nobody_reads_holds_up_nothing(house: House) -> None:
    house.create("one", "exec <&-; sleep 0.2; echo alive", io=Io(stdin=True, stdin_once=True))
    client = house.attach("one", framed=False)
    house.driver.start("one")
    time.sleep(0.1)
    client.sendall(bytes(1_000_000))
    assert read_all(client) == b"alive\n"
    assert house.exit("one").code == 0


def test_without_stdin_once_stdin_stays_open(house: House) -> None:
    house.create("one", "cat", io=Io(stdin=True))
    house.driver.start("one")
    for text in (b"a\n", b"b\n"):
        client = house.attach("one", framed=False)
        client.sendall(text)
        assert client.recv(100) == text
        client.close()
    client = house.attach("one", framed=False)
    house.driver.close_stdin("one", "")
    house.driver.close_stdin("one", "")
    assert read_all(client) == b""
    assert house.exit("one").code == 0


def test_a_chosen_stream(house: House) -> None:
    house.create("one", "echo out; echo err >&2")
    only_err = house.attach("one", stdout=False)
    only_out = house.attach("one", stderr=False)
    neither = house.attach("one", stderr=False, stdout=False)
    house.driver.start("one")
    assert frames(read_all(only_err)) == {2: b"err\n"}
    assert frames(read_all(only_out)) == {1: b"out\n"}
    assert read_all(neither) == b""


def test_a_slow_client_holds_up_its_stream_alone(house: House) -> None:
    house.create("one", "seq 1 300000; echo out-done >&2; sleep 100", log=True)
    slow = house.attach("one", stderr=False, framed=False)
    house.driver.start("one")
    time.sleep(0.5)
    assert not any(stream == "stderr" for stream, *_ in logged(house, "one"))
    assert house.driver.state("one").status == "running"
    received = b""
    while not received.endswith(b"\n300000\n"):
        received += slow.recv(65536)
    assert received.count(b"\n") == 300000
    eventually(lambda: ["stderr", "out-done\n", False] in logged(house, "one"))
    house.driver.signal("one", 9)
    house.exit("one")


def test_a_stuck_client_does_not_hold_up_exit_or_deletion(house: House) -> None:
    house.create("one", "seq 1 1000000", log=True)
    stuck = house.attach("one", framed=False)
    house.driver.start("one")
    eventually(lambda: house.log("one").exists() and house.log("one").stat().st_size > HIGH_WATER)
    time.sleep(0.3)
    house.driver.signal("one", 9)
    assert house.exit("one").code == 137
    size = house.log("one").stat().st_size
    house.driver.delete("one")
    data = read_all(stuck)
    assert len(data) > HIGH_WATER
    lines = [str(entry[1]) for entry in map(json.loads, house.log("one").read_text().splitlines()) if entry[0] == "stdout"]
    assert data.decode() == "".join(lines)
    assert size == house.log("one").stat().st_size


def test_a_vanished_client_is_dropped(house: House) -> None:
    house.create("one", "seq 1 300000; echo end >&2")
    gone = house.attach("one", framed=False)
    stays = house.attach("one", stdout=False, framed=False)
    house.driver.start("one")
    time.sleep(0.2)
    gone.close()
    assert read_all(stays) == b"end\n"
    assert house.exit("one").code == 0


def test_attach_after_the_end(house: House) -> None:
    house.create("one", "true")
    house.driver.start("one")
    house.exit("one")
    assert read_all(house.attach("one")) == b""


def test_a_tcp_client_gets_the_last_byte_although_it_still_sends(house: House) -> None:
    from wharfie.spi.runtime import AttachRequest

    house.create("one", "echo start; sleep 0.2; seq 1 20000", io=Io(stdin=True))
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        theirs, _ = server.accept()
    with theirs:
        house.driver.attach("one", "", theirs, AttachRequest(stdin=True, stdout=True, framed=False))
    house.driver.start("one")
    client.settimeout(20)
    assert client.recv(6) == b"start\n"
    client.sendall(b"unread\n" * 1000)
    assert read_all(client).endswith(b"\n20000\n")


def test_terminal(house: House) -> None:
    house.create("one", "stty size; read line; echo got $line; stty size", io=Io(terminal=True, stdin=True, size=(31, 97)))
    client = house.attach("one")
    house.driver.start("one")
    received = b""
    while b"31 97\r\n" not in received:
        received += client.recv(1000)
    house.driver.resize("one", "", 40, 120)
    client.sendall(b"hello\n")
    received += read_all(client)
    assert b"got hello\r\n40 120\r\n" in received
    assert house.exit("one").code == 0


def test_only_terminals_have_a_size(house: House) -> None:
    house.create("one", "true")
    with pytest.raises(Conflict):
        house.driver.resize("one", "", 40, 120)


@pytest.mark.parametrize(
    ("keys", "pieces"),
    [
        ("", [b"ab\x10", b"\x11never"]),
        ("ctrl-a,x", [b"ab\x01x"]),
        ("q", [b"abq"]),
        ("ctrl-p,ctrl-p,z", [b"ab\x10", b"\x10", b"z"]),
    ],
)
def test_detach_keys(house: House, keys: str, pieces: list[bytes]) -> None:
    house.create("one", "cat", io=Io(terminal=True, stdin=True))
    house.driver.start("one")
    client = house.attach("one", detach_keys=keys, label="me")
    for piece in pieces:
        client.sendall(piece)
        time.sleep(0.02)
    assert b"never" not in read_all(client)
    event = house.event(Detached)
    assert (event.id, event.exec_id, event.label) == ("one", "", "me")
    assert house.driver.state("one").status == "running"


def test_bad_detach_keys_are_refused(house: House) -> None:
    house.create("one", "true", io=Io(terminal=True, stdin=True))
    with pytest.raises(InvalidArgument, match="'ctrl-1'"):
        house.attach("one", detach_keys="a,ctrl-1")


def test_exec_with_input_and_terminal(house: House) -> None:
    house.create("one", "exec sleep 100")
    house.driver.start("one")
    process = {"args": ["/bin/cat"], "env": []}
    house.driver.exec("one", "x1", process, Io(stdin=True))
    client = house.attach("one", "x1", framed=False, initial=b"one ")
    client.sendall(b"two")
    client.shutdown(socket.SHUT_WR)
    house.driver.exec_start("one", "x1")
    house.exec_exit("one", "x1")
    assert read_all(client) == b"one two"
    house.driver.exec("one", "x2", {"args": ["/bin/stty", "size"], "env": []}, Io(terminal=True, stdin=True))
    client = house.attach("one", "x2")
    house.driver.resize("one", "x2", 11, 22)
    house.driver.exec_start("one", "x2")
    house.exec_exit("one", "x2")
    assert read_all(client) == b"11 22\r\n"
    house.driver.signal("one", 9)
    house.event(Exited)


def test_clients_of_an_exec_end_when_its_exit_is_recorded(house: House) -> None:
    house.create("one", "exec sleep 100")
    house.driver.start("one")
    house.driver.exec("one", "x1", {"args": ["/bin/echo", "hi"]}, Io())
    client = house.attach("one", "x1", framed=False)
    house.driver.exec_start("one", "x1")
    assert client.recv(10) == b"hi\n"
    client.settimeout(0.2)
    with pytest.raises(TimeoutError):
        client.recv(1)
    house.exec_exit("one", "x1")
    house.driver.exec_delete("one", "x1")
    assert read_all(client) == b""


def test_a_deaf_client_holds_up_no_other_container_exec_or_signal(house: House) -> None:
    house.create("one", "seq 1 1000000")
    house.create("two", "trap 'exit 4' TERM; while :; do sleep 0.05; done")
    deaf = house.attach("one", framed=False)
    for name in ("one", "two"):
        house.driver.start(name)
    eventually(lambda: is_waiting_to_write(house, "one"))
    house.driver.exec("one", "x", {"args": ["/bin/echo", "hi"], "env": []}, Io())
    client = house.attach("one", "x", framed=False)
    house.driver.exec_start("one", "x")
    assert house.exec_exit("one", "x") == 0
    assert read_all(client) == b"hi\n"
    house.driver.signal("two", 15)
    assert house.exit("two").code == 4
    house.driver.signal("one", 9)
    assert house.exit("one").code == 137
    deaf.close()


def is_waiting_to_write(house: House, id: str) -> bool:
    """Whether the container's first process sleeps and has not for a moment: its pipe is full."""
    pid = house.driver.state(id).pid
    before = Path(f"/proc/{pid}/stat").read_text().split()
    time.sleep(0.2)
    return before == Path(f"/proc/{pid}/stat").read_text().split() and before[2] == "S"


def test_exit_codes_survive_a_full_disk(image: Path, tmp_path: Path) -> None:
    """There is no room for the records of the containers' ends."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", disk], check=True)
    try:
        subprocess.run(["cp", "-a", str(image), str(disk / "root")], check=True)
        house = House(disk)
        try:
            house.create("one", "read x; exit 5", io=Io(stdin=True))
            house.create("two", "read x; exit 6", io=Io(stdin=True))
            for name in ("one", "two"):
                house.driver.start(name)
            clients = {name: house.attach(name, framed=False) for name in ("one", "two")}
            with contextlib.suppress(OSError), open(disk / "filler", "wb", buffering=0) as filler:
                while True:
                    filler.write(bytes(4096))
            clients["one"].sendall(b"\n")
            assert house.exit("one").code == 5
            house.driver.close()
            clients["two"].sendall(b"\n")
            assert read_all(clients["two"]) == b""
            house.open()
            ends = {state.id: state.exit and state.exit.code for state in house.driver.containers()}
            assert ends == {"one": 5, "two": 6}
            (disk / "filler").unlink()
        finally:
            house.clear()
    finally:
        subprocess.run(["umount", disk], check=True)
