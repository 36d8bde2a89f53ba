"""What outlives the daemon, or the processes themselves."""

from __future__ import annotations

from wharfie.kit.bundle import Client, alive, process, unframed
from wharfie.kit.rig import Rig
from wharfie.kit.rules import Group, refused, require, rule
from wharfie.kit.runtime.world import OUTPUT, Runtime, RuntimeWorld
from wharfie.spi.errors import Conflict, NotFound, Unsupported
from wharfie.spi.runtime import Io


class SurvivalRules(RuntimeWorld):
    """What outlives the daemon, or the processes themselves."""

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
            self.appears("c", "count")
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
