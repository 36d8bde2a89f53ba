"""Wrong registry drivers."""

from __future__ import annotations

from tests.kit.mutants import override


def resolving(rule, body, *, also=""):
    """Something done to what resolve found, `made`."""
    head = "def resolve(self, ref, auth):\n    made = super().resolve(ref, auth)\n"
    return override(
        rule, head + "".join(f"    {line}\n" for line in body.strip().splitlines()) + "    return made\n", also=also
    )


def failing(rule, method, wanted, instead, condition="True"):
    """A refusal of another kind."""
    body = f"""
def {method}(self, *args, **kwargs):
    try:
        return super().{method}(*args, **kwargs)
    except {wanted} as error:
        if {condition}:
            raise {instead}(error.message) from None
        raise
"""
    return override(rule, body)


FETCH = "def fetch(self, ref, blob, out, *, offset, auth):\n    "

WRONG = (
    resolving(
        "REG-01",
        'if ref.repository == "plain/image" and ref.tag == "v1":\n'
        '    made = replace(made, media_type=made.media_type + "; charset=utf-8")',
    ),
    resolving("REG-02", 'if "index" in made.media_type:\n    made = replace(made, media_type="application/json")'),
    override(
        "REG-03",
        """
        def resolve(self, ref, auth):
            return super().resolve(replace(ref, digest="") if ref.tag else ref, auth)
        """,
    ),
    failing("REG-04", "resolve", "NotFound", "DriverError"),
    failing("REG-05", "fetch", "Unavailable", "DriverError", "args[0].repository == 'plain/image'"),
    override(
        "REG-06",
        """
        def resolve(self, ref, auth):
            if ref.repository.startswith("huge/"):
                return super().resolve(replace(ref, repository="plain/image"), auth)
            return super().resolve(ref, auth)
        """,
    ),
    override(
        "REG-07",
        """
        count = 0

        def fetch(self, ref, blob, out, *, offset, auth):
            self.count += 1
            if self.count == 3:
                raise Unavailable("enough")
            super().fetch(ref, blob, out, offset=offset, auth=auth)
        """,
        also="REG-09",
    ),
    failing("REG-08", "fetch", "NotFound", "DriverError"),
    override("REG-09", f"{FETCH}super().fetch(ref, blob, out, offset=0, auth=auth)\n"),
    failing("REG-10", "fetch", "Unavailable", "DriverError", "args[0].repository == 'cut/image'"),
    override(
        "REG-11",
        """
        def fetch(self, ref, blob, out, *, offset, auth):
            super().fetch(ref, blob, out, offset=offset, auth=auth)
            if ref.repository.startswith("long/"):
                os.write(out, b"more")
        """,
    ),
    failing("REG-12", "resolve", "Unauthorized", "NotFound", "args[1] is not None"),
    override(
        "REG-13",
        """
        known = None

        def resolve(self, ref, auth):
            made = super().resolve(ref, auth or self.known)
            self.known = auth
            return made
        """,
    ),
    override(
        "REG-14",
        """
        def fetch(self, ref, blob, out, *, offset, auth):
            super().fetch(ref, blob, out, offset=offset, auth=auth)
            if ref.repository.startswith("elsewhere/"):
                first = urllib.request.urlopen(f"http://{ref.server}/v2/elsewhere/image/blobs/{blob.digest}")
                asked = urllib.request.Request(first.url, headers={"Authorization": "Basic eDp5"})
                urllib.request.urlopen(asked).close()
                first.close()
        """,
    ),
    failing("REG-15", "login", "Unauthorized", "DriverError"),
    override("REG-16", "def exists(self, ref, blob, auth):\n    return True\n"),
    override(
        "REG-17",
        """
        pushed = frozenset()

        def push_blob(self, ref, blob, data, *, mount_from, auth):
            if blob.digest in self.pushed:
                raise DriverError("pushed before")
            self.pushed |= {blob.digest}
            return super().push_blob(ref, blob, data, mount_from=mount_from, auth=auth)
        """,
    ),
    override(
        "REG-18",
        """
        def push_manifest(self, ref, manifest, auth):
            return replace(super().push_manifest(ref, manifest, auth), size=1)
        """,
    ),
    override(
        "REG-19",
        """
        def push_blob(self, ref, blob, data, *, mount_from, auth):
            return super().push_blob(ref, blob, data, mount_from="", auth=auth)
        """,
    ),
    override("REG-20", "def tags(self, ref, auth):\n    return super().tags(ref, auth)[:2]\n"),
    override("REG-21", "def referrers(self, ref, subject, auth):\n    return [subject]\n"),
    override(
        "REG-22",
        """
        def describe_server(self, server):
            with urllib.request.urlopen(f"http://{server}/v2/plain/tags/list") as answer:
                return {"answers": str(answer.status)}
        """,
    ),
    override(
        "REG-24",
        """
        def referrers(self, ref, subject, auth):
            return [] if ref.repository.startswith("old/") else super().referrers(ref, subject, auth)
        """,
    ),
    override("REG-23", "def search(self, server, term, limit, auth):\n    return super().search(server, term, 5, auth)\n"),
)
