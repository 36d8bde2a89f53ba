"""Volumes, binds and tmpfs with the stock CLI."""

from __future__ import annotations

import json
import threading

from tests.harness import busybox_tar


def test_a_named_volume_keeps_its_data(daemon, name):
    daemon.docker("run", "--rm", "-v", f"{name}:/data", "busybox", "sh", "-c", "echo kept > /data/file")
    assert daemon.docker("run", "--rm", "-v", f"{name}:/data:ro", "busybox", "cat", "/data/file") == "kept"
    text = daemon.docker("run", "--rm", "-v", f"{name}:/data:ro", "busybox", "touch", "/data/x", status=1, both=True)
    assert "Read-only file system" in text
    assert daemon.docker("volume", "ls", "-q", "--filter", f"name={name}") == name
    daemon.docker("volume", "rm", name)
    assert "no such volume" in daemon.docker("volume", "inspect", name, status=1, both=True)


def test_what_volumes_take(daemon, name):
    """A file system of its own is left out, as by dockerd."""
    daemon.docker("volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", f"{name}-tmpfs")
    daemon.docker("run", "--rm", "-v", f"{name}:/v", "busybox", "dd", "if=/dev/zero", "of=/v/x", "bs=1k", "count=100")
    listed = daemon.docker("system", "df", "-v", "--format", "{{range .Volumes}}{{.Name}} {{.Links}} {{.Size}}\n{{end}}")
    assert [line for line in listed.splitlines() if name in line] == [f"{name} 0 102.4kB"]


def test_a_volume_in_use_stays(daemon, name):
    container = daemon.docker("create", "--name", name, "-v", f"{name}-v:/data", "busybox")
    text = daemon.docker("volume", "rm", f"{name}-v", status=1, both=True)
    assert f"remove {name}-v: volume is in use - [{container}]" in text


def test_content_of_the_image_is_copied_up(daemon, name):
    changes = ("--change", 'CMD ["sh"]', "--change", "VOLUME /etc")
    daemon.docker("import", *changes, "-", f"{name}:image", stdin=busybox_tar())
    try:
        daemon.docker("run", "--rm", "-v", f"{name}:/home", f"{name}:image", "true")
        assert "root:x:0:0" in daemon.docker("run", "--rm", "-v", f"{name}-etc:/etc", "busybox", "cat", "/etc/passwd")
        listing = daemon.docker("run", "--rm", "-v", f"{name}-tmp:/tmp", "busybox", "stat", "-c", "%a", "/tmp")
        assert listing == "1777"
        nocopy = daemon.docker("run", "--rm", "-v", f"{name}-no:/etc:nocopy", "busybox", "ls", "/etc")
        assert "passwd" not in nocopy
    finally:
        daemon.docker("rmi", "-f", f"{name}:image")


def test_an_anonymous_volume_goes_with_its_container(daemon, name):
    before = set(daemon.docker("volume", "ls", "-q").split())
    daemon.docker("run", "--rm", "-v", "/data", "busybox", "touch", "/data/x")
    assert set(daemon.docker("volume", "ls", "-q").split()) == before
    daemon.docker("run", "--name", name, "-v", "/data", "busybox", "true")
    assert len(set(daemon.docker("volume", "ls", "-q").split()) - before) == 1
    daemon.docker("rm", "-v", name)
    assert set(daemon.docker("volume", "ls", "-q").split()) == before


