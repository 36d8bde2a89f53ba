"""The file log drivers: written by their sinks, read by their readers, rotated, cut, full, killed."""

from __future__ import annotations

import contextlib
import gzip
import json
import logging
import random
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest
import wharfie_log_files
from wharfie_log_files.json_file import JsonFileDriver
from wharfie_log_files.local import LocalLogDriver
from wharfie_log_files.none import NoneDriver
from wharfie_log_files.sink import JsonFileSink, LocalSink, rfc3339, varint
from wharfie_log_files.stamps import StampReader

import wharfie
from wharfie.spi import log_options
from wharfie.spi.driver import ContainerFacts, Context, HostFacts
from wharfie.spi.errors import InvalidArgument, Unsupported
from wharfie.spi.log import LogQuery

NOW = 1_795_538_890_597_251_234  # 2026-11-24T16:48:10.597251234Z
DRIVERS = {JsonFileDriver: JsonFileSink, LocalLogDriver: LocalSink}


@pytest.fixture
def context(tmp_path):
    return Context(
        state=tmp_path,
        run=tmp_path,
        instance="00000000",
        log=logging.getLogger("test"),
        host=HostFacts(kernel=(6, 1), architecture="amd64", cgroup="v1", cpus=2, memory=1 << 30),
        emit=lambda event: None,
    )


@pytest.fixture
def facts(tmp_path):
    folder = tmp_path / "c"
    folder.mkdir()
    return ContainerFacts(
        id="f" * 64,
        name="web",
        image="nginx",
        image_id="sha256:" + "a" * 64,
        labels={"tier": "front", "team": "x"},
        env=("OS=linux", "EMPTY=", "PATH=/bin"),
        folder=folder,
    )


@pytest.fixture(params=DRIVERS, ids=lambda driver: driver.name)
def log(request, context, facts):
    return Log(request.param(context, None), DRIVERS[request.param], facts)


class Log:
    """One driver with a sink and a container."""

    def __init__(self, driver, sink, facts):
        self.driver, self.sink_class, self.facts = driver, sink, facts

    def sink(self, **options):
        self.options = self.driver.plan(self.facts, {key.replace("_", "-"): value for key, value in options.items()})
        return self.sink_class(self.options)

    def reader(self, **query):
        return self.driver.open_reader(self.facts, self.options, LogQuery(**query))

    def lines(self, **query):
        reader = self.reader(**query)
        try:
            return take(reader)
        finally:
            reader.close()

    def files(self):
        root = self.facts.folder
        return sorted(path.name for path in root.rglob("*") if path.is_file())


def take(reader, limit=100):
    return [entry.data for entry in take_entries(reader, limit)]


def take_entries(reader, limit=100):
    entries = []
    while batch := reader.read(limit):
        assert len(batch) <= limit
        entries += batch
    return entries


def write(sink, *lines, stream="stdout", at=NOW, partial=False):
    for line in lines:
        sink.write(stream, memoryview(line), at, partial)
    sink.flush()


def numbered(start, end):
    return [b"line %06d\n" % number for number in range(start, end)]


def wakes(reader):
    return bool(select.select([reader.fileno()], [], [], 5)[0])


def test_json_file_is_written_as_docker_writes_it(context, facts):
    log = Log(JsonFileDriver(context, None), JsonFileSink, facts)
    sink = log.sink(tag="{{.Name}}/{{.ID}}", labels="tier,none", env_regex="^O")
    write(sink, b'a <b> & "c" \\ \xe2\x80\xa8 \xc3\xa9\r\n')
    sink.close()
    path = facts.folder / f"{facts.id}-json.log"
    assert log.driver.path(facts, log.options) == str(path)
    assert path.stat().st_mode & 0o777 == 0o640
    assert path.read_bytes() == (
        rb'{"log":"a \u003cb\u003e \u0026 \"c\" \\ \u2028 ' + "é".encode() + rb'\r\n","stream":"stdout",'
        rb'"attrs":{"OS":"linux","tag":"web/ffffffffffff","tier":"front"},"time":"2026-11-24T16:48:10.597251234Z"}' + b"\n"
    )


def test_json_file_keeps_what_is_not_utf8_as_one_replacement_a_byte(context, facts):
    log = Log(JsonFileDriver(context, None), JsonFileSink, facts)
    sink = log.sink()
    write(sink, b"\xff \xe2\x82 x \xed\xa0\x80\n")
    sink.close()
    assert log.lines() == ["\ufffd \ufffd\ufffd x \ufffd\ufffd\ufffd\n".encode()]


