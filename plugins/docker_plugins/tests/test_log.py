"""Logs by a legacy plugin: the FIFO, the entries, reading back, and a plugin that is slow or gone."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wharfie_docker_plugins import entries
from wharfie_docker_plugins.sink import FifoSink

from wharfie.spi.driver import ContainerFacts
from wharfie.spi.errors import InvalidArgument, Unsupported
from wharfie.spi.log import LogCapability, LogQuery

FACTS = ContainerFacts(
    id="c" * 64, name="web", image="busybox", image_id="sha256:1", command=("sh", "-c"), labels={"a": "b"}, env=("X=1",)
)


@pytest.fixture
def server(plugins):
    return plugins("logs", "LogDriver")


@pytest.fixture
def driver(server, make):
    return make("log", "logs")


def write(sink, *lines, stream="stdout"):
    for number, line in enumerate(lines):
        sink.write(stream, memoryview(line), 1_700_000_000_000_000_000 + number, not line.endswith(b"\n"))
    sink.flush()


def read(driver, options, **query):
    reader = driver.open_reader(FACTS, options, LogQuery(**query))
    try:
        found = []
        while batch := reader.read(100):
            found += batch
        return found
    finally:
        reader.close()


@given(st.sampled_from(["stdout", "stderr"]), st.integers(0, 2**63 - 1), st.binary(max_size=40_000), st.booleans())
def test_entries_come_back_as_they_went(stream, time_ns, line, partial):
    data = bytearray(entries.encode(stream, time_ns, line, partial) * 2 + b"\0\0")
    first, second = entries.split(data)
    assert first == second
    assert (first.stream, first.time_ns, first.data) == (stream, time_ns, line if partial else line + b"\n")
    assert data == b"\0\0"


@given(st.binary(max_size=200))
def test_bytes_that_are_no_entries_are_damaged_or_nothing(data):
    try:
        entries.split(bytearray(data))
        entries.decode(data)
    except entries.Damaged:
        pass


def test_a_container_s_output_reaches_the_plugin_and_comes_back(driver, server):
    assert driver.capabilities() == {LogCapability.READ}
    options = driver.plan(FACTS, {"color": "red"})
    sink = FifoSink(options)
    ((_, asked),) = server.calls("StartLogging")
    assert asked["File"] == options["fifo"]
    info = asked["Info"]
    assert info["Config"] == {"color": "red"}
    assert (info["ContainerID"], info["ContainerName"]) == (FACTS.id, "/web")
    assert (info["ContainerEntrypoint"], info["ContainerArgs"]) == ("sh", ["-c"])
    assert (info["ContainerEnv"], info["ContainerLabels"]) == (["X=1"], {"a": "b"})
    write(sink, b"one\n", b"tw", b"o\n")
    write(sink, b"bad\n", stream="stderr")
    write(sink, b"\xff\n")
    sink.close()
    assert [method for method, _ in server.calls("StopLogging")] == ["LogDriver.StopLogging"]
    assert not Path(options["fifo"]).exists()
    found = read(driver, options)
    assert [entry.data for entry in found] == [b"one\n", b"tw", b"o\n", b"bad\n", b"\xff\n"]
    assert [entry.stream for entry in found] == ["stdout", "stdout", "stdout", "stderr", "stdout"]
    assert found[1].time_ns == 1_700_000_000_000_000_001
    assert [entry.data for entry in read(driver, options, tail=2)] == [b"bad\n", b"\xff\n"]
    assert len(read(driver, options, until_ns=1_700_000_000_000_000_000)) == 3
    driver.remove(FACTS, options)


def test_following(driver, server):
    options = driver.plan(FACTS, {})
    sink = FifoSink(options)
    write(sink, b"before\n")
    reader = driver.open_reader(FACTS, options, LogQuery(follow=True))
    found = []

    def wait_for(count):
        deadline = time.monotonic() + 10
        while len(found) < count and time.monotonic() < deadline:
            found.extend(reader.read(10))
        return [entry.data for entry in found]

    assert wait_for(1) == [b"before\n"]
    write(sink, b"after\n")
    assert wait_for(2) == [b"before\n", b"after\n"]
    sink.close()
    reader.close()
    reader.close()


def test_reading_that_nobody_offers(plugins, make):
    plugins("mute", "LogDriver", "--without", "Capabilities")
    driver = make("log", "mute")
    assert driver.capabilities() == frozenset()
    with pytest.raises(Unsupported):
        driver.open_reader(FACTS, driver.plan(FACTS, {}), LogQuery())


def test_a_plugin_that_refuses_a_container_keeps_it_from_starting(driver):
    with pytest.raises(OSError, match=r"LogDriver.StartLogging: told to fail"):
        FifoSink(driver.plan(FACTS, {"fail": "1"}))


def test_a_plugin_that_is_gone_keeps_a_container_from_starting(driver, server):
    options = driver.plan(FACTS, {})
    server.stop()
    with pytest.raises(OSError):
        FifoSink(options)


def test_a_plugin_that_does_not_read_freezes_nobody(driver, server):
    options = driver.plan(FACTS, {"deaf": "1", "mode": "non-blocking", "max-buffer-size": "64k"})
    sink = FifoSink(options)
    lost = 0
    for _ in range(400):
        try:
            write(sink, b"x" * 10_000 + b"\n")
        except OSError:
            lost += 1
    assert lost > 200
    with pytest.raises(OSError, match="dropped at the end"):
        sink.close()
    assert server.calls("StopLogging")
    assert not Path(options["fifo"]).exists()


def test_what_is_in_the_pipe_outlives_a_restart_of_the_plugin(driver, server):
    options = driver.plan(FACTS, {})
    sink = FifoSink(options)
    write(sink, b"one\n")
    deadline = time.monotonic() + 5
    kept = server.state / "logs" / FACTS.id
    while not (kept.exists() and kept.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.01)
    server.stop()
    write(sink, b"two\n")
    server.start()
    second = os.open(options["fifo"], os.O_RDONLY | os.O_NONBLOCK)
    try:
        (entry,) = entries.split(bytearray(os.read(second, 4096)))
        assert entry.data == b"two\n"
    finally:
        os.close(second)
        sink.close()


@pytest.mark.parametrize(
    "options",
    [{"mode": "sometimes"}, {"max-buffer-size": "1m"}, {"mode": "non-blocking", "max-buffer-size": "much"}],
)
def test_options_of_the_engine_are_judged_by_the_engine(driver, options):
    with pytest.raises(InvalidArgument):
        driver.plan(FACTS, options)


def test_the_sink_needs_the_standard_library_only():
    code = (
        "import sys; import wharfie_docker_plugins.sink; "
        "assert not {'pydantic', 'pluggy', 'pyroute2', 'http.client', 'ssl'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
