"""The engine as a mirror: the protocol's read half by hand, and a second engine that pulls from the first."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import socket

import pytest

from tests.images.conftest import House
from wharfie.api.mirror import MirrorApp
from wharfie.api.server import Server

OCI = "application/vnd.oci.image"


@contextlib.asynccontextmanager
async def mirror_of(house):
    """Its address; the mirror runs meanwhile."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(16)
    server = Server(MirrorApp(house.images.mirror))
    serving = asyncio.create_task(server.serve([listener]))
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await serving


async def ask(address, path, method="GET", **headers):
    """Status, headers, body."""

    def work():
        connection = http.client.HTTPConnection(address, timeout=30)
        with contextlib.closing(connection):
            connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()

    return await asyncio.to_thread(work)


def code_of(body) -> str:
    (error,) = json.loads(body)["errors"]
    assert error["message"]
    return error["code"]


@pytest.fixture
def filled(make, liar, with_house):
    """A house with an image of an index, named in two repositories; runs work(house, address, index, image)."""
    layout = make.Layout()
    image = layout.image([make.tar_of({"a": b"mirror" * 1000}), make.tar_of({"b": b"2"})])
    other = layout.image([make.tar_of({"a": b"another"})], architecture="s390x")
    index = layout.index_of(
        (image, {"os": "linux", "architecture": "amd64"}), (other, {"os": "linux", "architecture": "s390x"})
    )
    layout.tag(index, "1")
    server = liar(layout)

    def run(work, **options):
        async def main(house):
            await house.pull(f"{server.address}/team/app", "1")
            await house.images.tag(f"{server.address}/team/app:1", "team/app", "1")
            await house.images.tag(f"{server.address}/team/app:1", "team/app", "2")
            async with mirror_of(house) as address:
                return await work(house, address, layout, index, image, other)

        return with_house(main, **options)

    run.server = server
    return run


def test_a_client_that_tries_tls_first_is_told_at_once(filled) -> None:
    async def work(house, address, layout, index, image, other) -> None:
        reader, writer = await asyncio.open_connection(*address.split(":"))
        writer.write(b"\x16\x03\x01\x02\x00\x01")  # how a ClientHello begins (RFC 8446, 5.1)
        answer = await asyncio.wait_for(reader.read(), 20)
        writer.close()
        assert answer.startswith(b"HTTP/1.1 400 ")

    filled(work)


def test_a_repository_is_listed_while_one_of_its_tags_is_whole(filled) -> None:
    async def work(house, address, layout, index, image, other) -> None:
        for tag, member in (("first", image), ("second", other)):
            layout.index.clear()
            layout.tag(member, tag)
            await house.pull(f"{filled.server.address}/mixed", tag)
        layer = json.loads(layout.blobs[other["digest"]])["layers"][0]
        (house.root / "content/blobs/sha256" / layer["digest"].removeprefix("sha256:")).unlink()
        _, _, body = await ask(address, f"/v2/{filled.server.address}/mixed/tags/list")
        assert json.loads(body)["tags"] == ["first"]
        _, _, body = await ask(address, "/v2/_catalog")
        assert f"{filled.server.address}/mixed" in json.loads(body)["repositories"]

    filled(work)


