"""`wharfie volume export` and `import`: everything in a volume, as it was at one moment."""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.harness import until

WHARFIE = str(Path(sys.executable).with_name("wharfie"))


@pytest.fixture
def wharfie(daemon):
    def run(*words, status=0, stdin=b""):
        result = subprocess.run(
            [WHARFIE, "-H", daemon.environment["DOCKER_HOST"], *map(str, words)],
            input=stdin,
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert result.returncode == status, result.stderr.decode()
        return result.stdout if status == 0 else result.stderr.decode()

    return run


def _run(daemon, volume, line):
    return daemon.docker("run", "--rm", "-v", f"{volume}:/v:nocopy", "busybox", "sh", "-c", line)


def test_a_volume_goes_out_and_comes_in_whole(daemon, name, wharfie, tmp_path):
    """Owners, modes, links, times, and the volume's own folder: PostgreSQL starts only in one of mode 0700."""
    fill = (
        "cd /v; chown 999:998 .; chmod 700 .; mkdir -p a/b; echo text > a/b/file; chown 5:6 a/b/file; chmod 640 a/b/file;"
        " ln -s ../none a/link; ln a/b/file a/twin; touch -d '2001-02-03 04:05:06' a/b; mkfifo pipe; touch .hidden .wh.odd"
    )
    _run(daemon, f"{name}-a", fill)
    look = (
        "cd /v; find . | sort | xargs stat -c '%n %u %g %a %h %F %Y' | grep -v 'link\\|pipe'; readlink a/link; cat a/b/file"
    )
    before = _run(daemon, f"{name}-a", look)
    archive = tmp_path / "a.tar"
    wharfie("volume", "export", "-o", archive, f"{name}-a")
    assert [path.name for path in tmp_path.iterdir()] == ["a.tar"]
    assert wharfie("volume", "import", "-i", archive, f"{name}-b").decode().strip() == f"{name}-b"
    assert ". 999 998 700" in before
    assert _run(daemon, f"{name}-b", look) == before
    piped = wharfie("volume", "export", f"{name}-a")
    zipped = subprocess.run(["gzip"], input=piped, capture_output=True, check=True).stdout
    wharfie("volume", "import", f"{name}-c", stdin=zipped)
    assert _run(daemon, f"{name}-c", look) == before


def test_containers_stand_still_meanwhile(daemon, name, wharfie):
    """Each pair of files is written one after the other: an archive of one moment never has more of the second kind."""
    line = "i=0; while :; do i=$((i+1)); echo $i > /v/first-$i; echo $i > /v/second-$i; done"
    daemon.docker("run", "-d", "--name", name, "-v", f"{name}:/v", "busybox", "sh", "-c", line)
    until(lambda: int(_run(daemon, name, "ls /v | wc -l")) > 200)
    with tarfile.open(fileobj=io.BytesIO(wharfie("volume", "export", name))) as archive:
        names = archive.getnames()
    first, second = (sum(f"{kind}-" in entry for entry in names) for kind in ("first", "second"))
    assert first - second in (0, 1) and first > 100
    assert daemon.inspect(name)["State"]["Status"] == "running"


def test_a_client_that_leaves_lets_the_containers_go_on(daemon, name):
    _run(daemon, name, "dd if=/dev/zero of=/v/big bs=1M count=64 2>/dev/null")
    daemon.docker("run", "-d", "--name", name, "-v", f"{name}:/v", "busybox", "sleep", "600")
    command = [WHARFIE, "-H", daemon.environment["DOCKER_HOST"], "volume", "export", name]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.read(1000)
        assert until(lambda: daemon.inspect(name)["State"]["Status"] == "paused")
        process.kill()
    until(lambda: daemon.inspect(name)["State"]["Status"] == "running")
    daemon.docker("rm", "-f", name)
    daemon.docker("volume", "rm", name)


def test_a_daemon_that_dies_meanwhile_lets_the_containers_go_on(make_daemon):
    """But not one that the user paused."""
    daemon = make_daemon(busybox=True)
    _run(daemon, "data", "dd if=/dev/zero of=/v/big bs=1M count=64 2>/dev/null")
    daemon.docker("run", "-d", "--name", "busy", "-v", "data:/v", "busybox", "sleep", "600")
    daemon.docker("run", "-d", "--name", "still", "busybox", "sleep", "600")
    daemon.docker("pause", "still")
    command = [WHARFIE, "-H", daemon.environment["DOCKER_HOST"], "volume", "export", "data"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        process.stdout.read(1000)
        assert until(lambda: daemon.inspect("busy")["State"]["Status"] == "paused")
        daemon.kill()
        process.kill()
    daemon.start()
    assert daemon.inspect("busy")["State"]["Status"] == "running"
    assert daemon.docker("exec", "busy", "echo", "alive") == "alive"
    assert daemon.inspect("still")["State"]["Status"] == "paused"


@pytest.mark.parametrize("made", [True, False], ids=["new", "empty"])
def test_a_daemon_that_dies_in_an_import_leaves_no_part_of_it(make_daemon, made):
    daemon = make_daemon()
    if not made:
        daemon.docker("volume", "create", "data")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for number in range(4):
            entry = tarfile.TarInfo(f"folder/file-{number}")
            entry.size = 4 << 20
            archive.addfile(entry, io.BytesIO(bytes(entry.size)))
    folder = daemon.data / "volume" / "local" / "data" / "_data"
    command = [WHARFIE, "-H", daemon.environment["DOCKER_HOST"], "volume", "import", "data"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdin is not None
        process.stdin.write(buffer.getvalue()[: 9 << 20])
        process.stdin.flush()
        until(lambda: (folder / "folder" / "file-1").exists())
        daemon.kill()
        process.kill()
    daemon.start()
    if made:
        assert daemon.docker("volume", "ls", "-q") == ""
    else:
        assert list(folder.iterdir()) == []


def test_an_import_that_fails_leaves_the_volume_empty(daemon, name, wharfie):
    daemon.docker("volume", "create", name)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path in ("folder/file", "../outside"):
            archive.addfile(tarfile.TarInfo(path))
    assert "outside of the" in wharfie("volume", "import", name, stdin=buffer.getvalue(), status=1)
    assert _run(daemon, name, "ls -A /v") == ""


def test_what_is_refused(daemon, name, wharfie):
    assert "no such volume" in wharfie("volume", "export", f"{name}-none", status=1)
    _run(daemon, name, "echo x > /v/x")
    archive = wharfie("volume", "export", name)
    assert "the volume is not empty" in wharfie("volume", "import", name, stdin=archive, status=1)
    daemon.docker("run", "-d", "--name", name, "-v", f"{name}-used:/v", "busybox", "sleep", "600")
    assert f"in use by {name}: stop" in wharfie("volume", "import", f"{name}-used", stdin=archive, status=1)
    for damaged in (b"no archive at all" * 100, archive[:700]):
        wharfie("volume", "import", f"{name}-new", stdin=damaged, status=1)
        assert f"{name}-new" not in daemon.docker("volume", "ls", "-q")


def test_an_archive_leads_nowhere_else(daemon, name, tmp_path):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        link = tarfile.TarInfo("out")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path)
        archive.addfile(link)
        archive.addfile(tarfile.TarInfo("out/planted"))
    command = [WHARFIE, "-H", daemon.environment["DOCKER_HOST"], "volume", "import", name]
    subprocess.run(command, input=buffer.getvalue(), capture_output=True, check=False)
    assert list(tmp_path.iterdir()) == []
