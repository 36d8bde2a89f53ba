"""Wrong network drivers."""

from __future__ import annotations

from tests.kit.mutants import override


def joining(rule, body, *, also=""):
    """Something done after a join, with `path` of the sandbox and `made` at hand."""
    head = "def join(self, network, endpoint, sandbox):\n    made = super().join(network, endpoint, sandbox)\n"
    head += "    path = sandbox.path\n"
    return override(
        rule, head + "".join(f"    {line}\n" for line in body.strip().splitlines()) + "    return made\n", also=also
    )


WRONG = (
    override("NET-01", 'def plan(self, draft):\n    return replace(super().plan(draft), labels={"planned": "yes"})\n'),
    override(
        "NET-02",
        """
        def plan(self, draft):
            ip("link", "add", "br-plan", "type", "bridge")
            return super().plan(draft)
        """,
        also="NET-23",
    ),
    override(
        "NET-03",
        """
        def plan(self, draft):
            return super().plan(replace(draft, options={key: one for key, one in draft.options.items() if one != "wide"}))
        """,
    ),
    override(
        "NET-04",
        """
        def plan(self, draft):
            made = super().plan(draft)
            return replace(made, options={**made.options, "again": "yes"} if len(draft.options) else made.options)
        """,
    ),
    override(
        "NET-05",
        """
        def create_network(self, network):
            if network.id in self.made:
                raise Conflict("it is there")
            self.made.add(network.id)
            super().create_network(network)

        made = set()
        """,
    ),
    override(
        "NET-06",
        """
        def delete_network(self, network):
            if not ip("link", "show", network.options["com.docker.network.bridge.name"]).stdout:
                raise NotFound("no such network")
            super().delete_network(network)
        """,
    ),
    joining(
        "NET-07",
        'ip("address", "add", "10.9.9.9/24", "dev", made.interface, path=path)',
        also="NET-11 NET-18 NET-25 NET-26 NET-27",
    ),
    joining("NET-08", 'made = replace(made, mac="02:00:00:00:00:01")'),
    joining(
        "NET-09",
        'ip("route", "del", "default", path=path)',
        also="NET-11 NET-19",
    ),
    joining(
        "NET-10",
        'if not endpoint.default_route4 and not getattr(self, "seen", False):\n'
        '    ip("route", "add", "default", "via", "10.77.1.1", path=path)\n'
        "self.seen = True",
    ),
    joining(
        "NET-11",
        'if not endpoint.default_route4 and getattr(self, "seen", False) and made.interface == "eth0":\n'
        '    ip("route", "add", "default", "via", "10.77.1.1", path=path)\n'
        "self.seen = True",
    ),
    joining(
        "NET-12",
        'self.count = getattr(self, "count", 0) + 1\nmade = replace(made, data={"count": str(self.count)})',
    ),
    override(
        "NET-13",
        """
        def join(self, network, endpoint, sandbox):
            try:
                return super().join(network, endpoint, sandbox)
            except NotFound:
                raise Conflict("the sandbox is gone") from None
        """,
    ),
    override(
        "NET-14",
        """
        def join(self, network, endpoint, sandbox):
            try:
                return super().join(network, endpoint, sandbox)
            except WharfieError:
                ip("link", "add", "br-left", "type", "bridge")
                raise
        """,
        also="NET-13",
    ),
    override(
        "NET-15",
        """
        def leave(self, network, joined):
            if joined.sandbox is not None and not getattr(self, "left", False):
                self.left = True
                return
            super().leave(network, joined)
        """,
    ),
    override(
        "NET-16",
        """
        def leave(self, network, joined):
            if joined.sandbox is None or joined.endpoint.id in self.gone:
                raise NotFound("it is out")
            super().leave(network, joined)
            self.gone.add(joined.endpoint.id)

        gone = set()
        """,
    ),
    override(
        "NET-17",
        """
        def create_network(self, network):
            given = {**network.options, "com.docker.network.bridge.enable_icc": "false"}
            super().create_network(replace(network, options=given))
        """,
        also="NET-25",
    ),
    joining(
        "NET-18",
        'if made.interface == "eth1":\n    ip("link", "set", "eth0", "down", path=path)',
    ),
    override("NET-19", "def publish(self, network, joined):\n    super().publish(network, replace(joined, ports=()))\n"),
    override(
        "NET-20",
        """
        def publish(self, network, joined):
            if joined.endpoint.id in self.published:
                raise Conflict("published already")
            self.published.add(joined.endpoint.id)
            super().publish(network, joined)

        published = set()
        """,
    ),
    override("NET-21", "def unpublish(self, network, joined):\n    pass\n"),
    override(
        "NET-22",
        """
        def unpublish(self, network, joined):
            if joined.endpoint.id not in self.published:
                raise NotFound("not published")
            super().unpublish(network, joined)

        def publish(self, network, joined):
            self.published.add(joined.endpoint.id)
            super().publish(network, joined)

        published = set()
        """,
    ),
    override(
        "NET-23",
        """
        def reconcile(self, networks, joined):
            return super().reconcile(networks, joined) if networks else []
        """,
    ),
    override(
        "NET-24",
        """
        def reconcile(self, networks, joined):
            ip("link", "delete", "br-operator")
            return super().reconcile(networks, joined)
        """,
    ),
    override(
        "NET-25",
        """
        def reconcile(self, networks, joined):
            self.count = getattr(self, "count", 0) + 1
            if self.count == 3 and joined:
                return [Fault(object=joined[0].endpoint.id, reason="again")]
            return super().reconcile(networks, joined)
        """,
    ),
    override(
        "NET-26",
        """
        def reconcile(self, networks, joined):
            if not joined or self.there(networks[0]):
                return super().reconcile(networks, joined)
            return []

        def there(self, network):
            return ip("link", "show", network.options["com.docker.network.bridge.name"]).stdout
        """,
    ),
    override(
        "NET-27",
        """
        def reconcile(self, networks, joined):
            for one in joined:
                os.stat(one.sandbox.path)
            return super().reconcile(networks, joined)
        """,
    ),
    override(
        "NET-29",
        """
        def publish(self, network, joined):
            kept = tuple(port for port in joined.ports if not port.relayed)
            super().publish(network, replace(joined, ports=kept))
        """,
    ),
    override("NET-28", 'def describe(self, network, joined):\n    return {"Ports": len(joined.ports)}\n'),
)