def test_a_character_cut_by_the_line_limit_stays_whole(log):
    sink = log.sink()
    text = ("é" * 20).encode()
    write(sink, text[:7], partial=True)
    write(sink, b"err\n", stream="stderr")
    write(sink, text[7:] + b"\n")
    write(sink, text[:7], partial=True)
    sink.close()
    together = b"".join(log.lines())
    assert together.replace(b"err\n", b"") in (text + b"\n" + text[:6] + "\ufffd".encode(), text + b"\n" + text[:7])


def test_partial_entries_and_a_last_line_without_an_end_get_none(log):
    sink = log.sink()
    write(sink, b"x" * 16384, partial=True)
    write(sink, b"end\n", b"\n", b"no newline")
    sink.close()
    assert log.lines() == [b"x" * 16384, b"end\n", b"\n", b"no newline"]


def test_entries_carry_stream_time_and_attributes(log):
    sink = log.sink(labels="tier")
    write(sink, b"one\n", stream="stderr", at=NOW)
    write(sink, b"two\n", at=NOW + 5)
    sink.close()
    reader = log.reader()
    first, second = reader.read(10)
    reader.close()
    assert (first.stream, first.time_ns, first.attributes) == ("stderr", NOW, {"tier": "front"})
    assert (second.stream, second.time_ns) == ("stdout", NOW + 5)


ODD = (
    b"",
    b"plain",
    b'"',
    b"\\",
    b"\\n",
    b"\\\\",
    b'","stream":"stderr","time":"',
    b"<&>",
    b"\0\t\x1b[1m\r",
    b"\x7f",
    b"\xff\xe2\x82",
)
ODDER = (*ODD, "\u2028ä€😀".encode(), b'{"log":"', b"x" * 500)


def test_lines_written_at_once_are_as_lines_written_one_by_one(context, facts, log):
    chance = random.Random(7)
    at_once = [[b"".join(chance.choices(ODDER, k=3)) + b"\n" for _ in range(chance.randrange(1, 30))] for _ in range(60)]
    seen = {}
    for way in ("each", "lines"):
        sink = log.sink(tag="<{{.Name}}>")
        for turn, lines in enumerate(at_once):
            stream = ("stdout", "stderr")[turn % 3 // 2]
            if way == "each":
                write(sink, *lines, stream=stream, at=NOW + turn)
            else:
                sink.write_lines(stream, b"".join(lines), NOW + turn)
            if turn % 7 == 0:
                write(sink, b"piece of a long line", partial=True, at=NOW + turn)
        write(sink, b"piece of a character \xc3", partial=True)
        write(sink, b"\xa9\n") if way == "each" else sink.write_lines("stdout", b"\xa9\n", NOW)
        sink.close()
        reader = log.reader()
        seen[way] = [(entry.stream, entry.data, entry.time_ns) for entry in take_entries(reader)]
        reader.close()
        reader = log.reader()
        runs = []
        while batch := reader.read_runs():
            runs += [(run.stream, data, run.time_ns) for run in batch for data in run.entries()]
        reader.close()
        assert runs == seen[way]
        seen[way, "bytes"] = next(facts.folder.rglob("*.log")).read_bytes()
        log.driver.remove(facts, log.options)
    assert seen["each"] == seen["lines"]
    assert seen["each", "bytes"] == seen["lines", "bytes"]
    texts = [data for _, data, _ in seen["lines"][:-1] if not data.startswith(b"piece")]
    wanted = [line for lines in at_once for line in lines]
    if log.driver.name == "json-file":
        for line in seen["each", "bytes"].splitlines():
            assert json.loads(line)["attrs"] == {"tag": "<web>"}
        wanted = [line.decode("utf-8", "wharfie-log-replace").encode() for line in wanted]
    assert texts == wanted


def test_a_log_that_docker_wrote(context, facts):
    """Each line with a time of its own, and what its encoder may do otherwise."""
    log = Log(JsonFileDriver(context, None), JsonFileSink, facts)
    log.options = log.driver.plan(facts, {})
    Path(log.options["path"]).write_bytes(
        b'{"log":"one\\n","stream":"stdout","time":"2026-11-24T16:48:10.597251234Z"}\n'
        b'{"log":"tw\\u006f\\n","stream":"stdout","time":"2026-11-24T16:48:10.597251234Z"}\n'
        b'{"log":"three\\\\\\n","stream":"stderr","time":"2026-11-24T16:48:11Z"}\n'
        b'{"log":"part\\\\n","stream":"stderr","time":"2026-11-24T16:48:11Z"}\n'
        b'{"time":"2026-11-24T16:48:11Z","stream":"stderr","log":"four\\n"}\n'
        b'{"log":"lost\\n","stream":"stderr","time":"yesterday"}\n'
    )
    assert log.lines() == [b"one\n", b"two\n", b"three\\\n", b"part\\n", b"four\n"]


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7, 4999, 5000, 9999])
def test_tail(log, count):
    sink = log.sink()
    lines = numbered(0, 5000)
    write(sink, *lines)
    assert log.lines(tail=count) == lines[max(0, 5000 - count) :]
    sink.close()


