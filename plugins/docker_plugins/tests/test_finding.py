"""Discovery and handshake: the right plugin, at once, whatever else is in the folders."""

from __future__ import annotations

import json
import socket
import subprocess
import time

import pytest
from wharfie_docker_plugins import hooks, places
from wharfie_docker_plugins.places import BadPlace, Place, Tls, find, names

from wharfie.spi.errors import Unavailable


@pytest.fixture
def folder(tmp_path, monkeypatch):
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    monkeypatch.setenv("WHARFIE_DOCKER_PLUGIN_DIRS", f"{one}:{tmp_path}/none:{two}")
    return tmp_path


def listen(path):
    path.parent.mkdir(exist_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    return listener


def test_dockers_folders_are_the_default(monkeypatch):
    monkeypatch.delenv("WHARFIE_DOCKER_PLUGIN_DIRS", raising=False)
    found = [str(path) for path in places.folders()]
    assert found == ["/run/docker/plugins", "/etc/docker/plugins", "/usr/lib/docker/plugins"]


def test_sockets_win_over_files_and_folders_have_an_order(folder):
    (folder / "one" / "a.spec").write_text("tcp://localhost:1")
    with listen(folder / "two" / "a.sock"), listen(folder / "two" / "b" / "b.sock"):
        assert find("a").socket == str(folder / "two" / "a.sock")
        assert find("b").socket == str(folder / "two" / "b" / "b.sock")
        with listen(folder / "one" / "a.sock"):
            assert find("a").socket == str(folder / "one" / "a.sock")
        assert sorted(names()) == ["a", "b"]
    assert find("c") is None


@pytest.mark.parametrize("name", ["", ".", "..", "../one/a", "a/b", ".hidden", "a\0"])
def test_a_name_leads_nowhere_else(folder, name):
    (folder / "one" / ".hidden.spec").write_text("tcp://localhost:1")
    (folder / "two" / "..spec").write_text("tcp://localhost:1")
    assert find(name) is None


@pytest.mark.parametrize(
    ("file", "content", "place"),
    [
        ("a.spec", "unix:///run/a.sock\n", Place(name="a", socket="/run/a.sock")),
        ("a.spec", "tcp://localhost:8080", Place(name="a", host="localhost", port=8080)),
        ("a.spec", "http://[::1]:8080", Place(name="a", host="::1", port=8080)),
        ("a.spec", "https://h:9", Place(name="a", host="h", port=9, tls=Tls())),
        ("a.json", {"Addr": "unix:///x"}, Place(name="a", socket="/x")),
        (
            "a.json",
            {"Name": "other", "Addr": "https://h", "TLSConfig": {"CAFile": "/ca", "InsecureSkipVerify": True}},
            Place(name="a", host="h", port=443, tls=Tls(ca="/ca", insecure=True)),
        ),
    ],
)
def test_files(folder, file, content, place):
    (folder / "two" / file).write_text(content if isinstance(content, str) else json.dumps(content))
    assert find("a") == place


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("a.spec", "nonsense"),
        ("a.spec", "tcp://h:x"),
        ("a.spec", "unix://x"),
        ("a.json", "{"),
        ("a.json", "{}"),
        ("a.json", "[]"),
    ],
)
def test_a_file_that_says_nothing_is_named(folder, file, content, caplog):
    (folder / "two" / file).write_text(content)
    with pytest.raises(BadPlace, match=file):
        find("a")
    assert hooks.find_driver("volume", "a") is None
    assert file in caplog.text


def test_the_handshake_says_what_a_plugin_is(plugins):
    server = plugins("both", "VolumeDriver,NetworkDriver")
    assert hooks.known_drivers("volume") == []
    assert hooks.find_driver("volume", "both").name == "both"
    assert hooks.find_driver("network", "both").kind == "network"
    assert hooks.find_driver("log", "both") is None
    assert hooks.find_driver("storage", "both") is None
    assert hooks.find_driver("volume", "nobody") is None
    assert len(server.calls("Activate")) == 1
    assert server.calls("Activate")[0][1] is None
    assert (hooks.known_drivers("volume"), hooks.known_drivers("network"), hooks.known_drivers("ipam")) == (
        ["both"],
        ["both"],
        [],
    )


def test_a_plugin_that_comes_back_with_other_abilities_is_asked_again(plugins):
    first = plugins("one", "VolumeDriver")
    assert hooks.find_driver("volume", "one") is not None
    first.stop()
    plugins("one", "LogDriver")
    assert hooks.find_driver("volume", "one") is None
    assert hooks.find_driver("log", "one") is not None


def test_dead_and_silent_sockets_cost_only_those_who_name_them(plugins, tmp_path, caplog):
    plugins("good", "VolumeDriver")
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(tmp_path / "plugins" / "dead.sock"))
    dead.close()
    with listen(tmp_path / "plugins" / "silent.sock"):
        began = time.monotonic()
        assert hooks.find_driver("volume", "good") is not None
        assert hooks.known_drivers("volume") == ["good"]
        assert hooks.find_driver("volume", "dead") is None
        assert time.monotonic() - began < 2.5  # neither of the two was waited for
        assert "dead.sock does not answer Plugin.Activate" in caplog.text
        assert hooks.find_driver("volume", "silent") is None
        problems = [problem.what for problem in hooks.doctor_checks()]
        assert len(problems) == 2
        assert any("dead.sock" in problem for problem in problems)


def test_a_driver_whose_plugin_is_gone_says_so_and_finds_it_again(plugins, make):
    server = plugins("data", "VolumeDriver")
    driver = make("volume", "data")
    driver.create("v", {}, {})
    server.stop()
    with pytest.raises(Unavailable, match=r"data.sock does not answer VolumeDriver.Get"):
        driver.get("v")
    with pytest.raises(Unavailable):
        driver.probe()
    (tmp := next(iter(places.folders())) / "data.sock").unlink()
    with pytest.raises(Unavailable, match='"data" is gone'):
        driver.get("v")
    assert not tmp.exists()
    server.start()
    assert driver.get("v").name == "v"
    driver.probe()


def test_tls(plugins, make, tmp_path):
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=localhost",
            "-addext",
            "subjectAltName=DNS:localhost",
            "-keyout",
            key,
            "-out",
            certificate,
        ],
        check=True,
        capture_output=True,
    )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    flags = ("--certificate", str(certificate), "--key", str(key))
    plugins("far", "VolumeDriver", *flags, address=f"127.0.0.1:{port}")
    path = tmp_path / "plugins" / "far.json"
    path.write_text(json.dumps({"Addr": f"https://localhost:{port}", "TLSConfig": {"CAFile": str(certificate)}}))
    driver = make("volume", "far")
    assert driver.create("v", {}, {}).name == "v"
    path.write_text(json.dumps({"Addr": f"https://localhost:{port}", "TLSConfig": {}}))
    with pytest.raises(Unavailable, match="certificate"):
        driver.get("v")
    path.write_text(json.dumps({"Addr": f"https://localhost:{port}", "TLSConfig": {"InsecureSkipVerify": True}}))
    assert driver.get("v").name == "v"
