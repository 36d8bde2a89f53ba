"""`mirror` in daemon.json: one daemon's images are pulled by another, and by skopeo; by TLS where it is asked for."""

from __future__ import annotations

import json
import shutil
import ssl
import subprocess
import urllib.request

import pytest

from tests.harness import free_port

pytestmark = pytest.mark.skipif(shutil.which("docker") is None, reason="needs the docker command line")


def test_engine_to_engine(make_daemon, tmp_path) -> None:
    port = free_port()
    first = make_daemon("first", config={"mirror": {"listen": f"127.0.0.1:{port}"}}, busybox=True, bridge=False)
    first.docker("tag", "busybox", "team/box:1")
    second = make_daemon("second", config={"registry-mirrors": [f"http://127.0.0.1:{port}"]}, bridge=False)
    assert "Downloaded newer image" in second.docker("pull", "team/box:1")
    ids = [daemon.docker("images", "-q", "--no-trunc", "team/box:1") for daemon in (first, second)]
    assert ids[0] == ids[1]
    assert second.docker("run", "--rm", "--network", "none", "team/box:1", "echo", "there") == "there"
    if shutil.which("skopeo") is not None:
        source, there = f"docker://127.0.0.1:{port}/library/busybox:latest", f"oci:{tmp_path / 'copy'}:1"
        words = ["skopeo", "--insecure-policy", "copy", "-q", "--src-tls-verify=false", source, there]
        subprocess.run(words, check=True, timeout=60)
        assert (tmp_path / "copy/index.json").exists()


def test_tls(make_daemon, tmp_path) -> None:
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    words += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", tmp_path / "key.pem", "-out", tmp_path / "cert.pem"]
    subprocess.run(words, check=True, capture_output=True)
    listen = {
        "listen": f"127.0.0.1:{free_port()}",
        "tlscert": str(tmp_path / "cert.pem"),
        "tlskey": str(tmp_path / "key.pem"),
    }
    make_daemon(config={"mirror": listen}, bridge=False)
    context = ssl.create_default_context(cafile=tmp_path / "cert.pem")
    with urllib.request.urlopen(f"https://{listen['listen']}/v2/_catalog", context=context, timeout=30) as answer:
        assert json.load(answer) == {"repositories": []}
