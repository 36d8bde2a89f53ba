"""`docker cp`, `export` and `diff` with the stock CLI, on containers that run and that do not."""

from __future__ import annotations

import base64
import bz2
import gzip
import io
import json
import os
import socket
import tarfile
import threading
import time
from pathlib import Path

import pytest

from tests.harness import until


def tar_of(*entries):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content, *more in entries:
            entry = tarfile.TarInfo(name)
            for key, value in dict(*more).items():
                setattr(entry, key, value)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def names(data):
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {entry.name: entry for entry in tar}


def put(daemon, ref, path, data, **query):
    more = "".join(f"&{key}={value}" for key, value in query.items())
    headers = {"Content-Type": "application/x-tar"}
    return daemon.request("PUT", f"/containers/{ref}/archive?path={path}{more}", raw=data, headers=headers)


def path_stat(daemon, ref, path):
    status, headers, _ = daemon.exchange("HEAD", f"/containers/{ref}/archive?path={path}")
    return json.loads(base64.b64decode(headers["x-docker-container-path-stat"])) if status == 200 else status


@pytest.fixture(params=["running", "stopped", "paused"])
def container(daemon, name, request):
    script = (
        "mkdir /made /made/sub; echo one > /made/one; ln -s one /made/link; ln -s /made /way; ln -s /nowhere /dangling;"
        "ln -s ../../../../../../etc/passwd /up; chmod 4711 /made/one; mkfifo /made/pipe 2>/dev/null;"
        "echo v > /data/v; echo ready; exec sleep 600"
    )
    daemon.docker("run", "-d", "--name", name, "-v", f"{name}-vol:/data", "busybox", "sh", "-c", script)
    until(lambda: "ready" in daemon.docker("logs", name), what="the files")
    if request.param == "stopped":
        daemon.docker("stop", "-t", "0", name)
    if request.param == "paused":
        daemon.docker("pause", name)
    yield name
    if request.param == "paused":
        daemon.docker("unpause", name)


def test_out(daemon, container, tmp_path):
    daemon.docker("cp", f"{container}:/made", tmp_path / "new")
    assert (tmp_path / "new/one").read_text() == "one\n"
    assert (tmp_path / "new/link").readlink() == Path("one")
    assert (tmp_path / "new/one").stat().st_mode & 0o7777 == 0o4711
    daemon.docker("cp", f"{container}:/made/.", tmp_path)
    assert (tmp_path / "one").exists()
    daemon.docker("cp", f"{container}:/way/one", tmp_path / "through")
    assert (tmp_path / "through").read_text() == "one\n"
    daemon.docker("cp", f"{container}:/data/v", tmp_path)
    assert (tmp_path / "v").read_text() == "v\n"
    archive = daemon.run_docker("cp", f"{container}:/etc/hosts", "-").stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        assert b"localhost" in tar.extractfile("hosts").read()


def test_in(daemon, container, tmp_path):
    (tmp_path / "file").write_text("in")
    (tmp_path / "tree/deep").mkdir(parents=True)
    (tmp_path / "tree/deep/leaf").write_text("leaf")
    os.chown(tmp_path / "file", 1234, 2345)
    daemon.docker("cp", tmp_path / "file", f"{container}:/made/")
    daemon.docker("cp", tmp_path / "file", f"{container}:/way/renamed")
    daemon.docker("cp", tmp_path / "tree", f"{container}:/made/sub")
    daemon.docker("cp", f"{tmp_path}/tree/.", f"{container}:/data")
    daemon.docker("cp", "-", f"{container}:/made", stdin=tar_of(("piped", b"p")))
    found = names(daemon.run_docker("cp", f"{container}:/made/.", "-").stdout)
    assert {"./file", "./renamed", "./piped", "./sub/tree/deep/leaf"} <= found.keys()
    assert (found["./file"].uid, found["./file"].gid) == (1234, 2345)
    assert "v" in names(daemon.run_docker("cp", f"{container}:/data/v", "-").stdout)
    assert "leaf" in names(daemon.run_docker("cp", f"{container}:/data/deep/leaf", "-").stdout)


