"""Pausing, limits and counters."""

from __future__ import annotations

import time

from wharfie.kit.rig import Rig
from wharfie.kit.rules import DOCKER, OCI, require, rule, succeeds
from wharfie.kit.runtime.world import Runtime, RuntimeWorld
from wharfie.spi.runtime import RuntimeCapability


class LimitRules(RuntimeWorld):
    """Pausing, limits and counters."""

    @rule(
        "pause freezes all processes and resume thaws them.",
        methods="pause resume state",
        capability="pause",
        source=DOCKER,
    )
    def test_run_22(self, rig: Rig[Runtime], driver: Runtime) -> None:
        with self.running(driver, "c", "sh", "-c", "while :; do echo x >> /data/ticks; sleep 0.02; done"):
            self.appears("c", "ticks")
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
            # A runtime's own threads may still be there, from before the container's program took their place.
            more = rig.settle(lambda: driver.stats("c")["pids"]["current"] - 1)
            require(more == 0, f"a container of one process has {more + 1}")
            told = driver.stats("c")
            require(told["memory"]["usage"] > 0, "a running container uses no memory")
            require(told["cpu"]["usage_ns"] > 0, "a running container has used no processor time")
