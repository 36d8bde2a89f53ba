"""The rules of log drivers. The sink runs in a bare interpreter (`sinkbox`), as it does in a container's shim."""

from __future__ import annotations

import importlib.util
import json
import select
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import wharfie
from wharfie.kit.contract import Contract
from wharfie.kit.rig import Rig
from wharfie.kit.rules import DOCKER, Group, Violation, refused, require, rule, succeeds
from wharfie.spi.driver import ContainerFacts, Strings
from wharfie.spi.errors import InvalidArgument, NotFound
from wharfie.spi.log import LINE_LIMIT, LogCapability, LogDriver, LogEntry, LogQuery, RunReader, Stream

Log = LogDriver
Piece = tuple[Stream, bytes, int, bool]

UNKNOWN = "wharfie-kit-no-such-option"
START = 1_700_000_000_000_000_001
SECOND = 1_000_000_000


def pieces(count: int, *, begin: int = 0) -> list[Piece]:
    """Lines, every third one of stderr, a second apart."""
    return [
        ("stderr" if number % 3 == 2 else "stdout", f"line {number} ä\n".encode(), START + number * SECOND, False)
        for number in range(begin, begin + count)
    ]


class Box:
    """A sink in an interpreter of its own."""

    def __init__(self, driver: Log, options: Strings) -> None:
        module = driver.sink.partition(":")[0]
        top = module.partition(".")[0]
        spec = importlib.util.find_spec(top)
        require(spec is not None and spec.origin, f"sink is {driver.sink!r}, there is no module {top}")
        assert spec is not None and spec.origin is not None
        package = Path(spec.origin).parents[1 if spec.submodule_search_locations else 0]
        folders = [str(Path(wharfie.__path__[0]).parent), str(package)]
        self._process = subprocess.Popen(
            [sys.executable, "-S", "-I", "-X", "utf8", str(Path(__file__).with_name("sinkbox.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._said = ""
        self._ask({"sink": driver.sink, "options": dict(options), "folders": folders})

    def _ask(self, words: object) -> Any:
        assert self._process.stdin is not None and self._process.stdout is not None and self._process.stderr is not None
        try:
            self._process.stdin.write(json.dumps(words) + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            self._process.wait()
            last = self._process.stderr.read().strip().splitlines()
            raise Violation(f"the sink failed: {last[-1] if last else f'exit {self._process.returncode}'}")
        return json.loads(answer)

    def write(self, some: Sequence[Piece]) -> None:
        self._ask(("write", [(stream, data.hex(), time_ns, partial) for stream, data, time_ns, partial in some]))

    def write_lines(self, stream: Stream, lines: bytes, time_ns: int) -> None:
        self._ask(("lines", (stream, lines.hex(), time_ns)))

    def modules(self) -> list[str]:
        found: list[str] = self._ask(("modules", []))
        return found

    def close(self) -> None:
        self._ask(("close", []))
        self.end()

    def kill(self) -> None:
        self._process.kill()
        self.end()

    def end(self) -> None:
        """Without closing the sink, as a shim that ends by itself."""
        self._process.communicate()


class LogContract(Contract[LogDriver]):
    """`options`: log options of every container of the tests."""

    kind: ClassVar[str] = "log"
    abilities: ClassVar[Any] = {LogCapability.READ: ("open_reader",)}

    options: ClassVar[Strings] = {}

    def container(self, rig: Rig[Log], number: object = 1) -> ContainerFacts:
        folder = rig.folder / f"container-{number}"
        folder.mkdir(exist_ok=True)
        return ContainerFacts(
            id=f"{number:0>64}",
            name=f"kit-{number}",
            hostname="kit",
            image="kit",
            command=("true",),
            created="2024-01-01T00:00:00Z",
            folder=folder,
        )

    def written(self, driver: Log, container: ContainerFacts, some: Sequence[Piece]) -> Strings:
        """A log with these pieces, its sink closed; the sink's options."""
        planned = driver.plan(container, self.options)
        box = Box(driver, planned)
        box.write(some)
        box.close()
        return planned

    def read(
        self, driver: Log, container: ContainerFacts, options: Strings, query: LogQuery | None = None
    ) -> list[LogEntry]:
        """All that is there."""
        reader = driver.open_reader(container, options, query or LogQuery())
        found: list[LogEntry] = []
        try:
            while some := reader.read(100):
                found += some
        finally:
            reader.close()
        return found

    def life(self, rig: Rig[Log], driver: Log, number: int) -> None:
        container = self.container(rig, number)
        planned = self.written(driver, container, pieces(21))
        if LogCapability.READ in driver.capabilities():
            _same(self.read(driver, container, planned), pieces(21))
        driver.path(container, planned)
        driver.remove(container, planned)

    def shared(self, rig: Rig[Log], driver: Log) -> Callable[[], None]:
        self._container = self.container(rig, "both")
        self._planned = self.written(driver, self._container, pieces(50))
        return lambda: driver.remove(self._container, self._planned)

    def share(self, rig: Rig[Log], driver: Log, number: int) -> None:
        if LogCapability.READ in driver.capabilities():
            _same(self.read(driver, self._container, self._planned), pieces(50))

    @rule("plan turns a container's options into the sink's, texts all of them.", methods="plan")
    def test_log_01(self, rig: Rig[Log], driver: Log) -> None:
        for name, value in driver.plan(self.container(rig), self.options).items():
            require(isinstance(name, str) and isinstance(value, str), f"plan gave {name!r}: {value!r}")

    @rule("plan refuses an unknown option as InvalidArgument naming it.", methods="plan", source=DOCKER)
    def test_log_02(self, rig: Rig[Log], driver: Log) -> None:
        with refused(InvalidArgument, "plan with an unknown option", naming=UNKNOWN):
            driver.plan(self.container(rig), {**self.options, UNKNOWN: "1"})

    @rule("plan may be repeated with the same result, and writes nothing.", group=Group.REPETITION, methods="plan")
    def test_log_03(self, rig: Rig[Log], driver: Log) -> None:
        container = self.container(rig)
        first = dict(driver.plan(container, self.options))
        for _ in range(3):
            require(dict(driver.plan(container, self.options)) == first, "plan gives another result when it is repeated")
        assert container.folder is not None
        require(not list(container.folder.iterdir()), "plan made files in the container's folder")

    @rule(
        "The sink works in a bare interpreter, and imports the standard library, the contracts and its own package alone.",
        methods="plan",
    )
    def test_log_04(self, rig: Rig[Log], driver: Log) -> None:
        box = Box(driver, driver.plan(self.container(rig), self.options))
        box.write(pieces(5))
        own = driver.sink.partition(":")[0].partition(".")[0]
        allowed = set(sys.stdlib_module_names) | {own, "__main__"}
        foreign = [
            name
            for name in box.modules()
            if name.partition(".")[0] not in allowed
            and name not in ("wharfie", "wharfie.spi")
            and not name.startswith(("wharfie.spi.", "_sysconfigdata"))
        ]
        box.close()
        require(not foreign, f"the sink imports {', '.join(foreign)}")

    @rule("A piece of the greatest length, and one after another, is taken.", methods="plan")
    def test_log_05(self, rig: Rig[Log], driver: Log) -> None:
        long = b"x" * LINE_LIMIT
        some: list[Piece] = [
            ("stdout", long, START, True),
            ("stdout", long, START + 1, True),
            ("stdout", b"end\n", START + 2, False),
        ]
        planned = self.written(driver, self.container(rig), some)
        if LogCapability.READ in driver.capabilities():
            found = b"".join(entry.data for entry in self.read(driver, self.container(rig), planned))
            require(found == long + long + b"end\n", f"of a line of {2 * LINE_LIMIT + 4} bytes {len(found)} were read back")

    @rule(
        "What was written is read back: streams, bytes, times, in order.",
        methods="open_reader",
        capability="read",
        source=DOCKER,
    )
    def test_log_06(self, rig: Rig[Log], driver: Log) -> None:
        container = self.container(rig)
        _same(self.read(driver, container, self.written(driver, container, pieces(200))), pieces(200))

    @rule("tail gives the last entries, none for 0.", methods="open_reader", capability="read", source=DOCKER)
    def test_log_07(self, rig: Rig[Log], driver: Log) -> None:
        container = self.container(rig)
        planned = self.written(driver, container, pieces(50))
        for tail, wanted in ((3, pieces(50)[-3:]), (0, []), (1000, pieces(50)), (-1, pieces(50))):
            _same(self.read(driver, container, planned, LogQuery(tail=tail)), wanted, f"with tail={tail}")

    @rule("since and until bound the times.", methods="open_reader", capability="read", source=DOCKER)
    def test_log_08(self, rig: Rig[Log], driver: Log) -> None:
        container = self.container(rig)
        planned = self.written(driver, container, pieces(20))
        middle = LogQuery(since_ns=START + 5 * SECOND, until_ns=START + 10 * SECOND - 1)
        _same(self.read(driver, container, planned, middle), pieces(20)[5:10], "between since and until")

    @rule(
        "read gives at most as many entries as it is asked for, and never waits.", methods="open_reader", capability="read"
    )
    def test_log_09(self, rig: Rig[Log], driver: Log) -> None:
        container = self.container(rig)
        planned = self.written(driver, container, pieces(10))
        for follow in (False, True):
            reader = driver.open_reader(container, planned, LogQuery(follow=follow))
            found: list[LogEntry] = []
            begin = time.monotonic()
            while len(some := reader.read(3)):
                require(len(some) <= 3, f"read(3) gave {len(some)} entries")
                found += some
            require(not reader.read(3), "after the last entry there are more")
            require(time.monotonic() - begin < 5, "read waited")
            reader.close()
            _same(found, pieces(10), f"by threes, follow={follow}")

    @rule("A follower's descriptor gets readable when more is written.", methods="open_reader", capability="read")
    def test_log_10(self, rig: Rig[Log], driver: Log) -> None:
        container = self.container(rig)
        planned = driver.plan(container, self.options)
        box = Box(driver, planned)
        box.write(pieces(5))
        reader = driver.open_reader(container, planned, LogQuery(follow=True))
        found = [*reader.read(100)]
        for begin in range(5, 25, 5):
            box.write(pieces(5, begin=begin))
            end = time.monotonic() + 3
            while len(found) < begin + 5 and time.monotonic() < end:
                select.select([reader.fileno()], [], [], 1)
                found += reader.read(100)
            if len(found) < begin + 5:
                break
        reader.close()
        box.close()
        _same(found, pieces(25), "while following")

    @rule(
        "A follower that asks for the last entries gets those and all that come.",
        methods="open_reader",
        capability="read",
        source=DOCKER,
    )
    def test_log_11(self, rig: Rig[Log], driver: Log) -> None:
        container = self.container(rig)
        planned = driver.plan(container, self.options)
        box = Box(driver, planned)
        box.write(pieces(10))
        reader = driver.open_reader(container, planned, LogQuery(follow=True, tail=2))
        found = [*reader.read(100)]
        box.write(pieces(3, begin=10))
        end = time.monotonic() + 3
        while len(found) < 5 and time.monotonic() < end:
            select.select([reader.fileno()], [], [], 1)
            found += reader.read(100)
        reader.close()
        box.close()
        _same(found, pieces(13)[-5:], "following with tail=2")

    @rule("A reader of a log into which nothing was written has nothing.", methods="open_reader", capability="read")
    def test_log_12(self, rig: Rig[Log], driver: Log) -> None:
        container = self.container(rig)
        planned = driver.plan(container, self.options)
        with succeeds("reading a log that was never written"):
            found = self.read(driver, container, planned)
        require(not found, f"a log that was never written has {found}")

    @rule("A reader may be closed twice.", group=Group.REPETITION, methods="open_reader", capability="read")
    def test_log_13(self, rig: Rig[Log], driver: Log) -> None:
        container = self.container(rig)
        reader = driver.open_reader(container, self.written(driver, container, pieces(1)), LogQuery())
        for _ in range(3):
            with succeeds("close of a reader, repeated"):
                reader.close()

    @rule("A container that runs again goes on in its log.", group=Group.ORDER, methods="open_reader", capability="read")
    def test_log_14(self, rig: Rig[Log], driver: Log) -> None:
        container = self.container(rig)
        planned = self.written(driver, container, pieces(5))
        box = Box(driver, planned)
        box.write(pieces(5, begin=5))
        box.close()
        _same(self.read(driver, container, planned), pieces(10), "after a second start")

    @rule(
        "What was flushed before the sink was killed is read back, and the next sink goes on after it.",
        group=Group.CRASH,
        methods="open_reader",
        capability="read",
    )
    def test_log_15(self, rig: Rig[Log], driver: Log) -> None:
        container = self.container(rig)
        planned = driver.plan(container, self.options)
        for begin in range(0, 20, 5):
            box = Box(driver, planned)
            box.write(pieces(5, begin=begin))
            box.kill()
        _same(self.read(driver, container, planned), pieces(20), "after four kills")

    @rule("Logs of two containers do not mix.", methods="open_reader", capability="read")
    def test_log_16(self, rig: Rig[Log], driver: Log) -> None:
        one, two = self.container(rig, 1), self.container(rig, 2)
        planned = [self.written(driver, one, pieces(3)), self.written(driver, two, pieces(3, begin=50))]
        _same(self.read(driver, one, planned[0]), pieces(3), "of the first container")
        _same(self.read(driver, two, planned[1]), pieces(3, begin=50), "of the second container")

    @rule("The log is read by a new instance, too.", group=Group.ORDER, methods="open_reader", capability="read")
    def test_log_17(self, rig: Rig[Log], driver: Log) -> None:
        container = self.container(rig)
        planned = self.written(driver, container, pieces(5))
        driver.close()
        with rig.opened() as second:
            _same(self.read(second, container, planned), pieces(5), "after a restart")

    @rule("After remove nothing is left of the log.", methods="remove")
    def test_log_18(self, rig: Rig[Log], driver: Log) -> None:
        container = self.container(rig)
        planned = self.written(driver, container, pieces(5))
        driver.remove(container, planned)
        assert container.folder is not None
        left = [path.name for path in container.folder.iterdir()]
        require(not left, f"after remove there are {left}")
        if LogCapability.READ in driver.capabilities():
            try:
                found = self.read(driver, container, planned)
            except NotFound:
                return
            require(not found, f"after remove {len(found)} entries are read")

    @rule("remove succeeds when there is no log.", group=Group.REPETITION, methods="remove")
    def test_log_19(self, rig: Rig[Log], driver: Log) -> None:
        container = self.container(rig)
        planned = driver.plan(container, self.options)
        for _ in range(3):
            with succeeds("remove of a log that is not there"):
                driver.remove(container, planned)
        planned = self.written(driver, container, pieces(1))
        for _ in range(3):
            with succeeds("remove, repeated"):
                driver.remove(container, planned)

    @rule("path names the log's file, or is empty.", methods="path", source=DOCKER)
    def test_log_20(self, rig: Rig[Log], driver: Log) -> None:
        container = self.container(rig)
        path = driver.path(container, self.written(driver, container, pieces(1)))
        require(not path or Path(path).exists(), f"path is {path!r}, and there is no such file")

    @rule("Lines that were read at once are kept as if they had come one by one.", methods="plan")
    def test_log_21(self, rig: Rig[Log], driver: Log) -> None:
        container = self.container(rig)
        planned = driver.plan(container, self.options)
        lines = [f'{number} "ä" \\ <&>\n'.encode() for number in range(100)]
        box = Box(driver, planned)
        box.write_lines("stderr", b"".join(lines), START)
        box.write_lines("stdout", b"last\n", START + SECOND)
        box.close()
        if LogCapability.READ in driver.capabilities():
            wanted: list[Piece] = [("stderr", line, START, False) for line in lines]
            wanted.append(("stdout", b"last\n", START + SECOND, False))
            _same(self.read(driver, container, planned), wanted, "of lines that were read at once")

    @rule("A reader that gives runs gives the same entries by them.", methods="open_reader", capability="read")
    def test_log_22(self, rig: Rig[Log], driver: Log) -> None:
        container = self.container(rig)
        planned = driver.plan(container, self.options)
        wanted: list[Piece] = []
        box = Box(driver, planned)
        for number in range(11):
            stream: Stream = "stderr" if number % 2 else "stdout"
            lines = [b"%d\n" % line for line in range(number + 1)]
            box.write_lines(stream, b"".join(lines), START + number)
            wanted += [(stream, line, START + number, False) for line in lines]
        box.write(pieces(20))
        box.close()
        wanted += pieces(20)
        for query, meant in ((LogQuery(), wanted), (LogQuery(tail=30), wanted[-30:])):
            reader = driver.open_reader(container, planned, query)
            if isinstance(reader, RunReader):
                found: list[LogEntry] = []
                while runs := reader.read_runs():
                    found += [
                        LogEntry(stream=run.stream, data=data, time_ns=run.time_ns)
                        for run in runs
                        for data in run.entries()
                    ]
                _same(found, meant, f"by runs, tail={query.tail}")
            reader.close()


def _same(found: Sequence[LogEntry], wanted: Sequence[Piece], where: str = "") -> None:
    told = [(entry.stream, entry.data, entry.time_ns) for entry in found]
    meant = [(stream, data, time_ns) for stream, data, time_ns, _ in wanted]
    if told != meant:
        first = next(
            (index for index, (one, two) in enumerate(zip(told, meant, strict=False)) if one != two),
            min(len(told), len(meant)),
        )
        raise Violation(
            f"{where or 'of what was written'}: {len(told)} entries were read, {len(meant)} wanted; number {first} is "
            f"{told[first] if first < len(told) else 'missing'}, not {meant[first] if first < len(meant) else 'there'}"
        )
