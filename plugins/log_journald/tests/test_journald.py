"""The driver `journald` and a real journal."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import uuid
from types import SimpleNamespace

import pytest
from wharfie_log_journald import sink as sinks
from wharfie_log_journald.driver import JournaldDriver
from wharfie_log_journald.settings import JournaldSettings
from wharfie_log_journald.sink import JournaldSink

from wharfie.spi.driver import ContainerFacts
from wharfie.spi.errors import InvalidArgument, Unsupported
from wharfie.spi.log import LogQuery

TIME = 1_700_000_003_123_456_789


@pytest.fixture
def facts():
    identity = uuid.uuid4().hex * 2
    labels = {"com.example.team": "blue", "other": "x"}
    return ContainerFacts(id=identity, name="web", image="busybox:1", labels=labels, env=("STAGE=prod", "HOME=/"))


@pytest.fixture
def driver(journal):
    return make(journal.namespace)


def make(namespace=""):
    driver = JournaldDriver(SimpleNamespace(), JournaldSettings(namespace=namespace))
    driver.open()
    return driver


def write(sink, *lines, stream="stdout"):
    for number, line in enumerate(lines):
        sink.write(stream, memoryview(line), TIME + number, not line.endswith(b"\n"))
    sink.flush()


def eventually(read, count):
    """The journal shows an entry a moment after it came."""
    deadline = time.monotonic() + 10
    while len(found := read()) < count and time.monotonic() < deadline:
        time.sleep(0.02)
    return found


def read(driver, facts, options, **query):
    reader = driver.open_reader(facts, options, LogQuery(**query))
    found = []
    while batch := reader.read(100):
        found += batch
    reader.close()
    reader.close()
    return found


def test_fields(driver, journal, facts):
    options = driver.plan(facts, {"tag": "{{.Name}}-x", "labels": "com.example.team", "env": "STAGE"})
    sink = JournaldSink(options)
    write(sink, b"hello\n")
    write(sink, b"oops\n", stream="stderr")
    sink.close()
    first, second = map(json.loads, eventually(lambda: journal.entries(f"CONTAINER_ID_FULL={facts.id}"), 2))
    wanted = {
        "MESSAGE": "hello",
        "PRIORITY": "6",
        "CONTAINER_ID": facts.id[:12],
        "CONTAINER_NAME": "web",
        "CONTAINER_TAG": "web-x",
        "IMAGE_NAME": "busybox:1",
        "SYSLOG_IDENTIFIER": "web-x",
        "SYSLOG_TIMESTAMP": "2023-11-14T22:13:23.123456789Z",
        "COM_EXAMPLE_TEAM": "blue",
        "STAGE": "prod",
    }
    assert {name: first.get(name) for name in wanted} == wanted
    assert not {"OTHER", "HOME"} & set(first)
    assert (second["MESSAGE"], second["PRIORITY"]) == ("oops", "3")


def test_a_label_cannot_pretend_to_be_another_field(driver, facts):
    names = {"container_name": "other", "_UID": "0", "9": "x", "a\nMESSAGE=evil": "b\nMESSAGE=evil"}
    odd = ContainerFacts(id=facts.id, name="web", labels=names)
    fields = json.loads(driver.plan(odd, {"labels-regex": "."})["fields"])
    assert fields["CONTAINER_NAME"] == "web"
    assert fields["UID"] == "0"
    assert all(name.replace("_", "").isalnum() and name[0].isalpha() for name in fields)


def test_every_byte_comes_back(driver, facts):
    options = driver.plan(facts, {})
    lines = [b"plain\n", b"\xff\xfe\n", b"in\rside\n", b"\n", "ä".encode() * 4000 + b"\n", b"part", b"ial\n", b"nul\0\n"]
    sink = JournaldSink(options)
    write(sink, *lines)
    write(sink, b"err\n", stream="stderr")
    sink.close()
    found = eventually(lambda: read(driver, facts, options), len(lines) + 1)
    assert [entry.data for entry in found] == [*lines, b"err\n"]
    assert [entry.time_ns for entry in found[:-1]] == [TIME + number for number in range(len(lines))]
    assert found[-1].stream == "stderr"
    assert [entry.data for entry in read(driver, facts, options, tail=2)] == [b"nul\0\n", b"err\n"]
    assert read(driver, facts, options, tail=0) == []
    assert [entry.data for entry in read(driver, facts, options, since_ns=TIME + 6, until_ns=TIME + 6)] == [b"ial\n"]


def test_a_journal_that_is_not_there_keeps_the_container_from_starting(facts):
    driver = make("wharfie-no-such")
    with pytest.raises(OSError, match=r"is systemd-journald running.*journal.wharfie-no-such/socket"):
        JournaldSink(driver.plan(facts, {}))


def test_a_journal_that_was_restarted_is_found_again(driver, journal, facts, monkeypatch):
    monkeypatch.setattr(sinks, "_RETRY_SECONDS", 0.02)
    options = driver.plan(facts, {})
    sink = JournaldSink(options)
    write(sink, b"before\n")
    assert eventually(lambda: read(driver, facts, options), 1)
    journal.stop()
    journal.socket.unlink()
    write(sink, b"meanwhile\n")
    journal.start()
    time.sleep(0.05)
    write(sink, b"after\n")
    sink.close()
    found = eventually(lambda: read(driver, facts, options), 3)
    assert [entry.data for entry in found] == [b"before\n", b"meanwhile\n", b"after\n"]


def test_a_journal_that_reads_nothing_freezes_nobody(facts, tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as deaf:
        deaf.bind(str(tmp_path / "socket"))
        options = {**make().plan(facts, {"mode": "non-blocking", "max-buffer-size": "64k"}), "socket": f"{tmp_path}/socket"}
        sink = JournaldSink(options)
        lost = 0
        for _ in range(2000):
            try:
                write(sink, b"x" * 8000 + b"\n")
            except OSError:
                lost += 1
        assert lost > 1000
        with pytest.raises(OSError, match="dropped at the end"):
            sink.close()


def test_options_and_settings(driver, facts, monkeypatch):
    with pytest.raises(InvalidArgument, match="unknown log opt 'max-size' for journald log driver"):
        driver.plan(facts, {"max-size": "1m"})
    assert make().plan(facts, {})["socket"] == "/run/systemd/journal/socket"
    with pytest.raises(ValueError, match="namespace"):
        JournaldSettings(namespace="../x")
    monkeypatch.setitem(os.environ, "PATH", "/nowhere")
    mute = make()
    assert mute.capabilities() == frozenset()
    with pytest.raises(Unsupported):
        mute.open_reader(facts, mute.plan(facts, {}), LogQuery())


def test_the_sink_needs_the_standard_library_only():
    code = (
        "import sys; import wharfie_log_journald.sink; "
        "assert not {'pydantic', 'pluggy', 'subprocess', 'logging'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-S", "-c", f"import sys; sys.path[:0] = {sys.path!r}; {code}"], check=True)
