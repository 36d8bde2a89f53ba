"""An authorization driver that keeps every rule: nobody makes privileged containers."""

from __future__ import annotations

import json

from wharfie.kit.authz import api_request
from wharfie.spi.authz import AuthzCapability, AuthzDriver, Decision

CREATE = "/containers/create"
PARAMETERS = {
    "allowed": api_request("GET", "/containers/json"),
    "refused": api_request("POST", CREATE, {"HostConfig": {"Privileged": True}}),
}


class Toy(AuthzDriver):
    name = "toy"
    spi = "1.0"

    def capabilities(self):
        return frozenset({AuthzCapability.RESPONSES})

    def request(self, request):
        return self.judged(request)

    def judged(self, request):
        host = request.body.get("HostConfig") if isinstance(request.body, dict) else None
        if request.path == CREATE and isinstance(host, dict) and host.get("Privileged"):
            return Decision(allow=False, reason="no privileged containers")
        return Decision(allow=True)

    def response(self, request, response):
        return Decision(allow=True)

    # here
