"""Authorization by a legacy AuthZPlugin. It is shown the canonical encoding of what will be executed, in Docker's form."""

from __future__ import annotations

import base64
import json
import ssl
from typing import Any, ClassVar
from urllib.parse import quote, urlencode

from wharfie.spi.authz import ApiRequest, ApiResponse, AuthzCapability, AuthzDriver, Decision
from wharfie.spi.driver import Context
from wharfie_docker_plugins.client import Document, Plugin, Refused

_SECONDS = 4
"""Below the contract's five: no answer is a refusal, and costs no worker."""
_BODY_LIMIT = 4 * 1024 * 1024


class LegacyAuthz(AuthzDriver):
    """No answer, an answer without `Allow` and any error are refusals."""

    spi: ClassVar[str] = "1.0"
    plugin: ClassVar[Plugin]

    def __init__(self, context: Context, settings: Any) -> None:
        """It keeps nothing."""

    def capabilities(self) -> frozenset[AuthzCapability]:
        return frozenset({AuthzCapability.RESPONSES})

    def probe(self) -> None:
        self.plugin.call("Plugin.Activate", seconds=1)

    def request(self, request: ApiRequest) -> Decision:
        document = _request(request)
        if len(document.get("RequestBody", "")) > _BODY_LIMIT * 4 // 3 + 4:
            return Decision(allow=False, reason="the request's body is too large to be judged")
        return self._ask("AuthZReq", document)

    def response(self, request: ApiRequest, response: ApiResponse) -> Decision:
        document = {
            **_request(request),
            "ResponseStatusCode": response.status,
            "ResponseHeaders": dict(response.headers),
            "ResponseBody": base64.b64encode(response.body).decode(),
        }
        return self._ask("AuthZRes", document)

    def _ask(self, method: str, document: Document) -> Decision:
        try:
            answer = self.plugin.call(f"AuthZPlugin.{method}", document, seconds=_SECONDS)
        except Refused as error:  # it answered, so it is no failure of the driver; it is no permission either
            return Decision(allow=False, reason=error.reason)
        allow = answer.get("Allow") is True
        return Decision(allow=allow, reason="" if allow else str(answer.get("Msg") or "refused without a reason"))


def _request(request: ApiRequest) -> dict[str, Any]:
    """Field names from the protocol's source; the documentation's RequestURI and RequestHeader are not what is sent."""
    document: dict[str, Any] = {
        "User": request.user,
        "UserAuthNMethod": "TLS" if request.authentication == "TLS" else "",
        "RequestMethod": request.method,
        "RequestUri": _uri(request),
        "RequestHeaders": {"Content-Type": "application/json"} if request.body is not None else {},
    }
    if request.body is not None:
        # Encoded here from what will be executed: no other spelling of it exists.
        document["RequestBody"] = base64.b64encode(json.dumps(request.body, ensure_ascii=False).encode()).decode()
    if request.peer_certificates:
        document["RequestPeerCertificates"] = [
            base64.b64encode(ssl.DER_cert_to_PEM_cert(certificate).encode()).decode()
            for certificate in request.peer_certificates
        ]
    return document


def _uri(request: ApiRequest) -> str:
    """With a version, as every Docker client sends it: rules of plugins are written for that."""
    version = f"/v{request.version}" if request.version and request.path != "/_ping" else ""
    pairs = [(name, value) for name, values in request.parameters.items() for value in values.split("\n")]
    return version + quote(request.path) + (f"?{urlencode(pairs)}" if pairs else "")
