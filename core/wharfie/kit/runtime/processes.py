"""Further processes, and signals."""

from __future__ import annotations

import signal

from wharfie.kit.bundle import Client, process, unframed
from wharfie.kit.rig import Rig
from wharfie.kit.rules import DOCKER, Group, refused, require, rule, succeeds
from wharfie.kit.runtime.world import OUTPUT, Runtime, RuntimeWorld
from wharfie.spi.errors import Conflict, InvalidArgument
from wharfie.spi.runtime import Io


class ProcessRules(RuntimeWorld):
    """Further processes, and signals."""

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
            self.appears("c", "ready")
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
            self.appears("c", "ready")
            driver.exec("c", "e", process("sleep", "600"), Io())
            driver.exec_start("c", "e")
            driver.signal("c", signal.SIGUSR1, everyone=True)
            code = self.ended("c", "e").code
            require(code == 128 + signal.SIGUSR1, f"a signal to everyone did not reach the exec, it ended with {code}")
            self.appears("c", "got")

    @rule("pids are the host's, of all processes in the container.", methods="pids", capability="top", source=DOCKER)
    def test_run_25(self, rig: Rig[Runtime], driver: Runtime) -> None:
        with self.running(driver, "c") as made:
            driver.exec("c", "e", process("sleep", "600"), Io())
            further = driver.exec_start("c", "e")
            found = set(driver.pids("c"))
            require(found == {made.pid, further.pid}, f"of {made.pid} and {further.pid} there are {sorted(found)}")

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
