"""From create to delete: what a container is, and what is left of it."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from pathlib import Path

from wharfie.kit.bundle import alive, configuration, process, write_bundle
from wharfie.kit.rig import Rig
from wharfie.kit.rules import DOCKER, OCI, Group, refused, require, rule, succeeds
from wharfie.kit.runtime.world import Runtime, RuntimeWorld
from wharfie.spi.errors import Conflict, InvalidArgument, NotFound, WharfieError
from wharfie.spi.runtime import CopyUp, Io, Preparation
from wharfie.spi.storage import Mount


class LifeRules(RuntimeWorld):
    """From create to delete: what a container is, and what is left of it."""

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
