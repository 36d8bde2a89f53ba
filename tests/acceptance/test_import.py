"""`docker import` of an address: the daemon fetches it, and only from the web."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.harness import busybox_tar

pytestmark = pytest.mark.skipif(shutil.which("docker") is None, reason="needs the docker command line")


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def web(tmp_path) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=tmp_path))
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_import_of_an_address(daemon, web, tmp_path, name) -> None:
    (tmp_path / "root.tar").write_bytes(busybox_tar())
    said = daemon.docker("import", "--change", 'CMD ["true"]', "--change", "ENV A=b", f"http://{web}/root.tar", f"{name}:1")
    try:
        assert f"Downloading from http://{web}/root.tar" in said
        image = json.loads(daemon.docker("image", "inspect", f"{name}:1"))[0]
        assert image["Comment"] == f"Imported from http://{web}/root.tar"
        assert (image["Config"]["Cmd"], image["Config"]["Env"]) == (["true"], ["A=b"])
        daemon.docker("run", "--rm", "--network", "none", f"{name}:1")
        for version, hostname in (("1.49", True), ("1.50", False)):
            config = daemon.request("GET", f"/v{version}/images/{name}:1/json")[1]["Config"]
            assert ("Hostname" in config) is hostname
    finally:
        daemon.docker("rmi", f"{name}:1")
    for source, message in (
        (f"{web}/nothing", "Got HTTP status code >= 400: 404"),
        ("127.0.0.1:1/x", 'Get "http://127.0.0.1:1/x"'),
        ("file:///etc/passwd", "want"),
        (f"http://{web}/", "archive"),
    ):
        status, answer = daemon.request("POST", f"/images/create?fromSrc={source}&repo={name}")
        assert message in str(answer) and (status != 200 or "errorDetail" in answer), answer
