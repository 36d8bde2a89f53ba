"""The rules of registry drivers, against a small registry on loopback (`peer`)."""

from __future__ import annotations

import json
import os
import tempfile
import threading
from collections.abc import Callable
from typing import Any, ClassVar

from wharfie.kit.contract import Contract
from wharfie.kit.peer import BLOB, OCI_INDEX, OCI_MANIFEST, PASSWORD, USER, Peer, digest, manifest
from wharfie.kit.rig import Rig
from wharfie.kit.rules import DOCKER, OCI, Group, refused, require, rule, succeeds
from wharfie.spi.errors import NotFound, Unauthorized, Unavailable, Unsupported, WharfieError
from wharfie.spi.registry import Credentials, Descriptor, Manifest, Reference, RegistryCapability, RegistryDriver

Registry = RegistryDriver
GOOD = Credentials(username=USER, password=PASSWORD)
BAD = Credentials(username=USER, password="wrong")
NEW = b"a new blob " * 5000


def blob(data: bytes = BLOB) -> Descriptor:
    return Descriptor(media_type="application/octet-stream", digest=digest(data), size=len(data))


class RegistryContract(Contract[RegistryDriver]):
    """The driver talks to 127.0.0.1 by plain HTTP: give `settings` that allow it where it does not do so by itself."""

    kind: ClassVar[str] = "registry"
    abilities: ClassVar[Any] = {
        RegistryCapability.PUSH: ("exists", "push_blob", "push_manifest"),
        RegistryCapability.CATALOG: ("tags",),
        RegistryCapability.REFERRERS: ("referrers",),
        RegistryCapability.SEARCH: ("search",),
    }

    def world(self, rig: Rig[Registry]) -> None:
        self.peer = Peer()

    def ref(self, repository: str = "plain/image", tag: str = "v1", digest: str = "") -> Reference:
        return Reference(server=self.peer.server, repository=repository, tag=tag, digest=digest)

    def fetched(
        self, driver: Registry, repository: str = "plain/image", *, offset: int = 0, wanted: Descriptor | None = None
    ) -> bytes:
        """What fetch writes to a pipe, also when it fails: then `self.partial` has it."""
        reading, writing = os.pipe()
        found = bytearray()

        def collect() -> None:
            while piece := os.read(reading, 65536):
                found.extend(piece)

        collector = threading.Thread(target=collect)
        collector.start()
        try:
            driver.fetch(self.ref(repository), wanted or blob(), writing, offset=offset, auth=None)
        finally:
            os.close(writing)
            collector.join()
            os.close(reading)
            self.partial = bytes(found)
        return self.partial

    def pushed(self, driver: Registry, data: bytes, repository: str = "new/image", *, mount_from: str = "") -> bool:
        with tempfile.TemporaryFile() as file:
            file.write(data)
            file.seek(0)
            return driver.push_blob(self.ref(repository), blob(data), file.fileno(), mount_from=mount_from, auth=None)

    def life(self, rig: Rig[Registry], driver: Registry, number: int) -> None:
        require(driver.resolve(self.ref(), None).data == manifest(BLOB), "resolve gave another manifest")
        require(driver_fetch(self, driver) == BLOB, "fetch gave other bytes")

    def shared(self, rig: Rig[Registry], driver: Registry) -> Callable[[], None]:
        return lambda: self.life(rig, driver, 0)

    def share(self, rig: Rig[Registry], driver: Registry, number: int) -> None:
        self.life(rig, driver, number)

    @rule(
        "resolve gives a manifest exactly as the server sent it, with its media type and digest.",
        methods="resolve",
        source=OCI,
    )
    def test_reg_01(self, rig: Rig[Registry], driver: Registry) -> None:
        data = manifest(BLOB)
        for ref in (self.ref(), self.ref(tag="", digest=digest(data))):
            found = driver.resolve(ref, None)
            require(found.data == data, "resolve changed the manifest's bytes")
            require(found.digest == digest(data), f"the manifest's digest is {found.digest}, not that of its bytes")
            require(found.media_type == OCI_MANIFEST, f"the media type is {found.media_type!r}")

    @rule("resolve gives an index as it is, without choosing from it.", methods="resolve", source=OCI)
    def test_reg_02(self, rig: Rig[Registry], driver: Registry) -> None:
        found = driver.resolve(self.ref(tag="index"), None)
        require(found.media_type == OCI_INDEX, f"the media type of an index is {found.media_type!r}")
        require(json.loads(found.data)["manifests"] == [], "resolve gave something else than the index")

    @rule("With a tag and a digest the digest counts.", methods="resolve", source=DOCKER)
    def test_reg_03(self, rig: Rig[Registry], driver: Registry) -> None:
        data = manifest(BLOB)
        found = driver.resolve(self.ref(tag="index", digest=digest(data)), None)
        require(found.data == data, "the tag was taken, not the digest")

    @rule("A manifest that is not there is NotFound, in Docker's words.", methods="resolve", source=DOCKER)
    def test_reg_04(self, rig: Rig[Registry], driver: Registry) -> None:
        with refused(NotFound, "resolve of a missing tag", naming="manifest unknown"):
            driver.resolve(self.ref(tag="missing"), None)

    @rule("A server that is not there is Unavailable.", methods="resolve fetch")
    def test_reg_05(self, rig: Rig[Registry], driver: Registry) -> None:
        self.peer.stop()
        with refused(Unavailable, "resolve without a server", naming=self.peer.server):
            driver.resolve(self.ref(), None)
        with refused(Unavailable, "fetch without a server"):
            self.fetched(driver)

    @rule("A manifest over the limit is refused.", methods="resolve", source=OCI)
    def test_reg_06(self, rig: Rig[Registry], driver: Registry) -> None:
        with refused(WharfieError, "resolve of a manifest over the limit"):
            driver.resolve(self.ref("huge/image"), None)

    @rule("fetch writes the blob's bytes; it may be repeated.", group=Group.REPETITION, methods="fetch")
    def test_reg_07(self, rig: Rig[Registry], driver: Registry) -> None:
        for _ in range(3):
            require(self.fetched(driver) == BLOB, "fetch wrote other bytes than the blob's")

    @rule("fetch of a blob that is not there is NotFound.", methods="fetch")
    def test_reg_08(self, rig: Rig[Registry], driver: Registry) -> None:
        with refused(NotFound, "fetch of a missing blob"):
            self.fetched(driver, wanted=blob(b"missing"))

    @rule("fetch begins at the offset.", methods="fetch", capability="ranges", source=OCI)
    def test_reg_09(self, rig: Rig[Registry], driver: Registry) -> None:
        for offset in (1, 1000, len(BLOB) - 1):
            require(self.fetched(driver, offset=offset) == BLOB[offset:], f"fetch from {offset} on wrote other bytes")

    @rule("A connection that breaks is Unavailable, and what was written counts.", methods="fetch")
    def test_reg_10(self, rig: Rig[Registry], driver: Registry) -> None:
        with refused(Unavailable, "fetch over a connection that breaks"):
            self.fetched(driver, "cut/image")
        require(BLOB.startswith(self.partial), "what was written before the break is not the blob's beginning")

    @rule("fetch never writes more than the blob's size, whatever the server sends.", methods="fetch")
    def test_reg_11(self, rig: Rig[Registry], driver: Registry) -> None:
        try:
            self.fetched(driver, "long/image")
        except WharfieError:
            pass  # it may refuse such a server
        require(len(self.partial) <= len(BLOB), f"{len(self.partial)} bytes were written of a blob of {len(BLOB)}")

    @rule(
        "Without credentials, or with wrong ones, a private repository is Unauthorized.", methods="resolve", source=DOCKER
    )
    def test_reg_12(self, rig: Rig[Registry], driver: Registry) -> None:
        for auth in (None, BAD):
            with refused(Unauthorized, f"resolve in a private repository with {auth}"):
                driver.resolve(self.ref("private/image"), auth)

    @rule(
        "With the right credentials a private repository is open, and a call without them stays closed.", methods="resolve"
    )
    def test_reg_13(self, rig: Rig[Registry], driver: Registry) -> None:
        with succeeds("resolve with credentials"):
            driver.resolve(self.ref("private/image"), GOOD)
        with refused(Unauthorized, "resolve without credentials after one with them"):
            driver.resolve(self.ref("private/image"), None)

    @rule("Credentials go to no other server, also when a blob is there.", methods="fetch")
    def test_reg_14(self, rig: Rig[Registry], driver: Registry) -> None:
        with tempfile.TemporaryFile() as file:
            driver.fetch(self.ref("elsewhere/image"), blob(), file.fileno(), offset=0, auth=GOOD)
            file.seek(0)
            require(file.read() == BLOB, "a redirected blob has other bytes")
        seen = self.peer.seen(self.peer.other)
        require(seen, "the redirection was not followed")
        require(not any(authorization for _, _, authorization in seen), "the credentials were sent to another server")

    @rule("login tries the credentials: right ones are taken, wrong ones are Unauthorized.", methods="login", source=DOCKER)
    def test_reg_15(self, rig: Rig[Registry], driver: Registry) -> None:
        if not self._own(driver, "login"):
            return
        with succeeds("login with right credentials"):
            require(driver.login(self.peer.server, GOOD).status, "login gave no status")
        with refused(Unauthorized, "login with a wrong password"):
            driver.login(self.peer.server, BAD)

    @rule("exists tells whether the blob is in the repository.", methods="exists", capability="push")
    def test_reg_16(self, rig: Rig[Registry], driver: Registry) -> None:
        require(driver.exists(self.ref(), blob(), None) is True, "a blob that is there does not exist")
        require(driver.exists(self.ref(), blob(b"missing"), None) is False, "a missing blob exists")

    @rule(
        "A blob that was pushed is fetched again; the push may be repeated.",
        group=Group.REPETITION,
        methods="push_blob fetch",
        capability="push",
        source=OCI,
    )
    def test_reg_17(self, rig: Rig[Registry], driver: Registry) -> None:
        for _ in range(2):
            with succeeds("push of a blob"):
                self.pushed(driver, NEW)
        require(self.fetched(driver, "new/image", wanted=blob(NEW)) == NEW, "a pushed blob comes back with other bytes")

    @rule(
        "A manifest that was pushed is resolved by tag and digest, with the same bytes.",
        group=Group.REPETITION,
        methods="push_manifest resolve",
        capability="push",
        source=OCI,
    )
    def test_reg_18(self, rig: Rig[Registry], driver: Registry) -> None:
        self.pushed(driver, NEW)
        data = manifest(NEW)
        for _ in range(2):
            told = driver.push_manifest(
                self.ref("new/image", tag="mine"), Manifest(media_type=OCI_MANIFEST, digest=digest(data), data=data), None
            )
            require((told.digest, told.size) == (digest(data), len(data)), f"push_manifest returned {told}")
        for ref in (self.ref("new/image", tag="mine"), self.ref("new/image", tag="", digest=digest(data))):
            require(driver.resolve(ref, None).data == data, "a pushed manifest comes back with other bytes")

    @rule(
        "A blob that another repository of the server has is not sent.",
        methods="push_blob",
        capability="cross-mount",
        source=OCI,
    )
    def test_reg_19(self, rig: Rig[Registry], driver: Registry) -> None:
        mounted = self.pushed(driver, BLOB, "new/mounted", mount_from="plain/image")
        require(mounted is True, "push_blob does not tell that the blob was mounted")
        sent = [path for method, path, _ in self.peer.seen() if method in ("PUT", "PATCH")]
        require(not sent, f"the blob was sent: {', '.join(sent)}")
        require(driver.exists(self.ref("new/mounted"), blob(), None), "the blob was not mounted")

    @rule("tags gives all tags, page by page.", methods="tags", capability="catalog", source=OCI)
    def test_reg_20(self, rig: Rig[Registry], driver: Registry) -> None:
        found = list(driver.tags(self.ref(), None))
        require(sorted(found) == ["index", "sig", "v1"], f"of the tags index, sig and v1 there are {found}")

    @rule("referrers gives the manifests with that subject.", methods="referrers", capability="referrers", source=OCI)
    def test_reg_21(self, rig: Rig[Registry], driver: Registry) -> None:
        data = manifest(BLOB)
        subject = Descriptor(media_type=OCI_MANIFEST, digest=digest(data), size=len(data))
        found = list(driver.referrers(self.ref(), subject, None))
        require(len(found) == 1 and found[0].digest != subject.digest, f"referrers are {found}")
        told = (found[0].artifact_type, dict(found[0].annotations))
        require(told == ("application/kit", {"by": "kit"}), f"of type and annotations referrers says {told}")

    @rule(
        "referrers is Unsupported where the server has no such API.",
        methods="referrers",
        capability="referrers",
        source=OCI,
    )
    def test_reg_24(self, rig: Rig[Registry], driver: Registry) -> None:
        with refused(Unsupported, "referrers of a server without the API"):
            driver.referrers(self.ref("old/image"), blob(), None)

    @rule("describe_server gives texts, and asks nobody.", methods="describe_server")
    def test_reg_22(self, rig: Rig[Registry], driver: Registry) -> None:
        for name, value in driver.describe_server(self.peer.server).items():
            require(isinstance(name, str) and isinstance(value, str), f"describe_server has {name!r}: {value!r}")
        require(not self.peer.seen(), "describe_server asked the server")

    @rule(
        "search gives the repositories that match, at most as many as asked for.",
        methods="search",
        capability="search",
        source=DOCKER,
    )
    def test_reg_23(self, rig: Rig[Registry], driver: Registry) -> None:
        found = list(driver.search(self.peer.server, "image", 3, None))
        told = [(one.name, one.stars, one.official) for one in found]
        wanted = [("kit/image1", 1, True), ("kit/image2", 2, False), ("kit/image3", 3, False)]
        require(told == wanted, f"search for three of kit/image1 to kit/image5 found {told}")
        require(not list(driver.search(self.peer.server, "nothing", 3, None)), "search finds what does not match")


def driver_fetch(contract: RegistryContract, driver: Registry) -> bytes:
    """What fetch writes to a file of its own: usable by several threads at a time."""
    with tempfile.TemporaryFile() as file:
        driver.fetch(contract.ref(), blob(), file.fileno(), offset=0, auth=None)
        file.seek(0)
        return file.read()