def test_since_and_until_are_inclusive(log):
    sink = log.sink()
    for number in range(10):
        write(sink, b"%d\n" % number, at=NOW + number)
    sink.close()
    assert log.lines(since_ns=NOW + 3, until_ns=NOW + 5) == [b"3\n", b"4\n", b"5\n"]
    assert log.lines(since_ns=time.time_ns() + 10**12) == []


def test_reading_before_anything_was_written(log):
    log.options = log.driver.plan(log.facts, {})
    assert log.lines() == [] == log.lines(tail=5)
    reader = log.reader(follow=True)
    assert reader.read(10) == []
    sink = log.sink()
    write(sink, b"first\n")
    assert wakes(reader)
    assert take(reader) == [b"first\n"]
    sink.close()
    reader.close()
    reader.close()


def test_a_reader_that_does_not_follow_ends_where_the_log_ended(log):
    sink = log.sink()
    write(sink, *numbered(0, 10))
    reader = log.reader()
    write(sink, *numbered(10, 20))
    assert wakes(reader)
    assert take(reader, limit=3) == numbered(0, 10)
    reader.close()
    sink.close()


@pytest.mark.parametrize("compress", ["false", "true"])
def test_rotation_keeps_files_under_the_limit_and_the_newest_lines(log, compress):
    sink = log.sink(max_size="20k", max_file="4", compress=compress)
    lines = numbered(0, 6000)
    for start in range(0, len(lines), 100):
        write(sink, *lines[start : start + 100])
    sink.close()
    log_file = next(path for path in log.facts.folder.rglob("*.log"))
    suffixes = ["", ".1", ".2", ".3"] if compress == "false" else ["", ".1.gz", ".2.gz", ".3.gz"]
    assert log.files() == sorted(log_file.name + suffix for suffix in suffixes)
    for path in log_file.parent.iterdir():
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        assert 0 < len(data) <= 20_000
    kept = log.lines()
    assert kept == lines[-len(kept) :]
    assert len(kept) > 500
    assert log.lines(tail=len(kept) - 10) == kept[10:]
    log.driver.remove(log.facts, log.options)
    log.driver.remove(log.facts, log.options)
    assert log.files() == []


def test_one_file_only_starts_anew(log):
    sink = log.sink(max_size="1k", max_file="1", compress="false")
    lines = numbered(0, 200)
    write(sink, *lines)
    sink.close()
    assert len(log.files()) == 1
    kept = log.lines()
    assert 0 < len(kept) < 30
    assert kept == lines[-len(kept) :]


def test_an_entry_larger_than_a_file_is_kept_whole(log):
    sink = log.sink(max_size="1k", max_file="3", compress="false")
    write(sink, b"a\n", b"x" * 300_000 + b"\n", b"b\n")
    sink.close()
    assert log.lines() == [b"a\n", b"x" * 300_000 + b"\n", b"b\n"]


@pytest.mark.parametrize("compress", ["false", "true"])
@pytest.mark.parametrize("each", [1, 7])
def test_following_over_rotations_loses_nothing(log, compress, each):
    sink = log.sink(max_size="5k", max_file="20", compress=compress)
    reader = log.reader(follow=True)
    lines = numbered(0, 5000)
    seen = []
    for turn, start in enumerate(range(0, len(lines), 50)):
        write(sink, *lines[start : start + 50])
        if turn % each == 0:
            assert wakes(reader)
            seen += take(reader, limit=33)
    seen += take(reader)
    assert seen == lines
    assert len(list(Path("/proc/self/fd").iterdir())) < 60
    reader.close()
    sink.close()


