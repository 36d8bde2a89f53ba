"""The rules of IPAM drivers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from ipaddress import ip_network
from typing import ClassVar

from wharfie.kit.contract import Contract
from wharfie.kit.crash import Operation
from wharfie.kit.rig import Rig
from wharfie.kit.rules import DOCKER, Group, NotOffered, refused, require, rule, succeeds
from wharfie.spi.errors import Conflict, Forbidden, InvalidArgument, NotFound, OutOfSpace
from wharfie.spi.ipam import GATEWAY_REQUEST, Address, IpamDriver, PoolLease, PoolRequest, Subnet

Ipam = IpamDriver


class IpamContract(Contract[IpamDriver]):
    """`subnets`: where the tests' pools are, each a /24 that the driver accepts. `chooses`: it finds subnets by itself."""

    kind: ClassVar[str] = "ipam"

    subnets: ClassVar[str] = "10.{number}.0.0/24"
    chooses: ClassVar[bool] = True

    def subnet(self, number: int) -> Subnet:
        return ip_network(self.subnets.format(number=100 + number))

    def part(self, prefix: int, index: int = 0) -> Subnet:
        """A part of the first subnet."""
        parts: list[Subnet] = list(self.subnet(1).subnets(new_prefix=prefix))
        return parts[index]

    def pool(self, driver: Ipam, number: int) -> PoolLease:
        return driver.request_pool(PoolRequest(subnet=self.subnet(number)))

    def life(self, rig: Rig[Ipam], driver: Ipam, number: int) -> None:
        lease = self.pool(driver, number)
        taken = [driver.request_address(lease.id, None, {}).interface for _ in range(20)]
        require(len(set(taken)) == 20, "an address was handed out twice")
        require(all(one.ip in lease.subnet for one in taken), "an address is not of its pool")
        for one in taken:
            driver.release_address(lease.id, one.ip)
        driver.release_pool(lease.id)

    def shared(self, rig: Rig[Ipam], driver: Ipam) -> Callable[[], None]:
        self._lease = self.pool(driver, 1)
        self._taken: list[Address] = []

        def finish() -> None:
            require(len(set(self._taken)) == len(self._taken), "two callers at a time got the same address")
            for address in self._taken:
                driver.release_address(self._lease.id, address)
            driver.release_pool(self._lease.id)

        return finish

    def share(self, rig: Rig[Ipam], driver: Ipam, number: int) -> None:
        for _ in range(50):
            self._taken.append(driver.request_address(self._lease.id, None, {}).interface.ip)

    def operations(self, rig: Rig[Ipam]) -> Sequence[Operation[Ipam]]:
        subnet = self.subnet(1)

        def held(driver: Ipam) -> PoolLease:
            lease = self.pool(driver, 1)
            return replace(lease, addresses=(driver.request_address(lease.id, subnet[9], {}).interface.ip,))

        def nothing(driver: Ipam, memo: object) -> None:
            driver.reconcile([])

        def hold(driver: Ipam, lease: PoolLease) -> None:
            require(not (faults := driver.reconcile([lease])), f"reconcile finds faults: {list(faults)}")

        def one_more(driver: Ipam, lease: PoolLease) -> None:
            driver.release_address(lease.id, subnet[10])
            driver.request_address(lease.id, subnet[10], {})

        def free(driver: Ipam, lease: PoolLease) -> None:
            driver.release_pool(lease.id)
            self.pool(driver, 1)

        def take_back(driver: Ipam, memo: PoolLease | None) -> None:
            if memo:
                driver.release_address(memo.id, subnet[10])
                driver.release_pool(memo.id)
            driver.reconcile([])

        return (
            Operation(
                name="request_pool",
                before=lambda driver: None,
                run=lambda driver, memo: self.pool(driver, 1),
                repair=nothing,
                verify=lambda driver, memo: driver.reconcile([]),
                undo=take_back,
            ),
            Operation(name="request_address", before=held, run=one_more, repair=hold, verify=hold, undo=take_back),
            Operation(
                name="release_pool",
                before=held,
                run=lambda driver, lease: driver.release_pool(lease.id),
                repair=hold,
                verify=free,
                undo=take_back,
            ),
        )

    @rule("A pool is the subnet that was asked for, with an id of its own.", methods="request_pool")
    def test_ipa_01(self, rig: Rig[Ipam], driver: Ipam) -> None:
        leases = [self.pool(driver, number) for number in (1, 2)]
        for number, lease in enumerate(leases, 1):
            require(lease.subnet == self.subnet(number), f"asked for {self.subnet(number)}, got {lease.subnet}")
        require(leases[0].id and leases[0].id != leases[1].id, "two pools have one id")

    @rule(
        "Without a wish the driver chooses a subnet that overlaps neither a pool in use nor one to avoid.",
        methods="request_pool",
    )
    def test_ipa_02(self, rig: Rig[Ipam], driver: Ipam) -> None:
        if not self.chooses:
            raise NotOffered("it chooses no subnets")
        first = driver.request_pool(PoolRequest())
        second = driver.request_pool(PoolRequest(avoid=(first.subnet,)))
        driver.release_pool(first.id)
        third = driver.request_pool(PoolRequest(avoid=(first.subnet,)))
        for one in (second, third):
            require(not one.subnet.overlaps(first.subnet), f"{one.subnet} overlaps {first.subnet}, which was to be avoided")
        require(not second.subnet.overlaps(third.subnet), f"{third.subnet} overlaps {second.subnet}, which is in use")

    @rule("A subnet that overlaps a pool in use is Forbidden.", methods="request_pool", source=DOCKER)
    def test_ipa_03(self, rig: Rig[Ipam], driver: Ipam) -> None:
        self.pool(driver, 1)
        with refused(Forbidden, "a pool that is in use"):
            self.pool(driver, 1)
        with refused(Forbidden, "a part of a pool that is in use"):
            driver.request_pool(PoolRequest(subnet=self.part(26)))

    @rule(
        "An address comes with its subnet's prefix length, and is neither the network's nor the broadcast one.",
        methods="request_address",
    )
    def test_ipa_04(self, rig: Rig[Ipam], driver: Ipam) -> None:
        lease = self.pool(driver, 1)
        found = [driver.request_address(lease.id, None, {}).interface for _ in range(50)]
        require(len(set(found)) == 50, "an address was handed out twice")
        for one in found:
            require(one.network == lease.subnet, f"{one} is not of {lease.subnet} with its prefix length")
            require(one.ip not in (lease.subnet[0], lease.subnet[-1]), f"{one} is the network's or the broadcast address")

    @rule("A wanted address is given.", methods="request_address")
    def test_ipa_05(self, rig: Rig[Ipam], driver: Ipam) -> None:
        lease = self.pool(driver, 1)
        wanted = self.subnet(1)[77]
        got = driver.request_address(lease.id, wanted, {}).interface.ip
        require(got == wanted, f"asked for {wanted}, got {got}")

    @rule(
        "A wanted address that is taken is Conflict, and stays with its holder.", methods="request_address", source=DOCKER
    )
    def test_ipa_06(self, rig: Rig[Ipam], driver: Ipam) -> None:
        lease = self.pool(driver, 1)
        wanted = self.subnet(1)[77]
        driver.request_address(lease.id, wanted, {})
        for _ in range(2):
            with refused(Conflict, "an address that is taken"):
                driver.request_address(lease.id, wanted, {})

    @rule("A wanted address outside the pool is InvalidArgument.", methods="request_address")
    def test_ipa_07(self, rig: Rig[Ipam], driver: Ipam) -> None:
        lease = self.pool(driver, 1)
        with refused(InvalidArgument, "an address of another subnet"):
            driver.request_address(lease.id, self.subnet(2)[5], {})

    @rule("An address from a pool that is not held is NotFound.", methods="request_address release_pool")
    def test_ipa_08(self, rig: Rig[Ipam], driver: Ipam) -> None:
        lease = self.pool(driver, 1)
        driver.release_pool(lease.id)
        with refused(NotFound, "an address from a released pool"):
            driver.request_address(lease.id, None, {})

    @rule("A request for the gateway gets the subnet's first address.", methods="request_address", source=DOCKER)
    def test_ipa_09(self, rig: Rig[Ipam], driver: Ipam) -> None:
        lease = self.pool(driver, 1)
        got = driver.request_address(lease.id, None, GATEWAY_REQUEST).interface.ip
        require(got == self.subnet(1)[1], f"the gateway's address is {got}, not {self.subnet(1)[1]}")
        require(
            driver.request_address(lease.id, None, {}).interface.ip != got, "the gateway's address was handed out again"
        )

    @rule(
        "With a range, addresses come from it alone; the gateway may be outside.",
        methods="request_pool request_address",
        source=DOCKER,
    )
    def test_ipa_10(self, rig: Rig[Ipam], driver: Ipam) -> None:
        part = self.part(28, 4)
        lease = driver.request_pool(PoolRequest(subnet=self.subnet(1), ip_range=part))
        for _ in range(10):
            got = driver.request_address(lease.id, None, {}).interface.ip
            require(got in part, f"{got} is not in the range {part}")
        driver.request_address(lease.id, self.subnet(1)[1], GATEWAY_REQUEST)

    @rule(
        "A pool without a free address is OutOfSpace; a released address is free again.",
        methods="request_address release_address",
    )
    def test_ipa_11(self, rig: Rig[Ipam], driver: Ipam) -> None:
        subnet = self.part(29)
        lease = driver.request_pool(PoolRequest(subnet=subnet))
        got = []
        with refused(OutOfSpace, f"the {subnet.num_addresses}th address of {subnet}"):
            for _ in range(subnet.num_addresses):
                got.append(driver.request_address(lease.id, None, {}).interface.ip)
        require(len(got) == subnet.num_addresses - 2, f"{subnet} gave {len(got)} addresses")
        driver.release_address(lease.id, got[2])
        again = driver.request_address(lease.id, None, {}).interface.ip
        require(again == got[2], f"of {subnet} only {got[2]} is free, {again} was handed out")

    @rule(
        "release_address succeeds when the address is not taken, and when the pool is gone.",
        group=Group.REPETITION,
        methods="release_address",
    )
    def test_ipa_12(self, rig: Rig[Ipam], driver: Ipam) -> None:
        lease = self.pool(driver, 1)
        address = driver.request_address(lease.id, None, {}).interface.ip
        for _ in range(3):
            with succeeds("release_address, repeated"):
                driver.release_address(lease.id, address)
        driver.release_pool(lease.id)
        with succeeds("release_address of a pool that is gone"):
            driver.release_address(lease.id, address)

    @rule(
        "release_pool succeeds when the pool is not held; its subnet is free then.",
        group=Group.REPETITION,
        methods="release_pool request_pool",
    )
    def test_ipa_13(self, rig: Rig[Ipam], driver: Ipam) -> None:
        lease = self.pool(driver, 1)
        for _ in range(3):
            with succeeds("release_pool, repeated"):
                driver.release_pool(lease.id)
        with succeeds("request_pool of a released subnet"):
            self.pool(driver, 1)

    @rule(
        "A pool that was released and taken again has all its addresses.",
        group=Group.ORDER,
        methods="release_pool request_address",
    )
    def test_ipa_14(self, rig: Rig[Ipam], driver: Ipam) -> None:
        address = self.subnet(1)[7]
        for _ in range(2):
            lease = self.pool(driver, 1)
            with succeeds("an address of a pool that is new"):
                driver.request_address(lease.id, address, {})
            driver.release_pool(lease.id)

    @rule(
        "After a restart reconcile brings the leases back: pools and addresses are taken.",
        group=Group.ORDER,
        methods="reconcile request_pool request_address",
    )
    def test_ipa_15(self, rig: Rig[Ipam], driver: Ipam) -> None:
        lease = self._held(driver)
        driver.close()
        with rig.opened() as second:
            require(not (faults := second.reconcile([lease])), f"reconcile finds faults: {list(faults)}")
            with refused(Forbidden, "a pool that reconcile brought back"):
                self.pool(second, 1)
            for address in lease.addresses:
                with refused(Conflict, "an address that reconcile brought back"):
                    second.request_address(lease.id, address, {})
            with succeeds("a free address of a pool that reconcile brought back"):
                require(second.request_address(lease.id, None, {}).interface.ip not in lease.addresses, "it is taken")

    @rule("reconcile forgets every other pool and address.", methods="reconcile")
    def test_ipa_16(self, rig: Rig[Ipam], driver: Ipam) -> None:
        lease = self._held(driver)
        driver.request_pool(PoolRequest(subnet=self.subnet(2)))
        extra = driver.request_address(lease.id, self.subnet(1)[99], {}).interface.ip
        driver.reconcile([lease])
        with succeeds("a pool that reconcile was not told of"):
            self.pool(driver, 2)
        with succeeds("an address that reconcile was not told of"):
            driver.request_address(lease.id, extra, {})

    @rule("reconcile may be repeated.", group=Group.REPETITION, methods="reconcile")
    def test_ipa_17(self, rig: Rig[Ipam], driver: Ipam) -> None:
        lease = self._held(driver)
        for _ in range(5):
            require(not (faults := driver.reconcile([lease])), f"reconcile finds faults: {list(faults)}")

    @rule(
        "A request that cannot be is InvalidArgument: an unknown address space, a subnet of the other family.",
        methods="request_pool",
    )
    def test_ipa_18(self, rig: Rig[Ipam], driver: Ipam) -> None:
        with refused(InvalidArgument, "an unknown address space"):
            driver.request_pool(PoolRequest(space="kit-no-such-space", subnet=self.subnet(1)))
        with refused(InvalidArgument, "an IPv4 subnet as an IPv6 one"):
            driver.request_pool(PoolRequest(family=6, subnet=self.subnet(1)))

    @rule("The two address spaces have different names.", methods="spaces", source=DOCKER)
    def test_ipa_19(self, rig: Rig[Ipam], driver: Ipam) -> None:
        spaces = driver.spaces()
        require(len(spaces) == 2 and len(set(spaces)) == 2 and all(spaces), f"spaces returned {spaces!r}")

    def _held(self, driver: Ipam) -> PoolLease:
        lease = self.pool(driver, 1)
        taken = tuple(driver.request_address(lease.id, None, {}).interface.ip for _ in range(3))
        return replace(lease, addresses=taken)
