"""The rules of authorization drivers."""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar

from wharfie.kit.contract import Contract
from wharfie.kit.rig import Rig
from wharfie.kit.rules import DOCKER, Group, require, rule, succeeds
from wharfie.spi.authz import ApiRequest, ApiResponse, AuthzCapability, AuthzDriver, Decision

Authz = AuthzDriver


def api_request(method: str, path: str, body: Any = None, *, user: str = "", **parameters: str) -> ApiRequest:
    """A request as the engine hands it over."""
    raw = b"" if body is None else json.dumps(body).encode()
    return ApiRequest(
        user=user,
        authentication="TLS" if user else "",
        method=method,
        path=path,
        parameters=parameters,
        body=body,
        raw_body=raw,
    )


class AuthzContract(Contract[AuthzDriver]):
    """`allowed` and `refused`: requests that the driver, with these settings, must allow and refuse."""

    kind: ClassVar[str] = "authz"
    abilities: ClassVar[Any] = {AuthzCapability.RESPONSES: ("response",)}

    allowed: ClassVar[ApiRequest | None] = None
    refused: ClassVar[ApiRequest | None] = None

    REQUESTS: ClassVar[tuple[ApiRequest, ...]] = (
        api_request("GET", "/_ping"),
        api_request("GET", "/containers/json", user="", all="1"),
        api_request("POST", "/containers/create", {"Image": "busybox", "HostConfig": {"Privileged": True}}, user="ann"),
        api_request("POST", "/containers/create", {}, user="bob"),
        api_request("POST", "/containers/create", {"Image": None, "HostConfig": None, "Cmd": [], "Labels": {"ä": "ö"}}),
        api_request("POST", "/containers/create", {"HostConfig": {"Binds": ["/:/host", 3, None, {}], "Mounts": "none"}}),
        api_request("POST", "/containers/create", [1, "two", None]),
        api_request("POST", "/volumes/create", {"Name": "x" * 2**20}),
        api_request("DELETE", "/containers/" + "f" * 64, force="1", v="1"),
        api_request("POST", "/kit/no/such/path", {"deep": {"deep": {"deep": [[[[{}]]]]}}}),
    )

    def _decide(self, driver: Authz, request: ApiRequest) -> Decision:
        decision = driver.request(request)
        require(isinstance(decision.allow, bool), f"allow is {decision.allow!r}, neither True nor False")
        require(isinstance(decision.reason, str), f"reason is {decision.reason!r}, no text")
        return decision

    def _decided(self, driver: Authz) -> list[bool | None]:
        """What becomes of the requests; None for one that raised, which is AUT-01's business."""
        found: list[bool | None] = []
        for request in self.REQUESTS:
            try:
                found.append(driver.request(request).allow)
            except Exception:  # noqa: BLE001 - as above
                found.append(None)
        return found

    def life(self, rig: Rig[Authz], driver: Authz, number: int) -> None:
        for request in self.REQUESTS:
            first = self._decide(driver, request)
            require(
                self._decide(driver, request).allow == first.allow, f"{request.method} {request.path} was decided both ways"
            )

    def shared(self, rig: Rig[Authz], driver: Authz) -> Callable[[], None]:
        return lambda: self.life(rig, driver, 0)

    def share(self, rig: Rig[Authz], driver: Authz, number: int) -> None:
        self.life(rig, driver, number)

    @rule("Every request gets a decision, whatever its body is: none raises.", methods="request", source=DOCKER)
    def test_aut_01(self, rig: Rig[Authz], driver: Authz) -> None:
        for request in self.REQUESTS:
            with succeeds(f"{request.method} {request.path[:40]} with the body {request.raw_body[:60]!r}"):
                self._decide(driver, request)

    @rule("A refusal says why.", methods="request", source=DOCKER)
    def test_aut_02(self, rig: Rig[Authz], driver: Authz) -> None:
        for request in (*self.REQUESTS, *([self.refused] if self.refused else [])):
            try:
                decision = driver.request(request)
            except Exception:  # noqa: BLE001 - AUT-01's business
                continue
            require(
                decision.allow or decision.reason.strip(),
                f"{request.method} {request.path[:40]} is refused without a reason",
            )

    @rule("A request that is allowed by the settings is allowed.", methods="request", needs="allowed")
    def test_aut_03(self, rig: Rig[Authz], driver: Authz) -> None:
        assert self.allowed is not None
        decision = self._decide(driver, self.allowed)
        require(decision.allow, f"{self.allowed.method} {self.allowed.path} is refused: {decision.reason}")

    @rule("A request that is forbidden by the settings is refused.", methods="request", needs="refused")
    def test_aut_04(self, rig: Rig[Authz], driver: Authz) -> None:
        assert self.refused is not None
        require(not self._decide(driver, self.refused).allow, f"{self.refused.method} {self.refused.path} is allowed")

    @rule("The same request gets the same decision, also in a new instance.", group=Group.REPETITION, methods="request")
    def test_aut_05(self, rig: Rig[Authz], driver: Authz) -> None:
        first = self._decided(driver)
        driver.close()
        with rig.opened() as second:
            for _ in range(3):
                require(self._decided(second) == first, "a request was decided both ways")

    @rule("A judge does not change what it judges: the handler gets the very object.", methods="request")
    def test_aut_06(self, rig: Rig[Authz], driver: Authz) -> None:
        for request in self.REQUESTS:
            before = copy.deepcopy((request.body, dict(request.parameters)))
            with contextlib.suppress(Exception):  # AUT-01's business
                driver.request(request)
            require((request.body, dict(request.parameters)) == before, f"{request.method} {request.path[:40]} was changed")

    @rule(
        "What is not said in the parsed body does not count: the raw bytes decide nothing.",
        methods="request",
        needs="refused",
    )
    def test_aut_07(self, rig: Rig[Authz], driver: Authz) -> None:
        assert self.refused is not None
        other = replace(self.refused, raw_body=b"{}")
        require(not self._decide(driver, other).allow, "a refused request is allowed when its raw bytes say something else")

    @rule(
        "An answer gets a decision, whatever its status and body are; a refusal says why.",
        methods="response",
        capability="responses",
    )
    def test_aut_08(self, rig: Rig[Authz], driver: Authz) -> None:
        for status, body in ((200, b"{}"), (204, b""), (500, b'{"message": "x"}'), (200, b"\xff\x00" * 1000)):
            with succeeds(f"an answer {status} with the body {body[:20]!r}"):
                decision = driver.response(self.REQUESTS[1], ApiResponse(status=status, body=body))
            require(isinstance(decision.allow, bool), f"allow is {decision.allow!r}")
            require(decision.allow or decision.reason.strip(), "an answer is refused without a reason")

    @rule("A driver that does not judge answers allows them all.", group=Group.CAPABILITIES, methods="response")
    def test_aut_09(self, rig: Rig[Authz], driver: Authz) -> None:
        if AuthzCapability.RESPONSES not in driver.capabilities():
            require(driver.response(self.REQUESTS[0], ApiResponse(status=500)).allow, "an answer was refused")
        else:
            driver.response(self.REQUESTS[0], ApiResponse(status=500))
