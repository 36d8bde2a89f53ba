"""What is set right at a start, and what is told."""

from __future__ import annotations

import subprocess
from dataclasses import replace

from wharfie.kit import leaks
from wharfie.kit.network.world import Net, NetworkWorld
from wharfie.kit.place import Place, ip
from wharfie.kit.rig import Rig
from wharfie.kit.rules import Group, require, rule, succeeds


class ReconcilingRules(NetworkWorld):
    """What is set right at a start, and what is told."""

    @rule("reconcile removes what is the driver's own and not wanted.", methods="reconcile")
    def test_net_23(self, rig: Rig[Net], driver: Net) -> None:
        place = Place()
        driver.reconcile([], [])
        before = leaks.kernel()
        self.join(driver, self.network(driver, 1), place)
        driver.close()
        with rig.opened() as second:
            with succeeds("reconcile with nothing wanted"):
                second.reconcile([], [])
            require(not (new := leaks.more(before, leaks.kernel())), f"after reconcile with nothing wanted {new}")

    @rule("reconcile leaves the operator's interfaces and firewall alone.", methods="reconcile")
    def test_net_24(self, rig: Rig[Net], driver: Net) -> None:
        foreign = "table inet operators { chain guard { counter drop ; } ; }"
        subprocess.run(["nft", foreign], check=True)
        ip("link", "add", "br-operator", "type", "bridge")
        network = self.network(driver, 1)
        driver.reconcile([network], [])
        driver.reconcile([], [])
        listed = subprocess.run(["nft", "list", "tables"], check=True, capture_output=True, text=True).stdout
        require("inet operators" in listed, "reconcile removed a foreign table of the firewall")
        names = {link["ifname"] for link in ip("link", "show")}
        require({"br-operator", "kit0"} <= names, f"reconcile removed foreign interfaces; there are {sorted(names)}")

    @rule("reconcile leaves what is wanted as it is, and may be repeated.", group=Group.REPETITION, methods="reconcile")
    def test_net_25(self, rig: Rig[Net], driver: Net) -> None:
        with self.joined(driver) as (network, joined, place):
            before = leaks.kernel()
            with rig.opened() as second:
                for _ in range(3):
                    faults = second.reconcile([network], [joined])
                    require(not faults, f"reconcile finds faults in what is well: {list(faults)}")
                self.verify(second, place, joined)
            require(not (new := leaks.more(before, leaks.kernel())), f"after reconcile {new}")

    @rule(
        "reconcile makes what is gone again, as after a reboot or a flushed firewall.",
        group=Group.ORDER,
        methods="reconcile",
    )
    def test_net_26(self, rig: Rig[Net], driver: Net) -> None:
        before = {link["ifname"] for link in ip("link", "show")}
        place, network = Place(), self.network(driver, 1)
        joined = self.join(driver, network, place)
        for link in {link["ifname"] for link in ip("link", "show")} - before:
            subprocess.run(["ip", "link", "delete", link], check=False, capture_output=True)
        subprocess.run(["nft", "flush", "ruleset"], check=True)
        faults = driver.reconcile([network], [joined])
        require(not faults, f"reconcile finds faults: {list(faults)}")
        self.verify(driver, place, joined)
        with succeeds("join after reconcile made the network again"):
            self.verify(driver, place := Place(), self.join(driver, network, place, 2))

    @rule("reconcile does not fail for one endpoint whose sandbox is gone, and serves the others.", methods="reconcile")
    def test_net_27(self, rig: Rig[Net], driver: Net) -> None:
        network, places = self.network(driver, 1), [Place(), Place()]
        both = [self.join(driver, network, place, number) for number, place in enumerate(places)]
        places[0].close()
        with succeeds("reconcile with an endpoint whose sandbox is gone"):
            faults = driver.reconcile([network], both)
        require({fault.object for fault in faults} <= {both[0].endpoint.id}, f"reconcile reports {list(faults)}")
        self.verify(driver, places[1], both[1])

    @rule("describe gives texts, for a joined endpoint and for one without a sandbox.", methods="describe")
    def test_net_28(self, rig: Rig[Net], driver: Net) -> None:
        with self.joined(driver) as (network, joined, _):
            for one in (joined, replace(joined, sandbox=None)):
                for key, value in driver.describe(network, one).items():
                    require(isinstance(key, str) and isinstance(value, str), f"describe has {key!r}: {value!r}")
