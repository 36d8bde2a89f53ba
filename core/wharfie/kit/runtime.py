"""The rules of runtime drivers. Containers are made of a static busybox (Debian: busybox-static); without one they are not
tried."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from wharfie.kit.bundle import Client, alive, configuration, make_image, process, unframed, write_bundle
from wharfie.kit.contract import Contract
from wharfie.kit.crash import Operation
from wharfie.kit.rig import Rig
from wharfie.kit.rules import DOCKER, OCI, Group, refused, require, rule, succeeds
from wharfie.shim.cgroups import roots
from wharfie.spi.errors import Conflict, InvalidArgument, NotFound, Unsupported, WharfieError
from wharfie.spi.runtime import (
    AttachRequest,
    CopyUp,
    ExecExited,
    Exit,
    Exited,
    ExitReply,
    Io,
    LogTarget,
    Preparation,
    Process,
    RuntimeCapability,
    RuntimeDriver,
)
from wharfie.spi.storage import Mount

Runtime = RuntimeDriver
SINK = "wharfie.kit.filesink:FileSink"
OUTPUT = AttachRequest(stdout=True, stderr=True)


class RuntimeContract(Contract[RuntimeDriver]):
    """Every container's control group is in `PARENT`."""

    kind: ClassVar[str] = "runtime"
    needs_root: ClassVar[bool] = True
    sample: ClassVar[int] = 3  # a container for each
    abilities: ClassVar[Any] = {
        RuntimeCapability.PAUSE: ("pause", "resume"),
        RuntimeCapability.UPDATE: ("update",),
        RuntimeCapability.STATS: ("stats",),
        RuntimeCapability.TOP: ("pids",),
        RuntimeCapability.CHECKPOINT: ("checkpoint", "restore"),
    }

    PARENT: ClassVar[str] = f"wharfie-kit-{os.getpid()}"

    def world(self, rig: Rig[Runtime]) -> None:
        self._rig = rig
        self._image = make_image(rig.scratch / "image")
        rig.folder.chmod(0o755)
        rig.scratch.chmod(0o755)

    def mark(self) -> str:
        return f"/{self.PARENT}/"

    @classmethod
    def tidy(cls) -> None:
        """The room's end was the end of its processes, their groups stay when a rule failed half-way."""
        for root in roots():
            parent = Path(root, cls.PARENT)
            for folder, _, _ in os.walk(parent, topdown=False):
                with contextlib.suppress(OSError):
                    Path(folder).rmdir()

    def create(
        self,
        driver: Runtime,
        id: str,
        *words: str,
        io: Io | None = None,
        preparation: Preparation | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Process:
        """A container that executes `words`, in a bundle of its own; a bundle that is there is taken again."""
        io = io or Io()
        bundle = self.bundle(id)
        if not bundle.exists():
            config = configuration(words, f"/{self.PARENT}/{self._rig.instance}-{id}", terminal=io.terminal, env=env)
            write_bundle(bundle, config, self._image)
        root = (Mount(type="bind", source=str(bundle / "root"), options=("bind",)),)
        return driver.create(id, bundle, root, io, preparation or Preparation())

    def bundle(self, id: str) -> Path:
        return self._rig.scratch / f"bundle-{id}"

    @contextmanager
    def running(self, driver: Runtime, id: str, *words: str, **how: Any) -> Iterator[Process]:
        made = self.create(driver, id, *(words or ("sleep", "600")), **how)
        driver.start(id)
        try:
            yield made
        finally:
            driver.delete(id, force=True)

    def ended(self, id: str, exec_id: str = "", *, seconds: float = 8) -> Exit:
        """The exit that the driver told of, waiting for it."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for event in list(self._rig.events):
                if exec_id and isinstance(event, ExecExited) and (event.id, event.exec_id) == (id, exec_id):
                    return event.exit
                if not exec_id and isinstance(event, Exited) and event.id == id:
                    return event.exit
            time.sleep(0.01)
        require(False, f"no event tells of the end of {id} {exec_id}")
        raise AssertionError

    def ran(self, driver: Runtime, id: str, *words: str, **how: Any) -> tuple[int, dict[int, bytes]]:
        """A container from its making to its end, deleted: exit code, output by stream."""
        self.create(driver, id, *words, **how)
        client = Client()
        driver.attach(id, "", client.theirs, OUTPUT)
        client.theirs.close()
        driver.start(id)
        data = client.all()
        code = self.ended(id).code
        client.close()
        driver.delete(id)
        return code, unframed(data)

    def life(self, rig: Rig[Runtime], driver: Runtime, number: int) -> None:
        name = f"life-{number}-{time.monotonic_ns()}"
        config = configuration(["sh", "-c", "echo out; exit 3"], f"/{self.PARENT}/{rig.instance}-{name}")
        bundle = write_bundle(rig.scratch / f"bundle-{name}", config, self._image)
        root = (Mount(type="bind", source=str(bundle / "root"), options=("bind",)),)
        made = driver.create(name, bundle, root, Io(), Preparation())
        require(made.pid > 0 and alive(made.pid), f"create returned the process {made.pid}, which is not there")
        require(name in {state.id for state in driver.containers()}, "a container is not among the containers")
        driver.start(name)
        rig.settle(lambda: driver.state(name).status != "stopped", seconds=15)
        found = driver.state(name).exit
        require(found is not None and found.code == 3, f"a container that exits with 3 has the exit {found}")
        driver.delete(name)

    def shared(self, rig: Rig[Runtime], driver: Runtime) -> Callable[[], None]:
        self._shared = f"both-{time.monotonic_ns()}"
        self.create(driver, self._shared, "sleep", "600")
        driver.start(self._shared)

        def finish() -> None:
            driver.delete(self._shared, force=True)
            require(self._shared not in {state.id for state in driver.containers()}, "a deleted container is still there")

        return finish

    def share(self, rig: Rig[Runtime], driver: Runtime, number: int) -> None:
        driver.delete(self._shared, force=True)

    def operations(self, rig: Rig[Runtime]) -> Sequence[Operation[Runtime]]:
        def make(driver: Runtime, memo: object = None) -> None:
            self.create(driver, "c", "sleep", "600")

        def started(driver: Runtime) -> None:
            make(driver)
            driver.start("c")

        def repair(driver: Runtime, memo: object) -> None:
            for state in driver.containers():
                with contextlib.suppress(NotFound):  # what the killed daemon asked for last may go on
                    driver.state(state.id)

        def clear(driver: Runtime, memo: object) -> None:
            driver.delete("c", force=True)

        def make_again(driver: Runtime, memo: object) -> None:
            try:
                make(driver)
            except Conflict:  # made, and not acknowledged: the core deletes it and makes it anew
                driver.delete("c", force=True)
                make(driver)

        def start_again(driver: Runtime, memo: object) -> None:
            try:
                driver.start("c")
            except Conflict:  # started, and not acknowledged
                pass

        def lives(status: str) -> Callable[[Runtime, object], None]:
            def look(driver: Runtime, memo: object) -> None:
                state = driver.state("c")
                require(state.status == status and alive(state.pid), f"the container is {state}, not {status}")

            return look

        def gone(driver: Runtime, memo: object) -> None:
            require(not driver.containers(), f"a deleted container is still there: {list(driver.containers())}")

        def nothing(driver: Runtime) -> None:
            pass

        return (
            Operation(name="create", before=nothing, run=make_again, repair=repair, verify=lives("created"), undo=clear),
            Operation(name="start", before=make, run=start_again, repair=repair, verify=lives("running"), undo=clear),
            Operation(name="delete", before=started, run=clear, repair=repair, verify=gone, undo=clear),
        )

    @rule(
        "create ends before the process is executed: namespaces are there, state is created.",
        methods="create state",
        source=OCI,
    )
    def test_run_01(self, rig: Rig[Runtime], driver: Runtime) -> None:
        made = self.create(driver, "c", "sh", "-c", "echo > /data/executed")
        state = driver.state("c")
        require(state.status == "created" and state.pid == made.pid, f"after create the state is {state}")
        require(alive(made.pid), "after create there is no process")
        require(not (self.bundle("c") / "root/data/executed").exists(), "the process was executed before start")
        require(made.netns is not None and made.netns.stat().st_ino != Path("/proc/self/ns/net").stat().st_ino, "no netns")
        driver.delete("c", force=True)

    @rule(
        "start executes the process, and its end is an event with the exit code.",
        methods="create start state delete",
        source=OCI,
    )
    def test_run_02(self, rig: Rig[Runtime], driver: Runtime) -> None:
        self.create(driver, "c", "sh", "-c", "echo > /data/executed; exit 7")
        driver.start("c")
        require(self.ended("c").code == 7, "a process that exits with 7 has another exit code")
        state = driver.state("c")
        require(state.status == "stopped" and state.exit is not None and state.exit.code == 7, f"the state is {state}")
        require((self.bundle("c") / "root/data/executed").exists(), "the process did not run in the container's root")
        driver.delete("c")

    @rule("A process that a signal ends has the code 128 and the signal's number.", methods="signal", source=DOCKER)
    def test_run_03(self, rig: Rig[Runtime], driver: Runtime) -> None:
        with self.running(driver, "c"):
            driver.signal("c", signal.SIGKILL)
            require(self.ended("c").code == 137, "a killed process has another exit code than 137")

    @rule("start of a container that is not in state created is Conflict.", group=Group.ORDER, methods="start")
    def test_run_04(self, rig: Rig[Runtime], driver: Runtime) -> None:
        with self.running(driver, "c"), refused(Conflict, "start of a running container"):
            driver.start("c")

    @rule(
        "A missing program is InvalidArgument in Docker's words, and nothing is left.",
        methods="create containers",
        source=DOCKER,
    )
    def test_run_05(self, rig: Rig[Runtime], driver: Runtime) -> None:
        for words, naming in (
            (["nosuch"], "executable file not found in $PATH"),
            (["/bin/nosuch"], "no such file or directory"),
        ):
            with refused(InvalidArgument, f"a container of {words[0]}", naming=naming):
                self.create(driver, f"c{len(words[0])}", *words)
                driver.start(f"c{len(words[0])}")
            driver.delete(f"c{len(words[0])}", force=True)
        require(not driver.containers(), "after a refused create there is a container")

    @rule("A file that may not be executed is InvalidArgument in Docker's words.", methods="create", source=DOCKER)
    def test_run_06(self, rig: Rig[Runtime], driver: Runtime) -> None:
        with refused(InvalidArgument, "a container of a file without the right to execute it", naming="permission denied"):
            self.create(driver, "c", "/etc/text")
            driver.start("c")

    @rule("create of an id that exists is Conflict, and leaves the container alone.", methods="create")
    def test_run_07(self, rig: Rig[Runtime], driver: Runtime) -> None:
        with self.running(driver, "c") as made:
            with refused(Conflict, "create of an id that exists"):
                self.create(driver, "c", "true")
            require(driver.state("c").status == "running" and alive(made.pid), "the refused create ended the container")

    @rule("Calls for a container that is not there are NotFound.", methods="state signal start exec resize")
    def test_run_08(self, rig: Rig[Runtime], driver: Runtime) -> None:
        calls: Mapping[str, Callable[[], object]] = {
            "state": lambda: driver.state("none"),
            "signal": lambda: driver.signal("none", 15),
            "start": lambda: driver.start("none"),
            "exec": lambda: driver.exec("none", "e", process("true"), Io()),
            "resize": lambda: driver.resize("none", "", 24, 80),
        }
        for name, call in calls.items():
            with refused(NotFound, f"{name} for a missing container"):
                call()

    @rule("delete succeeds when the container is not there.", group=Group.REPETITION, methods="delete")
    def test_run_09(self, rig: Rig[Runtime], driver: Runtime) -> None:
        self.ran(driver, "c", "true")
        for name in ("c", "none"):
            for force in (False, True):
                with succeeds("delete of a container that is not there"):
                    driver.delete(name, force=force)

    @rule("delete of a running container is Conflict without force, and ends it with force.", methods="delete", source=OCI)
    def test_run_10(self, rig: Rig[Runtime], driver: Runtime) -> None:
        made = self.create(driver, "c", "sleep", "600")
        driver.start("c")
        with refused(Conflict, "delete of a running container"):
            driver.delete("c")
        require(alive(made.pid), "the refused delete ended the container")
        driver.delete("c", force=True)
        require(not alive(made.pid), "after delete with force the process goes on")
        with refused(NotFound, "state of a deleted container"):
            driver.state("c")

    @rule("containers lists all that are there, each with its state.", methods="containers")
    def test_run_11(self, rig: Rig[Runtime], driver: Runtime) -> None:
        self.create(driver, "made", "true")
        self.create(driver, "over", "true")
        driver.start("over")
        self.ended("over")
        with self.running(driver, "on"):
            found = {state.id: state.status for state in driver.containers()}
            require(found == {"made": "created", "over": "stopped", "on": "running"}, f"containers are {found}")
        for name in ("made", "over"):
            driver.delete(name, force=True)

    @rule(
        "An attached client gets all output, framed by streams, and the stream's end with the process's.",
        methods="attach",
        source=DOCKER,
    )
    def test_run_12(self, rig: Rig[Runtime], driver: Runtime) -> None:
        code, output = self.ran(driver, "c", "sh", "-c", "seq 20000; echo err >&2")
        require(code == 0, f"the exit code is {code}")
        wanted = "".join(f"{number}\n" for number in range(1, 20001)).encode()
        require(output.get(1) == wanted, f"of {len(wanted)} bytes of output {len(output.get(1, b''))} came")
        require(output.get(2) == b"err\n", f"the error output is {output.get(2)!r}")

    @rule(
        "What an attached client sends is the process's input; its half-close is the input's end.",
        methods="attach",
        source=DOCKER,
    )
    def test_run_13(self, rig: Rig[Runtime], driver: Runtime) -> None:
        self.create(driver, "c", "cat", io=Io(stdin=True, stdin_once=True))
        client = Client()
        driver.attach("c", "", client.theirs, AttachRequest(stdin=True, stdout=True, initial=b"early "))
        client.theirs.close()
        driver.start("c")
        client.mine.sendall(b"late")
        client.mine.shutdown(1)
        output = unframed(client.all()).get(1)
        require(output == b"early late", f"cat was given 'early late' and gave back {output!r}")
        self.ended("c")
        driver.delete("c")

    @rule("close_stdin ends the input, and may be repeated.", group=Group.REPETITION, methods="close_stdin")
    def test_run_14(self, rig: Rig[Runtime], driver: Runtime) -> None:
        with self.running(driver, "c", "cat", io=Io(stdin=True)):
            for _ in range(2):
                with succeeds("close_stdin"):
                    driver.close_stdin("c", "")
            require(self.ended("c").code == 0, "cat did not end with its input")

    @rule("A terminal has the size that was asked for, and resize changes it.", methods="attach resize", source=DOCKER)
    def test_run_15(self, rig: Rig[Runtime], driver: Runtime) -> None:
        script = "tty >/dev/null || echo none; stty size; read x; stty size"
        self.create(driver, "c", "sh", "-c", script, io=Io(terminal=True, stdin=True, size=(33, 77)))
        client = Client()
        driver.attach("c", "", client.theirs, AttachRequest(stdin=True, stdout=True, framed=False))
        client.theirs.close()
        driver.start("c")
        first = client.until(b"77")
        require(b"33 77" in first, f"a terminal of 33 rows and 77 columns says {first!r}")
        driver.resize("c", "", 44, 99)
        client.mine.sendall(b"\n")
        second = client.all()
        require(b"44 99" in second, f"after resize to 44 rows and 99 columns it says {second!r}")
        self.ended("c")
        driver.delete("c")

    @rule("resize of a container without a terminal is Conflict.", methods="resize")
    def test_run_16(self, rig: Rig[Runtime], driver: Runtime) -> None:
        with self.running(driver, "c"), refused(Conflict, "resize without a terminal"):
            driver.resize("c", "", 24, 80)

    @rule(
        "exec runs a further process in the container; its output is the client's, its end an event.",
        methods="exec exec_start exec_delete attach",
        source=DOCKER,
    )
    def test_run_17(self, rig: Rig[Runtime], driver: Runtime) -> None:
        with self.running(driver, "c"):
            driver.exec("c", "e", process("sh", "-c", "echo out; echo err >&2; exit 5"), Io())
            client = Client()
            driver.attach("c", "e", client.theirs, OUTPUT)
            client.theirs.close()
            made = driver.exec_start("c", "e")
            self.ended("c", "e")
            driver.exec_delete("c", "e")
            output = unframed(client.all())
            require(made.pid > 0, f"exec_start returned the process {made.pid}")
            require(output == {1: b"out\n", 2: b"err\n"}, f"the output of the exec is {output}")
            require(self.ended("c", "e").code == 5, "an exec that exits with 5 has another exit code")
            require(driver.state("c").status == "running", "the end of an exec ended the container")

    @rule(
        "An exec of a missing program is InvalidArgument in Docker's words, and the container goes on.",
        methods="exec exec_start",
        source=DOCKER,
    )
    def test_run_18(self, rig: Rig[Runtime], driver: Runtime) -> None:
        with self.running(driver, "c"):
            with refused(InvalidArgument, "an exec of a missing program", naming="executable file not found in $PATH"):
                driver.exec("c", "e", process("nosuch"), Io())
                driver.exec_start("c", "e")
            require(driver.state("c").status == "running", "a failed exec ended the container")

    @rule("A signal reaches the container's first process, or the exec's.", methods="signal exec exec_start", source=DOCKER)
    def test_run_19(self, rig: Rig[Runtime], driver: Runtime) -> None:
        script = "trap 'exit 9' USR1; echo > /data/ready; while :; do sleep 0.05; done"
        with self.running(driver, "c", "sh", "-c", script):
            self._appears("c", "ready")
            driver.exec("c", "e", process("sleep", "600"), Io())
            driver.exec_start("c", "e")
            driver.signal("c", signal.SIGTERM, exec_id="e")
            require(self.ended("c", "e").code == 143, "SIGTERM to the exec did not end it with 143")
            require(driver.state("c").status == "running", "a signal to the exec ended the container")
            driver.signal("c", signal.SIGUSR1)
            require(self.ended("c").code == 9, "the first process did not get SIGUSR1")

    @rule("A signal to a process that has ended is Conflict.", group=Group.ORDER, methods="signal")
    def test_run_20(self, rig: Rig[Runtime], driver: Runtime) -> None:
        self.create(driver, "c", "true")
        driver.start("c")
        self.ended("c")
        with refused(Conflict, "a signal to a container that has ended"):
            driver.signal("c", signal.SIGTERM)
        driver.delete("c")

    @rule("A signal to everyone reaches all processes of the container.", methods="signal")
    def test_run_21(self, rig: Rig[Runtime], driver: Runtime) -> None:
        script = "trap 'echo > /data/got' USR1; echo > /data/ready; while :; do sleep 0.05; done"
        with self.running(driver, "c", "sh", "-c", script):
            self._appears("c", "ready")
            driver.exec("c", "e", process("sleep", "600"), Io())
            driver.exec_start("c", "e")
            driver.signal("c", signal.SIGUSR1, everyone=True)
            code = self.ended("c", "e").code
            require(code == 128 + signal.SIGUSR1, f"a signal to everyone did not reach the exec, it ended with {code}")
            self._appears("c", "got")

    @rule(
        "pause freezes all processes and resume thaws them.",
        methods="pause resume state",
        capability="pause",
        source=DOCKER,
    )
    def test_run_22(self, rig: Rig[Runtime], driver: Runtime) -> None:
        with self.running(driver, "c", "sh", "-c", "while :; do echo x >> /data/ticks; sleep 0.02; done"):
            self._appears("c", "ticks")
            driver.pause("c")
            require(driver.state("c").status == "paused", f"after pause the state is {driver.state('c')}")
            time.sleep(0.1)
            ticks = self.bundle("c") / "root/data/ticks"
            frozen = ticks.stat().st_size
            time.sleep(0.3)
            require(ticks.stat().st_size == frozen, "a paused container goes on")
            driver.resume("c")
            require(driver.state("c").status == "running", f"after resume the state is {driver.state('c')}")
            grown = rig.settle(lambda: ticks.stat().st_size == frozen)
            require(not grown, "a resumed container does not go on")

    @rule("update changes limits of a running container.", methods="update", capability="update", source=OCI)
    def test_run_23(self, rig: Rig[Runtime], driver: Runtime) -> None:
        with self.running(driver, "c"):
            with succeeds("update of the number of processes"):
                driver.update("c", {"pids": {"limit": 11}})
            if RuntimeCapability.STATS in driver.capabilities():
                told = driver.stats("c")["pids"].get("limit")
                require(told == 11, f"after update to 11 processes the limit is {told}")

    @rule("stats counts processor time, memory and processes.", methods="stats", capability="stats", source=DOCKER)
    def test_run_24(self, rig: Rig[Runtime], driver: Runtime) -> None:
        with self.running(driver, "c"):
            told = driver.stats("c")
            require(told["pids"]["current"] == 1, f"a container of one process has {told['pids']['current']}")
            require(told["memory"]["usage"] > 0, "a running container uses no memory")
            require(told["cpu"]["usage_ns"] > 0, "a running container has used no processor time")

    @rule("pids are the host's, of all processes in the container.", methods="pids", capability="top", source=DOCKER)
    def test_run_25(self, rig: Rig[Runtime], driver: Runtime) -> None:
        with self.running(driver, "c") as made:
            driver.exec("c", "e", process("sleep", "600"), Io())
            further = driver.exec_start("c", "e")
            found = set(driver.pids("c"))
            require(found == {made.pid, further.pid}, f"of {made.pid} and {further.pid} there are {sorted(found)}")

    @rule(
        "A container outlives the daemon: a new instance finds it, and hears of its end.",
        group=Group.ORDER,
        methods="open state",
        capability="survives-daemon",
    )
    def test_run_26(self, rig: Rig[Runtime], driver: Runtime) -> None:
        made = self.create(driver, "c", "sh", "-c", "while ! test -e /data/stop; do sleep 0.02; done; exit 6")
        driver.start("c")
        driver.close()
        require(alive(made.pid), "the container ended with the driver's close")
        with rig.opened() as second:
            state = second.state("c")
            require(state.status == "running" and state.pid == made.pid, f"a new instance finds it as {state}")
            (self.bundle("c") / "root/data/stop").touch()
            require(self.ended("c").code == 6, "a new instance does not hear of the end")
            second.delete("c")

    @rule(
        "An end while no daemon was there is found by containers.",
        group=Group.ORDER,
        methods="containers",
        capability="survives-daemon",
    )
    def test_run_27(self, rig: Rig[Runtime], driver: Runtime) -> None:
        made = self.create(driver, "c", "sh", "-c", "while ! test -e /data/stop; do sleep 0.02; done; exit 6")
        driver.start("c")
        driver.close()
        (self.bundle("c") / "root/data/stop").touch()
        require(not rig.settle(lambda: alive(made.pid)), "the container does not end without a daemon")
        with rig.opened() as second:
            rig.settle(lambda: [state for state in second.containers() if state.status != "stopped"])
            [state] = second.containers()
            require(state.exit is not None and state.exit.code == 6, f"after a restart the container is {state}")
            second.delete("c")

    @rule("All output goes to the log's sink, by streams and in order.", methods="create start")
    def test_run_28(self, rig: Rig[Runtime], driver: Runtime) -> None:
        path = rig.scratch / "log"
        self.ran(
            driver, "c", "sh", "-c", "seq 1000; echo err >&2", io=Io(log=LogTarget(sink=SINK, options={"path": str(path)}))
        )
        found = [json.loads(line) for line in path.read_text().splitlines()]
        out = "".join(entry["data"] for entry in found if entry["stream"] == "stdout")
        require(out == "".join(f"{number}\n" for number in range(1, 1001)), "the log lacks output")
        require(
            [entry["data"] for entry in found if entry["stream"] == "stderr"] == ["err\n"], "the log lacks error output"
        )

    @rule("The process has its configuration's environment, hostname and user.", methods="create start", source=OCI)
    def test_run_29(self, rig: Rig[Runtime], driver: Runtime) -> None:
        script = "echo $KIT; cat /proc/sys/kernel/hostname; id -u; id -G; echo $HOME"
        code, output = self.ran(
            driver, "c", "sh", "-c", script, env={"KIT": "value"}, preparation=Preparation(user="ann", groups=("kit",))
        )
        require(code == 0, f"the exit code is {code}")
        wanted = ["value", "kit", "1000", "1000 50 77", "/home/ann"]
        require(output.get(1, b"").decode().splitlines() == wanted, f"the process has {output.get(1)!r}")

    @rule("The root is mounted in the container's mount namespace alone.", methods="create")
    def test_run_30(self, rig: Rig[Runtime], driver: Runtime) -> None:
        before = Path("/proc/self/mountinfo").read_text().count("\n")
        with self.running(driver, "c"):
            seen = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(self.bundle("c")) in line]
            require(not seen, f"the container's root is mounted on the host: {seen}")
        require(before, "there are no mounts")

    @rule("A copy-up fills an empty folder from the root, and the files asked for exist.", methods="create", source=DOCKER)
    def test_run_31(self, rig: Rig[Runtime], driver: Runtime) -> None:
        target = rig.scratch / "volume"
        target.mkdir()
        wanted = Preparation(copy_up=(CopyUp(destination="/etc", folder=target),), files=("/made/file", "/made/folder/"))
        code, _ = self.ran(driver, "c", "sh", "-c", "test -f /made/file && test -d /made/folder", preparation=wanted)
        require(code == 0, "files that the preparation names do not exist in the root")
        require((target / "passwd").is_file(), "the folder was not filled from the root")

    @rule(
        "A client that waits for the end is answered after delete.",
        methods="notify_exit",
        capability="survives-daemon",
        source=DOCKER,
    )
    def test_run_32(self, rig: Rig[Runtime], driver: Runtime) -> None:
        self.create(driver, "c", "sh", "-c", "exit 4")
        client = Client()
        driver.notify_exit("c", client.theirs, ExitReply(before=b"<", after=b">"))
        client.theirs.close()
        driver.start("c")
        self.ended("c")
        driver.delete("c")
        require(client.all() == b"<4>", "the waiting client was not answered with the exit code")

    @rule("features is the mapping of the runtime-spec, or empty.", methods="features", source=OCI)
    def test_run_33(self, rig: Rig[Runtime], driver: Runtime) -> None:
        told = driver.features()
        require(not told or "ociVersionMin" in told, f"features has no ociVersionMin: {sorted(told)}")

    @rule("A failed create leaves nothing: the id can be used at once.", methods="create containers")
    def test_run_34(self, rig: Rig[Runtime], driver: Runtime) -> None:
        config = configuration(["true"], f"/{self.PARENT}/{rig.instance}-c")
        write_bundle(self.bundle("c"), config, self._image)
        bad = (Mount(type="bind", source=str(rig.scratch / "missing"), options=("bind",)),)
        with refused(WharfieError, "create with a root that cannot be mounted"):
            driver.create("c", self.bundle("c"), bad, Io(), Preparation())
        require(not driver.containers(), "after a failed create there is a container")
        require(self.ran(driver, "c", "true")[0] == 0, "after a failed create the id cannot be used")

    @rule("exec_delete succeeds when the exec is not there.", group=Group.REPETITION, methods="exec_delete")
    def test_run_35(self, rig: Rig[Runtime], driver: Runtime) -> None:
        with self.running(driver, "c"):
            driver.exec("c", "e", process("true"), Io())
            driver.exec_start("c", "e")
            self.ended("c", "e")
            for name in ("e", "e", "none"):
                with succeeds("exec_delete, repeated"):
                    driver.exec_delete("c", name)
        with succeeds("exec_delete in a container that is gone"):
            driver.exec_delete("c", "e")

    @rule(
        "A checkpoint's folder appears whole, then the processes end; restored, they go on where they were, with the "
        "container's own streams. What cannot be done here is Unsupported, and the processes run on.",
        methods="checkpoint restore create attach delete",
        capability="checkpoint",
    )
    def test_run_36(self, rig: Rig[Runtime], driver: Runtime) -> None:
        folder, count = rig.scratch / "checkpoint", self.bundle("c") / "root/data/count"
        turn = "i=$((i+1)); echo $i >> /data/count; test -e /data/end && echo $i && exit 5; sleep 0.1"
        with self.running(driver, "c", "sh", "-c", f"i=0; while :; do {turn}; done") as made:
            self._appears("c", "count")
            try:
                driver.checkpoint("c", folder)
            except Unsupported:
                size = count.stat().st_size
                require(alive(made.pid), "a checkpoint that cannot be made has ended the container")
                require(not rig.settle(lambda: count.stat().st_size == size), "the container stands still after a refusal")
                require(not folder.exists(), "a checkpoint that cannot be made has left a folder")
                return
            require(any(folder.iterdir()), "the checkpoint is an empty folder")
            require(self.ended("c").code == 137, "the end after a checkpoint has another exit code than 137")
        rig.events.clear()
        before = len(count.read_text().split())
        self.create(driver, "c")
        client = Client()
        driver.attach("c", "", client.theirs, OUTPUT)
        client.theirs.close()
        made = driver.restore("c", folder)
        state = driver.state("c")
        require(state.status == "running" and state.pid == made.pid and alive(made.pid), f"a restored container is {state}")
        with refused(Conflict, "start of a restored container"):
            driver.start("c")
        (self.bundle("c") / "root/data/end").touch()
        require(self.ended("c").code == 5, "a restored process that exits with 5 has another exit code")
        lines = count.read_text().split()
        require(len(lines) > before, "the restored process did nothing")
        require(lines == [str(number + 1) for number in range(len(lines))], f"a restored process did not go on: {lines}")
        driver.delete("c")
        require(
            unframed(client.all()) == {1: lines[-1].encode() + b"\n"}, "its output did not come to the container's client"
        )
        client.close()

    @rule(
        "A refused checkpoint leaves the processes running and writes nothing; a refused restore leaves a container that "
        "can be deleted.",
        methods="checkpoint restore delete",
        capability="checkpoint",
    )
    def test_run_37(self, rig: Rig[Runtime], driver: Runtime) -> None:
        taken = rig.scratch / "taken"
        taken.mkdir()
        with self.running(driver, "c") as made:
            with refused(Conflict, "a checkpoint in a folder that exists"):
                driver.checkpoint("c", taken)
            driver.exec("c", "e", process("sleep", "600"), Io())
            driver.exec_start("c", "e")
            with refused(Conflict, "a checkpoint of a container with a process of an exec"):
                driver.checkpoint("c", rig.scratch / "other")
            require(driver.state("c").status == "running" and alive(made.pid), "a refused checkpoint ended the container")
            with refused(Conflict, "restore of a running container"):
                driver.restore("c", taken)
        require(not list(taken.iterdir()) and not (rig.scratch / "other").exists(), "a refused checkpoint wrote something")
        self.create(driver, "d", "sleep", "600")
        with refused(Conflict, "a checkpoint of a container that was not started"):
            driver.checkpoint("d", rig.scratch / "other")
        with refused(NotFound, "restore of a checkpoint that is not there"):
            driver.restore("d", rig.scratch / "none")
        driver.delete("d", force=True)
        with refused(NotFound, "a checkpoint of a container that is not there"):
            driver.checkpoint("none", rig.scratch / "other")

    def _appears(self, id: str, name: str) -> None:
        path = self.bundle(id) / "root/data" / name
        require(not self._rig.settle(lambda: not path.exists()), f"the container's process does not run: {name} is missing")