def test_a_volume_that_a_container_is_about_to_have_stays(make_daemon):
    """Others prune and remove all the time; no container is made whose volumes are gone."""
    daemon = make_daemon()
    done = threading.Event()

    def prune():
        while not done.is_set():
            daemon.request("POST", "/volumes/prune?filters=%7B%22all%22%3A%5B%22true%22%5D%7D")

    def remove():
        while not done.is_set():
            daemon.request("POST", "/volumes/create", {"Name": "named"})
            daemon.request("DELETE", "/volumes/named")

    others = [threading.Thread(target=work) for work in (prune, remove)]
    for other in others:
        other.start()
    try:
        body = {"Cmd": ["x"], "HostConfig": {"Binds": ["named:/n"]}, "Volumes": {"/a": {}, "/b": {}, "/c": {}}}
        for _ in range(6):
            status, made = daemon.request("POST", "/containers/create", body)
            assert status == 201
            mounts = daemon.request("GET", f"/containers/{made['Id']}/json")[1]["Mounts"]
            gone = [
                mount["Destination"] for mount in mounts if daemon.request("GET", f"/volumes/{mount['Name']}")[0] != 200
            ]
            assert (len(mounts), gone) == (4, [])
            daemon.request("DELETE", f"/containers/{made['Id']}?v=1")
    finally:
        done.set()
        for other in others:
            other.join()
    daemon.request("POST", "/volumes/prune?filters=%7B%22all%22%3A%5B%22true%22%5D%7D")
    assert daemon.request("GET", "/volumes")[1]["Volumes"] == []


def test_binds(daemon, tmp_path):
    (tmp_path / "file").write_text("from the host")
    assert daemon.docker("run", "--rm", "-v", f"{tmp_path}:/mnt", "busybox", "cat", "/mnt/file") == "from the host"
    one = daemon.docker(
        "run", "--rm", "-v", f"{tmp_path}/file:/one:ro", "busybox", "sh", "-c", "cat /one; echo x > /one", status=1
    )
    assert one == "from the host"
    daemon.docker("run", "--rm", "-v", f"{tmp_path}/made:/mnt", "busybox", "touch", "/mnt/y")
    assert (tmp_path / "made" / "y").exists()
    missing = daemon.docker(
        "run", "--rm", "--mount", f"type=bind,source={tmp_path}/none,target=/mnt", "busybox", "true", status=125, both=True
    )
    assert f'invalid mount config for type "bind": bind source path does not exist: {tmp_path}/none' in missing


def test_tmpfs(daemon):
    output = daemon.docker("run", "--rm", "--tmpfs", "/scratch:size=1m", "busybox", "sh", "-c", "mount | grep /scratch")
    assert "tmpfs" in output and "size=1024k" in output and "noexec" in output
    mounted = daemon.docker(
        "run", "--rm", "--mount", "type=tmpfs,target=/s,tmpfs-size=65536", "busybox", "sh", "-c", "mount | grep /s"
    )
    assert "size=64k" in mounted


def test_volumes_from_and_labels(daemon, name):
    daemon.docker("volume", "create", "--label", f"of={name}", f"{name}-v")
    daemon.docker("create", "--name", f"{name}-donor", "-v", f"{name}-v:/shared", "busybox")
    output = daemon.docker(
        "run", "--rm", "--volumes-from", f"{name}-donor", "busybox", "sh", "-c", "echo s > /shared/s; ls /shared"
    )
    assert output == "s"
    assert daemon.docker("volume", "ls", "-q", "--filter", f"label=of={name}") == f"{name}-v"
    assert json.loads(daemon.docker("volume", "inspect", f"{name}-v"))[0]["Labels"] == {"of": name}


def test_a_volume_target_that_is_a_link_stays_inside(daemon, name, tmp_path):
    """An image whose folder is a link to the host's /etc: neither mount nor copy-up follows it out of the root."""
    import io
    import tarfile

    buffer = io.BytesIO(busybox_tar())
    with tarfile.open(fileobj=buffer, mode="a") as tar:
        link = tarfile.TarInfo("escape")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path)
        tar.addfile(link)
    (tmp_path / "secret").write_text("of the host")
    daemon.docker("import", "--change", 'CMD ["sh"]', "-", f"{name}:image", stdin=buffer.getvalue())
    try:
        listing = daemon.docker("run", "--rm", "-v", f"{name}:/escape", f"{name}:image", "ls", "-A", "/escape/", both=True)
        assert "secret" not in listing
        assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["secret"]
    finally:
        daemon.docker("rmi", "-f", f"{name}:image")
