"""Networks as they are planned, made and deleted."""

from __future__ import annotations

from dataclasses import replace

from wharfie.kit import leaks
from wharfie.kit.network.world import Net, NetworkWorld
from wharfie.kit.rig import Rig
from wharfie.kit.rules import DOCKER, Group, refused, require, rule, succeeds
from wharfie.spi.errors import InvalidArgument


class PlanRules(NetworkWorld):
    """Networks as they are planned, made and deleted."""

    @rule("plan keeps what the core has chosen: id, name, pools and the options that were given.", methods="plan")
    def test_net_01(self, rig: Rig[Net], driver: Net) -> None:
        draft = self.draft(driver, 1)
        network = driver.plan(draft)
        for field in ("id", "name", "pools", "internal", "default", "labels"):
            require(
                getattr(network, field) == getattr(draft, field), f"plan changed {field} to {getattr(network, field)!r}"
            )
        for option, value in draft.options.items():
            require(network.options.get(option) == value, f"plan changed the option {option}")

    @rule("plan touches nothing, and knows no other network.", methods="plan")
    def test_net_02(self, rig: Rig[Net], driver: Net) -> None:
        before = leaks.kernel(rig.state, rig.run)
        for _ in range(2):
            driver.plan(self.draft(driver, 1))
        require(not (new := leaks.more(before, leaks.kernel(rig.state, rig.run))), f"after plan {new}")

    @rule("plan refuses a bad option as InvalidArgument naming it.", methods="plan", needs="bad_option", source=DOCKER)
    def test_net_03(self, rig: Rig[Net], driver: Net) -> None:
        draft = self.draft(driver, 1)
        [option] = self.bad_option
        with refused(InvalidArgument, "plan with a bad option", naming=option):
            driver.plan(replace(draft, options={**draft.options, **self.bad_option}))

    @rule("A planned network is complete: planned again it is the same.", group=Group.REPETITION, methods="plan")
    def test_net_04(self, rig: Rig[Net], driver: Net) -> None:
        network = driver.plan(self.draft(driver, 1))
        require(driver.plan(network) == network, "plan of a planned network changes it")

    @rule("create_network may be repeated.", group=Group.REPETITION, methods="create_network delete_network")
    def test_net_05(self, rig: Rig[Net], driver: Net) -> None:
        network = self.network(driver, 1)
        before = leaks.kernel()
        for _ in range(10):
            with succeeds("create_network, repeated"):
                driver.create_network(network)
        require(not (new := leaks.more(before, leaks.kernel())), f"after create_network again {new}")
        driver.delete_network(network)

    @rule("delete_network succeeds when the network is not there.", group=Group.REPETITION, methods="delete_network")
    def test_net_06(self, rig: Rig[Net], driver: Net) -> None:
        network = self.network(driver, 1)
        for _ in range(10):
            with succeeds("delete_network, repeated"):
                driver.delete_network(network)
        with succeeds("delete_network of a network that never was"):
            driver.delete_network(self.planned(driver, 2))