def test_the_protocol(filled) -> None:
    async def work(house, address, layout, index, image, other) -> None:
        status, headers, _ = await ask(address, "/v2/")
        assert (status, headers["docker-distribution-api-version"]) == (200, "registry/2.0")
        _, _, body = await ask(address, "/v2/_catalog")
        assert json.loads(body) == {"repositories": [f"{filled.server.address}/team/app", "team/app"]}
        status, headers, body = await ask(address, "/v2/_catalog?n=1")
        assert (
            headers["link"]
            == f'</v2/_catalog?n=1&last={filled.server.address.replace(":", "%3A")}%2Fteam%2Fapp>; rel="next"'
        )
        _, _, body = await ask(address, "/v2/team/app/tags/list?n=5&last=1")
        assert json.loads(body) == {"name": "team/app", "tags": ["2"]}

        for name in ("team/app", f"{filled.server.address}/team/app", f"team/app/manifests/1?ns={filled.server.address}"):
            path = f"/v2/{name}" if "?" in name else f"/v2/{name}/manifests/1"
            status, headers, body = await ask(address, path)
            assert (status, headers["docker-content-digest"], len(body)) == (200, index["digest"], index["size"])
        status, headers, body = await ask(address, "/v2/team/app/manifests/1", "HEAD")
        assert (status, int(headers["content-length"]), body) == (200, index["size"], b"")
        _, headers, _ = await ask(address, "/v2/team/app/manifests/1", Accept=f"{OCI}.manifest.v1+json")
        assert headers["docker-content-digest"] == image["digest"]  # for who knows no index
        status, headers, body = await ask(address, f"/v2/team/app/manifests/{image['digest']}")
        assert (status, headers["content-type"]) == (200, f"{OCI}.manifest.v1+json")
        layer = json.loads(body)["layers"][0]
        data = layout.blobs[layer["digest"]]

        blob = f"/v2/team/app/blobs/{layer['digest']}"
        assert (await ask(address, blob))[2] == data
        status, headers, body = await ask(address, blob, "HEAD")
        assert (status, int(headers["content-length"]), body) == (200, len(data), b"")
        for wanted, part in (
            ("bytes=5-", data[5:]),
            ("bytes=2-7", data[2:8]),
            ("bytes=-3", data[-3:]),
            ("bytes=7-2", data),
            ("bytes=" + "9" * 5000 + "-", data),
            ("bytes=0-" + "9" * 5000, data),
        ):
            status, headers, body = await ask(address, blob, Range=wanted)
            assert (status, body) == (206 if part != data else 200, part)
        assert headers["accept-ranges"] == "bytes"
        status, headers, body = await ask(address, blob, Range=f"bytes={len(data)}-")
        assert (status, headers["content-range"], code_of(body)) == (416, f"bytes */{len(data)}", "RANGE_INVALID")

        _, headers, body = await ask(address, f"/v2/team/app/referrers/{image['digest']}")
        assert (headers["content-type"], json.loads(body)["manifests"]) == (f"{OCI}.index.v1+json", [])
        for path, code in (
            (f"/v2/team/app/manifests/{other['digest']}", "MANIFEST_UNKNOWN"),  # listed by the index, and not here
            ("/v2/team/app/manifests/none", "MANIFEST_UNKNOWN"),
            (f"/v2/team/app/blobs/{image['digest']}", "BLOB_UNKNOWN"),  # a manifest is no blob
            (f"/v2/team/app/blobs/sha256:{'0' * 64}", "BLOB_UNKNOWN"),
            ("/v2/team/app/blobs/../../etc/passwd", "NAME_UNKNOWN"),
            ("/v2/nobody/tags/list", "NAME_UNKNOWN"),
            ("/containers/json", "NAME_UNKNOWN"),
        ):
            status, _, body = await ask(address, path)
            assert (status, code_of(body)) == (404, code), path
        for method, path in (
            ("POST", "/v2/team/app/blobs/uploads/"),
            ("PUT", "/v2/team/app/manifests/1"),
            ("DELETE", blob),
        ):
            status, headers, body = await ask(address, path, method)
            assert (status, code_of(body), headers["allow"]) == (405, "UNSUPPORTED", "GET, HEAD")
        assert code_of((await ask(address, "/v2/_catalog?n=x"))[2]) == "UNSUPPORTED"

        (house.root / "content/blobs/sha256" / layer["digest"].removeprefix("sha256:")).unlink()
        for path in (
            "manifests/" + image["digest"],
            "blobs/" + json.loads(layout.blobs[image["digest"]])["config"]["digest"],
        ):
            assert (await ask(address, f"/v2/team/app/{path}"))[0] == 404  # the image is not whole any more
        for reference in ("1", index["digest"]):  # and its index leads nowhere
            status, _, body = await ask(address, f"/v2/team/app/manifests/{reference}")
            assert (status, code_of(body)) == (404, "MANIFEST_UNKNOWN")
        assert json.loads((await ask(address, "/v2/_catalog"))[2]) == {"repositories": []}

    filled(work)


