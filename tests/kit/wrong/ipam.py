"""Wrong IPAM drivers."""

from __future__ import annotations

from tests.kit.mutants import override

WRONG = (
    override(
        "IPA-01",
        """
        asked = False

        def request_address(self, pool_id, wanted, options):
            self.asked = True
            return super().request_address(pool_id, wanted, options)

        def request_pool(self, request):
            first = next(iter(self._held.values()), None)
            lease = super().request_pool(request)
            if first is None or self.asked or threading.current_thread() is not threading.main_thread():
                return lease
            return replace(lease, subnet=first.pool.subnet) if request.subnet else lease
        """,
    ),
    override("IPA-02", "def request_pool(self, request):\n    return super().request_pool(replace(request, avoid=()))\n"),
    override(
        "IPA-03",
        """
        def request_pool(self, request):
            try:
                return super().request_pool(request)
            except Forbidden:
                if request.subnet.prefixlen == 24:
                    raise
                held = list(self._held.items())
                self._held.clear()
                lease = super().request_pool(request)
                self._held.update(held)
                return lease
        """,
    ),
    override(
        "IPA-04",
        """
        def request_address(self, pool_id, wanted, options):
            self.count = getattr(self, "count", 0) + 1
            lease = super().request_address(pool_id, wanted, options)
            return AddressLease(interface=ip_interface(f"{lease.interface.ip}/32")) if self.count % 50 == 0 else lease
        """,
    ),
    override(
        "IPA-05",
        """
        def request_address(self, pool_id, wanted, options):
            lease = super().request_address(pool_id, wanted, options)
            return super().request_address(pool_id, None, options) if str(wanted) == "10.101.0.77" else lease
        """,
    ),
    override(
        "IPA-06",
        """
        def request_address(self, pool_id, wanted, options):
            try:
                return super().request_address(pool_id, wanted, options)
            except Conflict:
                if str(wanted) != "10.101.0.77":
                    raise
                super().release_address(pool_id, wanted)
                return super().request_address(pool_id, wanted, options)
        """,
    ),
    override(
        "IPA-07",
        """
        def request_address(self, pool_id, wanted, options):
            try:
                return super().request_address(pool_id, wanted, options)
            except InvalidArgument:
                raise Conflict("not mine") from None
        """,
    ),
    override(
        "IPA-08",
        """
        def request_address(self, pool_id, wanted, options):
            if pool_id not in self._held:
                raise DriverError("no such pool")
            return super().request_address(pool_id, wanted, options)
        """,
    ),
    override(
        "IPA-09",
        """
        def request_address(self, pool_id, wanted, options):
            return super().request_address(pool_id, wanted, {})

        def request_pool(self, request):
            lease = super().request_pool(request)
            if request.ip_range is None and request.subnet and request.subnet.prefixlen == 24:
                super().request_address(lease.id, lease.subnet[1], {})
            return lease
        """,
    ),
    override(
        "IPA-10", "def request_pool(self, request):\n    return super().request_pool(replace(request, ip_range=None))\n"
    ),
    override(
        "IPA-11",
        """
        def request_address(self, pool_id, wanted, options):
            try:
                return super().request_address(pool_id, wanted, options)
            except OutOfSpace:
                raise Conflict("full") from None
        """,
    ),
    override(
        "IPA-12",
        """
        def release_address(self, pool_id, address):
            if pool_id not in self._held:
                raise NotFound("no such pool")
            super().release_address(pool_id, address)
        """,
    ),
    override(
        "IPA-13",
        """
        def release_pool(self, pool_id):
            if pool_id not in self._held:
                raise NotFound("no such pool")
            super().release_pool(pool_id)
        """,
    ),
    override(
        "IPA-14",
        """
        def release_pool(self, pool_id):
            self.old = getattr(self, "old", {})
            if pool_id in self._held and "10.101.0.7" in self.seen:
                self.old[pool_id] = "10.101.0.7"
            super().release_pool(pool_id)

        def request_address(self, pool_id, wanted, options):
            self.seen = {*getattr(self, "seen", ()), str(wanted)}
            if str(wanted) == getattr(self, "old", {}).get(pool_id, ""):
                raise Conflict("taken before")
            return super().request_address(pool_id, wanted, options)

        seen = frozenset()
        """,
    ),
    override(
        "IPA-15",
        """
        def reconcile(self, leases):
            faults = super().reconcile([replace(lease, addresses=()) for lease in leases])
            for lease in leases:
                if len(lease.addresses) == 3 and not hasattr(self, "mine"):
                    continue
                for address in lease.addresses:
                    super().request_address(lease.id, address, {})
            return faults

        def request_pool(self, request):
            self.mine = True
            return super().request_pool(request)
        """,
    ),
    override(
        "IPA-16",
        """
        def reconcile(self, leases):
            if not leases:
                return super().reconcile(leases)
            held = dict(self._held)
            faults = super().reconcile(leases)
            self._held = {**held, **self._held}
            return faults
        """,
    ),
    override(
        "IPA-17",
        """
        def reconcile(self, leases):
            self.count = getattr(self, "count", 0) + 1
            if self.count > 3:
                return [Fault(object=lease.id, reason="again") for lease in leases]
            return super().reconcile(leases)
        """,
    ),
    override(
        "IPA-18",
        """
        def request_pool(self, request):
            family = request.subnet.version if request.subnet else request.family
            return super().request_pool(replace(request, family=family))
        """,
    ),
    override(
        "IPA-19",
        """
        def spaces(self):
            return ("local", "local")
        """,
    ),
)