def test_following_from_the_tail_goes_on_in_the_next_run(log):
    sink = log.sink()
    write(sink, *numbered(0, 100))
    reader = log.reader(follow=True, tail=2)
    assert take(reader) == numbered(98, 100)
    sink.close()
    sink = log.sink()
    write(sink, *numbered(100, 105))
    assert wakes(reader)
    assert take(reader) == numbered(100, 105)
    sink.close()
    reader.close()


def until(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def held(log):
    """Whether a reader, too, has the file open that the sink writes to."""
    newest = next(path for path in log.facts.folder.rglob("*.log")).stat()
    found = 0
    for path in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            facts = path.stat()
            found += (facts.st_dev, facts.st_ino) == (newest.st_dev, newest.st_ino)
    return found >= 2


def descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize(("max_file", "compress"), [("1", "false"), ("2", "false"), ("3", "true")])
def test_a_follower_that_does_not_read_keeps_what_is_rotated_away(log, max_file, compress):
    sink = log.sink(max_size="2k", max_file=max_file, compress=compress)
    write(sink, *numbered(0, 10))
    reader = log.reader(follow=True)
    assert take(reader, 3) == numbered(0, 10)
    for start in range(10, 1000, 10):
        write(sink, *numbered(start, start + 10))
        until(lambda: held(log))
    assert take(reader) == numbered(10, 1000)
    left = descriptors()
    reader.close()
    assert left - descriptors() < 10  # what was read is not kept
    sink.close()


def test_a_follower_keeps_no_more_than_the_disk_can_bear(log, monkeypatch, caplog):
    monkeypatch.setattr("wharfie_log_files.reader.HELD_FILES", 5)
    sink = log.sink(max_size="2k", max_file="1", compress="false")
    write(sink, *numbered(0, 10))
    reader = log.reader(follow=True)
    for start in range(10, 3010, 30):
        write(sink, *numbered(start, start + 30))
    until(lambda: "is too slow and may lose lines" in caplog.text)
    numbers = [int(line.split()[1]) for line in take(reader)]
    gap = next(place for place, number in enumerate(numbers) if number != place)
    assert gap >= 10
    assert numbers == sorted(set(numbers))
    assert numbers[-1] == 3009
    assert caplog.text.count("is too slow") == 1
    reader.close()
    sink.close()


def test_a_writer_killed_in_the_middle_of_an_entry_is_repaired(log):
    sink = log.sink()
    write(sink, *numbered(0, 10))
    sink.close()
    path = next(log.facts.folder.rglob("*.log"))
    whole = path.read_bytes()
    for cut in (1, 3, 9, 20):
        path.write_bytes(whole[:-cut])
        assert log.lines() == numbered(0, 9)
        assert log.lines(tail=2) == numbered(7, 9)
        sink = log.sink()
        write(sink, b"later\n")
        sink.close()
        assert log.lines() == [*numbered(0, 9), b"later\n"]


def test_damaged_entries_are_passed_over(log):
    sink = log.sink()
    write(sink, b"before\n")
    sink.close()
    path = next(log.facts.folder.rglob("*.log"))
    path.write_bytes(path.read_bytes() + (b"\0" * 64 if log.driver.name == "local" else b'\0{"log"\n{"log":1}\n[]\n'))
    sink = log.sink()
    write(sink, b"after\n")
    sink.close()
    assert log.lines() == [b"before\n", b"after\n"]


def test_a_killed_compression_is_finished_in_the_next_run(log):
    sink = log.sink(max_size="400k", max_file="3", compress="true")
    path = next(log.facts.folder.rglob("*.log"))
    rotated = path.with_name(f"{path.name}.1")
    written = 0
    while not rotated.exists():  # more of it than one slice
        write(sink, *numbered(written, written + 10))
        written += 10
    before = log.lines()
    assert before == numbered(0, written)
    path.with_name(f"{path.name}.1.gz").write_bytes(b"half")  # as if killed between the two last steps
    assert log.lines() == before
    sink.close()
    sink = log.sink(max_size="400k", max_file="3", compress="true")
    for start in range(written, written + 100, 10):
        write(sink, *numbered(start, start + 10))
    sink.close()
    assert log.files() == [path.name, f"{path.name}.1.gz"]
    assert log.lines() == before + numbered(written, written + 100)


def test_a_full_disk_costs_lines_but_never_half_of_one(log, tmp_path):
    small = log.facts.folder
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", small], check=True)
    try:
        sink = log.sink()
        lost = 0
        for line in numbered(0, 5000):
            try:
                write(sink, line)
            except OSError:
                lost += 1
                break
        assert lost
        kept = log.lines()
        assert kept == numbered(0, len(kept))
        subprocess.run(["mount", "-o", "remount,size=1m", small], check=True)
        write(sink, b"space again\n")
        sink.close()
        assert log.lines() == [*kept, b"space again\n"]
    finally:
        subprocess.run(["umount", small], check=True)


def test_none_drops_and_says_that_it_cannot_read(context, facts):
    driver = NoneDriver(context, None)
    assert driver.plan(facts, {}) == {}
    assert driver.path(facts, {}) == ""
    with pytest.raises(Unsupported, match="configured logging driver does not support reading"):
        driver.open_reader(facts, {}, LogQuery())
    with pytest.raises(InvalidArgument, match="unknown log opt 'max-size' for none log driver"):
        driver.plan(facts, {"max-size": "1m"})
    driver.remove(facts, {})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"nosuch": "1"}, "unknown log opt 'nosuch'"),
        ({"max-size": "big"}, "max-size: invalid size: 'big'"),
        ({"max-size": "0"}, "max-size must be a positive number"),
        ({"max-file": "0"}, "max-file cannot be less than 1"),
        ({"max-file": "many"}, "invalid value for max-file: many"),
        ({"compress": "maybe"}, "invalid boolean value for compress"),
        ({"compress": "true", "max-file": "1"}, "compress cannot be true"),
        ({"mode": "fast"}, "logging mode not supported: fast"),
        ({"max-buffer-size": "1m"}, "only supported with 'mode=non-blocking'"),
        ({"mode": "non-blocking", "max-buffer-size": "x"}, "max-buffer-size: invalid size: 'x'"),
        ({"labels-regex": "("}, "invalid value for labels-regex"),
        ({"tag": "{{.Nope}}"}, r"\{\{\.Nope\}\} is not known"),
    ],
)
def test_bad_options_are_refused_by_name(log, options, message):
    with pytest.raises(InvalidArgument, match=message):
        log.driver.plan(log.facts, options)