def test_a_tag_for_two_platforms_is_one_tag(filled) -> None:
    """As skopeo sees it too, who asks as the protocol has it."""

    async def work(house, address, layout, index, image, other) -> None:
        await house.pull(f"{filled.server.address}/team/app", "1", platform="linux/s390x")
        await house.images.tag(f"{filled.server.address}/team/app:1", "team/both", "1")
        _, _, body = await ask(address, "/v2/team/both/tags/list")
        assert json.loads(body)["tags"] == ["1"]
        name = f"docker://{address}/team/both"
        seen = await skopeo("list-tags", "--tls-verify=false", name)
        assert seen["Tags"] == ["1"]
        for architecture in ("amd64", "s390x"):
            found = await skopeo("--override-arch", architecture, "inspect", "--tls-verify=false", f"{name}:1")
            assert (found["Architecture"], found["Digest"]) == (architecture, index["digest"])

    filled(work)


async def skopeo(*words: str):
    program = await asyncio.create_subprocess_exec("skopeo", *words, stdout=asyncio.subprocess.PIPE)
    output, _ = await program.communicate()
    assert program.returncode == 0
    return json.loads(output)


def test_a_media_type_cannot_become_a_header(with_house, make, liar) -> None:
    layout = make.Layout()
    image = layout.image([make.tar_of({"a": b"1"})])
    manifest = json.loads(layout.blobs[image["digest"]]) | {"mediaType": "a/b\r\nX-Injected: yes"}
    data = json.dumps(manifest).encode()
    layout.tag(layout.blob(data, ""), "1")
    server = liar(layout)

    def tamper(handler, path) -> bool:
        if "/manifests/" in path:
            server.reply(handler, 200, data, Content_Type=f"{OCI}.manifest.v1+json")
        return "/manifests/" in path

    server.tamper = tamper

    async def work(house) -> None:
        await house.pull(f"{server.address}/sly", "1")
        assert "X-Injected" in house.images.get(f"{server.address}/sly:1").manifest_type
        async with mirror_of(house) as address:
            status, headers, body = await ask(address, f"/v2/{server.address}/sly/manifests/1")
            assert (status, body) == (200, data)
            assert "x-injected" not in {name.lower() for name in headers}

    with_house(work)


def test_a_second_engine_pulls_from_the_first(filled, tmp_path) -> None:
    async def work(first, address, layout, index, image, other) -> None:
        mirrors = {"registry.oci": {"registry-mirrors": [f"http://{address}"]}}
        root = tmp_path / "second"
        root.mkdir()
        async with House(root, drivers=mirrors) as second:
            await second.pull("team/app", "1")
            found, origin = second.images.get("team/app:1"), first.images.get("team/app:1")
            assert (found.id, found.manifest) == (origin.id, origin.manifest)
            assert found.repo_digests == [f"team/app@{index['digest']}"]
            assert {blob for blob in second.blobs() if blob in first.blobs()} == second.blobs()

        # The images of another registry, as docs/running.md has it.
        await first.images.tag("team/app:1", "registry.example/team/app", "1")
        written = tmp_path / "certs.d/registry.example"
        written.mkdir(parents=True)
        (written / "hosts.toml").write_text(
            f'[host."http://{address}/v2/registry.example"]\n  capabilities = ["pull", "resolve"]\n  override_path = true\n'
        )
        root = tmp_path / "third"
        root.mkdir()
        async with House(root, drivers={"registry.oci": {"certificates": str(written.parent)}}) as third:
            await third.pull("registry.example/team/app", "1")
            assert third.images.get("registry.example/team/app:1").id == first.images.get("team/app:1").id

    filled(work)
