"""runsc: a sandbox's process on the host is not the program in it."""

from __future__ import annotations

import signal

import pytest

from wharfie.spi.errors import InvalidArgument
from wharfie.spi.runtime import ExecExited, Io, RuntimeCapability


@pytest.fixture
def house(make_house):
    return make_house("runsc")


def test_program_with_its_streams_and_its_code(house):
    code, out = house.run("sh", "-c", "echo $$ $HOSTNAME; cat; dmesg | grep -ci gvisor; exit 7", given=b"input\n")
    assert code == 7
    assert out.split()[:3] == ["1", "box", "input"]
    assert int(out.split()[3]) > 0
    assert RuntimeCapability.UPDATE not in house.driver.capabilities()


@pytest.mark.parametrize(
    ("program", "said"),
    [("no-such", 'exec: "no-such": executable file not found in [$]PATH$'), ("/no/such", 'exec: "/no/such": no such file')],
)
def test_what_cannot_be_executed(house, program, said):
    """It looks at `start`, and the container is made before."""
    box = house.create(program)
    with pytest.raises(InvalidArgument, match=said):
        house.driver.start(box)
    house.driver.delete(box, force=True)
    with pytest.raises(InvalidArgument, match=said):
        house.exec(house.sleeping(), program)


def test_exec_and_terminal(house):
    box = house.sleeping()
    assert house.exec(box, "sh", "-c", "echo $A; exit 3", env=["PATH=/bin", "A=b"]) == (3, "b\n")
    code, out = house.run("sh", "-c", "stty size; exit 4", io=Io(terminal=True, size=(33, 77)))
    assert (code, out.split()) == (4, ["33", "77"])


def test_signals_reach_the_program(house):
    script = "trap 'exit 9' TERM; echo go; while :; do sleep 0.05; done"
    box = house.create("sh", "-c", script)
    client = house.attach(box, framed=False)
    house.driver.start(box)
    assert client.recv(10) == b"go\n"
    house.driver.exec(box, "e", {**house.spec["process"], "args": ["sh", "-c", script]}, Io())
    inner = house.attach(box, "e", framed=False)
    house.driver.exec_start(box, "e")
    assert inner.recv(10) == b"go\n"
    house.driver.signal(box, signal.SIGTERM, exec_id="e")
    assert house.event(ExecExited).exit.code == 9
    house.driver.signal(box, signal.SIGTERM)
    assert house.exit() == 9


def test_pause_counters_and_the_end(house):
    box = house.sleeping()
    house.driver.pause(box)
    house.driver.resume(box)
    assert house.driver.stats(box)["memory"]["usage"] > 0
    house.driver.signal(box, signal.SIGKILL)
    assert house.exit() == 137
