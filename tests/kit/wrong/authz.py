"""Wrong authorization drivers."""

from __future__ import annotations

from tests.kit.mutants import override

WRONG = (
    override(
        "AUT-01",
        """
        def request(self, request):
            if isinstance(request.body, list) and not hasattr(self, "used"):
                raise TypeError("no object")
            return self.judged(request)
        """,
    ),
    override(
        "AUT-02",
        """
        def request(self, request):
            decision = self.judged(request)
            return decision if decision.allow else Decision(allow=False)
        """,
    ),
    override(
        "AUT-03",
        """
        def request(self, request):
            if request.path == "/containers/json" and not request.parameters:
                return Decision(allow=False, reason="no lists")
            return self.judged(request)
        """,
    ),
    override(
        "AUT-04",
        """
        def request(self, request):
            host = request.body.get("HostConfig") if isinstance(request.body, dict) else None
            if isinstance(host, dict) and len(request.body) == 1 and request.raw_body != b"{}":
                return Decision(allow=True)
            return self.judged(request)
        """,
    ),
    override(
        "AUT-05",
        """
        def __init__(self, context, settings):
            self.again = (context.state / "used").exists()
            self.mark = context.state / "used"

        def close(self):
            self.mark.touch()

        def request(self, request):
            if self.again and request.path == "/_ping" and request.method == "GET":
                return Decision(allow=False, reason="asked before")
            return self.judged(request)
        """,
    ),
    override(
        "AUT-06",
        """
        def request(self, request):
            if isinstance(request.body, dict):
                request.body.pop("Image", None)
            return self.judged(request)
        """,
    ),
    override(
        "AUT-07",
        """
        def request(self, request):
            body = json.loads(request.raw_body) if request.raw_body else None
            host = body.get("HostConfig") if isinstance(body, dict) else None
            if request.path == CREATE and isinstance(host, dict) and host.get("Privileged"):
                return Decision(allow=False, reason="no privileged containers")
            return Decision(allow=True)
        """,
    ),
    override(
        "AUT-08",
        """
        def response(self, request, response):
            if response.status == 200:
                response.body.decode()
            return Decision(allow=True)
        """,
    ),
    override(
        "AUT-09",
        """
        def capabilities(self):
            return frozenset()

        def response(self, request, response):
            return Decision(allow=False, reason="no answers")
        """,
    ),
)
