"""Ports that are published."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from wharfie.kit import leaks
from wharfie.kit.network.world import HOST, Net, NetworkWorld, with_port
from wharfie.kit.rig import Rig
from wharfie.kit.rules import Group, require, rule, succeeds
from wharfie.spi.network import Joined, Network


class PortRules(NetworkWorld):
    """Ports that are published."""

    @rule(
        "A published port of the container is reached from outside, at the host's address and port.",
        methods="publish",
        capability="publish",
    )
    def test_net_19(self, rig: Rig[Net], driver: Net) -> None:
        with self._publishing(driver) as (_, published):
            require(
                self.outside.reaches(HOST, 8080), f"{HOST}:8080, published for the container's port 80, does not answer"
            )
            require(published.ports, "nothing was published")

    @rule("publish may be repeated.", group=Group.REPETITION, methods="publish", capability="publish")
    def test_net_20(self, rig: Rig[Net], driver: Net) -> None:
        with self._publishing(driver) as (network, published):
            before = leaks.kernel()
            for _ in range(3):
                with succeeds("publish, repeated"):
                    driver.publish(network, published)
            require(not (new := leaks.more(before, leaks.kernel())), f"after publish again {new}")

    @rule("After unpublish the port is not reached.", methods="unpublish", capability="publish")
    def test_net_21(self, rig: Rig[Net], driver: Net) -> None:
        with self._publishing(driver) as (network, published):
            driver.unpublish(network, published)
            require(not self.outside.reaches(HOST, 8080), f"{HOST}:8080 answers after unpublish")

    @rule(
        "unpublish succeeds when nothing is published.", group=Group.REPETITION, methods="unpublish", capability="publish"
    )
    def test_net_22(self, rig: Rig[Net], driver: Net) -> None:
        with self.joined(driver) as (network, joined, _):
            for _ in range(3):
                with succeeds("unpublish of what is not published"):
                    driver.unpublish(network, with_port(joined, 8080))

    @rule("A port that the core's proxy serves too is published like any other.", methods="publish", capability="publish")
    def test_net_29(self, rig: Rig[Net], driver: Net) -> None:
        with self.joined(driver) as (network, joined, place):
            place.serve(80)
            published = with_port(joined, 8080)
            relayed = replace(published, ports=tuple(replace(port, relayed=True) for port in published.ports))
            with succeeds("publish of a port that is relayed"):
                driver.publish(network, relayed)
            require(self.outside.reaches(HOST, 8080), f"{HOST}:8080, which the core relays too, does not answer")
            driver.unpublish(network, relayed)

    @contextmanager
    def _publishing(self, driver: Net) -> Iterator[tuple[Network, Joined]]:
        with self.joined(driver) as (network, joined, place):
            place.serve(80)
            published = with_port(joined, 8080)
            driver.publish(network, published)
            yield network, published
            driver.unpublish(network, published)