def test_good_options_mean_what_docker_means_by_them(log):
    plan = log.driver.plan(log.facts, {"max-size": "10m", "max-file": "3", "mode": "non-blocking", "max-buffer-size": "4m"})
    assert (plan["max-size"], plan["max-file"]) == ("10000000", "3")
    assert plan["compress"] == ("true" if log.driver.name == "local" else "false")
    assert log.driver.plan(log.facts, {"max-size": "1.5 KB"})["max-size"] == "1500"
    assert log_options.size("x", "4m", unit=1024) == 4 << 20
    chosen = log.driver.plan(log.facts, {"labels-regex": "^te", "env": "EMPTY,OS", "tag": "{{ .ImageName }}@{{.ImageID}}"})
    assert json.loads(chosen["attrs"]) == {"EMPTY": "", "OS": "linux", "tag": "nginx@" + "a" * 12, "team": "x"}


def test_stamps_and_varints():
    for time_ns in (NOW, 0, 1_000_000_000, 1_700_000_000_500_000_000, 1_700_000_000_000_000_001):
        assert StampReader().nanoseconds(rfc3339(time_ns)) == time_ns
    assert rfc3339(1_700_000_000_500_000_000) == "2023-11-14T22:13:20.5Z"
    assert StampReader().nanoseconds("2023-11-14T23:13:20.5+01:00") == 1_700_000_000_500_000_000
    assert varint(300) == b"\xac\x02"


def test_the_sink_imports_little():
    """It runs in a bare interpreter, and each module costs memory in every shim."""
    heavy = {"pydantic", "pluggy", "asyncio", "ctypes", "gzip", "zlib", "datetime"}
    code = (
        f"import sys; sys.path[:0] = sys.argv[1:]; import wharfie_log_files.sink;print(sorted({heavy} & set(sys.modules)))"
    )
    paths = [str(Path(module.__path__[0]).parent) for module in (wharfie, wharfie_log_files)]
    done = subprocess.run([sys.executable, "-S", "-I", "-c", code, *paths], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