def test_stat(daemon, container):
    found = path_stat(daemon, container, "/made/one")
    assert (found["name"], found["size"], found["mode"]) == ("one", 4, 1 << 23 | 0o711)
    assert path_stat(daemon, container, "/made")["mode"] == 1 << 31 | 0o755
    link = path_stat(daemon, container, "/made/link")
    assert (link["mode"], link["linkTarget"]) == (1 << 27 | 0o777, "/made/one")
    assert path_stat(daemon, container, "/up")["linkTarget"] == "/etc/passwd"
    assert path_stat(daemon, container, "/dangling")["linkTarget"] == "/nowhere"
    assert path_stat(daemon, container, "/way")["mode"] & 1 << 27
    assert path_stat(daemon, container, "/way/")["mode"] & 1 << 31
    assert path_stat(daemon, container, "/")["name"] == "/"
    for path in ("/no/such", "/proc/self/exe", "/dangling/", "/dangling/x"):
        assert path_stat(daemon, container, path) == 404


def test_refusals(daemon, container):
    assert put(daemon, container, "/made/one", tar_of(("x", b"x")))[1]["message"] == "extraction point is not a directory"
    assert put(daemon, container, "/nowhere", tar_of(("x", b"x")))[0] == 404
    status, answer = put(daemon, container, "/made", b"no tar" * 1000)
    assert (status, answer["message"][:31]) == (500, "archive/tar: invalid tar header")
    folder, file = tar_of(("one", b"", {"type": tarfile.DIRTYPE})), tar_of(("sub", b"x"))
    for archive, kind in ((folder, "non-directory"), (file, "directory")):
        status, answer = put(daemon, container, "/made", archive, noOverwriteDirNonDir="true")
        assert (status, answer["message"].partition(' "')[0]) == (500, f"cannot overwrite {kind}")
    for name in ("../x", "a/../../x"):
        assert put(daemon, container, "/made", tar_of((name, b"x")))[0] == 500
        assert path_stat(daemon, container, "/x") == 404


def test_owner(daemon, name):
    daemon.docker("create", "--name", name, "--user", "worker", "busybox", "true")
    assert put(daemon, name, "/tmp", tar_of(("plain", b"x", {"uid": 7})))[0] == 200
    assert put(daemon, name, "/tmp", tar_of(("owned", b"x", {"uid": 7})), copyUIDGID="1")[0] == 200
    found = names(daemon.run_docker("cp", f"{name}:/tmp/.", "-").stdout)
    assert (found["./plain"].uid, found["./owned"].uid, found["./owned"].gid) == (7, 1000, 1000)


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress])
def test_compressed(daemon, name, compress):
    daemon.docker("create", "--name", name, "busybox", "true")
    data = os.urandom(3 << 20)
    assert put(daemon, name, "/tmp", compress(tar_of(("big", data))))[0] == 200
    with tarfile.open(fileobj=io.BytesIO(daemon.run_docker("cp", f"{name}:/tmp/big", "-").stdout)) as tar:
        assert tar.extractfile("big").read() == data
    assert put(daemon, name, "/tmp", compress(tar_of(("big", data)))[:1000])[0] == 500


def test_nothing_reaches_the_host(daemon, name, tmp_path):
    """Links that lead out, in the container and in the archive; the canary beside them stays as it is."""
    canary = tmp_path / "canary"
    canary.mkdir()
    (canary / "file").write_text("untouched")
    out = str(canary)
    script = (
        f"mkdir -p /t; ln -s {out} /t/abs; ln -s ../../../../../../../../..{out} /t/rel; ln -s {out}/file /t/file;"
        "ln -s /proc/self/root /t/proc; ln -s /proc/1/root /t/one; ln -s /proc/self/cwd /t/cwd; echo ready; exec sleep 600"
    )
    daemon.docker("run", "-d", "--name", name, "--pid", "host", "busybox", "sh", "-c", script)
    until(lambda: "ready" in daemon.docker("logs", name), what="the links")
    for running in (True, False):
        if not running:
            daemon.docker("stop", "-t", "0", name)
        for link in ("abs", "rel", "proc", "one", "cwd"):
            for inside in (f"{link}/file", f"{link}/etc/hostname", f"{link}{out}/file"):
                status, _, _ = daemon.exchange("GET", f"/containers/{name}/archive?path=/t/{inside}")
                assert status in (400, 404)
            put(daemon, name, f"/t/{link}", tar_of(("planted", b"x")))
            put(daemon, name, "/t", tar_of((f"{link}/planted", b"x")))
        put(daemon, name, "/t", tar_of(("file", b"overwritten")))
        evil = tar_of(
            ("way", b"", {"type": tarfile.SYMTYPE, "linkname": out}),
            ("way/planted", b"x"),
            ("hard", b"", {"type": tarfile.LNKTYPE, "linkname": f"../../../../..{out}/file"}),
            ("hard2", b"", {"type": tarfile.LNKTYPE, "linkname": f"{out}/file"}),
        )
        put(daemon, name, "/t", evil)
    assert [(path.name, path.read_text()) for path in canary.iterdir()] == [("file", "untouched")]
    assert not Path("/planted").exists()


