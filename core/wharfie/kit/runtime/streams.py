"""Output, input, terminals and the log."""

from __future__ import annotations

import json

from wharfie.kit.bundle import Client, unframed
from wharfie.kit.rig import Rig
from wharfie.kit.rules import DOCKER, Group, refused, require, rule, succeeds
from wharfie.kit.runtime.world import SINK, Runtime, RuntimeWorld
from wharfie.spi.errors import Conflict
from wharfie.spi.runtime import AttachRequest, ExitReply, Io, LogTarget


class StreamRules(RuntimeWorld):
    """Output, input, terminals and the log."""

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