def test_a_race_of_links_never_leads_out(daemon, name, tmp_path):
    (tmp_path / "secret").write_text("secret")
    script = f"mkdir -p /t/d{tmp_path}; while true; do ln -sfn {tmp_path} /t/x; rm -f /t/x; mkdir /t/x; rmdir /t/x; done"
    daemon.docker("run", "-d", "--name", name, "busybox", "sh", "-c", script)
    for _ in range(60):
        _, _, content = daemon.exchange("GET", f"/containers/{name}/archive?path=/t/x/secret")
        assert b"could not find" in content.lower() or b'"message"' in content
        put(daemon, name, "/t/x", tar_of(("planted", b"x")))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["secret"]


def test_read_only(daemon, name):
    daemon.docker("create", "--name", f"{name}-a", "--read-only", "-v", f"{name}-v:/rw", "busybox", "true")
    words = ("--read-only", "-v", f"{name}-v:/rw", "-v", f"{name}-v:/ro:ro", "busybox", "sleep", "60")
    daemon.docker("run", "-d", "--name", f"{name}-b", *words)
    for ref in (f"{name}-a", f"{name}-b"):
        status, answer = put(daemon, ref, "/tmp", tar_of(("x", b"x")))
        assert (status, answer["message"]) == (403, "container rootfs is marked read-only")
        assert put(daemon, ref, "/rw", tar_of(("x", b"x")))[0] == 200
    status, answer = put(daemon, f"{name}-b", "/ro", tar_of(("x", b"x")))
    assert (status, answer["message"]) == (403, "mounted volume is marked read-only")


def test_export_and_diff(daemon, container):
    found = names(daemon.run_docker("export", container).stdout)
    assert "made/one" in found
    assert "data" in found
    assert "data/v" not in found
    assert not any(name.startswith(("proc/", "sys/")) for name in found)
    changed = daemon.docker("diff", container).splitlines()
    assert {"A /made", "A /made/one", "A /way"} <= set(changed)
    assert not any(word in line for line in changed for word in ("/etc", "/dev", "/proc", "/sys"))


def test_no_changes(daemon, name):
    daemon.docker("run", "--name", name, "busybox", "true")
    assert daemon.request("GET", f"/containers/{name}/changes") == (200, None)


def test_a_client_that_stops_reading_holds_nobody(daemon, name):
    daemon.docker("run", "-d", "--name", name, "busybox", "sh", "-c", "head -c 30000000 /dev/urandom > /big; sleep 600")
    until(
        lambda: path_stat(daemon, name, "/big") != 404 and path_stat(daemon, name, "/big")["size"] == 30000000, what="file"
    )
    stuck = []
    for _ in range(3):
        client = socket.socket(socket.AF_UNIX)
        client.connect(str(daemon.socket))
        client.sendall(f"GET /containers/{name}/archive?path=/big HTTP/1.1\r\nHost: docker\r\n\r\n".encode())
        stuck.append(client)
    time.sleep(0.3)
    assert daemon.docker("exec", name, "echo", "alive") == "alive"
    assert path_stat(daemon, name, "/big")["size"] == 30000000
    for client in stuck:
        client.close()
    until(lambda: workers(daemon) == 1, what="the end of the workers")
    daemon.docker("rm", "-f", name)


def workers(daemon):
    """Processes named as the workers are, whose parent or grandparent is this daemon."""
    found = 0
    for entry in Path("/proc").iterdir():
        try:
            fields = (entry / "stat").read_text().rpartition(")") if entry.name.isdecimal() else ("", "", "")
            if "(wharfie-files" in fields[0] and daemon.process.pid in _ancestors(entry.name):
                found += 1
        except OSError:
            continue
    return found


def _ancestors(pid):
    parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return {parent, int(Path(f"/proc/{parent}/stat").read_text().rpartition(")")[2].split()[1])}


def test_many_at_once(daemon, name):
    daemon.docker("create", "--name", name, "busybox", "true")
    failed = []

    def copy(number):
        if put(daemon, name, "/tmp", tar_of((f"f{number}", b"x")))[0] != 200:
            failed.append(number)

    threads = [threading.Thread(target=copy, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert len(names(daemon.run_docker("cp", f"{name}:/tmp/.", "-").stdout)) == 13
