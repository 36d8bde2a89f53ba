"""What `--mount` may say: parts of volumes, images, propagation, read-only below, file systems in files."""

from __future__ import annotations

import json
import subprocess

import pytest

from tests.harness import until


@pytest.fixture
def tree(tmp_path):
    """A folder with a file system mounted in it."""
    (tmp_path / "tree" / "below").mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "wharfie-test", tmp_path / "tree" / "below"], check=True)
    yield tmp_path / "tree"
    subprocess.run(["umount", "-l", tmp_path / "tree" / "below"], check=True)


def _fill(daemon, name, line):
    daemon.docker("run", "--rm", "-v", f"{name}:/v", "busybox", "sh", "-c", line)


def _staged(daemon):
    return [mount for mount in daemon.mounts() if "/staging/" in mount]


def test_a_part_of_a_volume(daemon, name):
    _fill(daemon, name, "mkdir -p /v/a/b; echo inside > /v/a/b/file; echo outside > /v/file")
    mount = f"type=volume,source={name},target=/m,volume-subpath=a/b"
    assert daemon.docker("run", "--rm", "--mount", mount, "busybox", "sh", "-c", "ls /m; cat /m/file") == "file\ninside"
    one = f"type=volume,source={name},target=/one,volume-subpath=a/b/file"
    container = daemon.docker("run", "-d", "--name", f"{name}-c", "--mount", one, "busybox", "sleep", "600")
    assert daemon.docker("exec", container, "cat", "/one") == "inside"
    assert _staged(daemon) == []
    daemon.docker("stop", "-t", "0", container)
    assert "inside\n" in daemon.docker("cp", f"{container}:/one", "-")
    missing = f"type=volume,source={name},target=/m,volume-subpath=a/none"
    text = daemon.docker("run", "--rm", "--mount", missing, "busybox", "true", status=127, both=True)
    assert "cannot access path" in text and "a/none: no such file or directory" in text
    assert _staged(daemon) == [] and list((daemon.run / "staging").iterdir()) == []


@pytest.mark.parametrize("link", ["/", "../../../../../../../..", "/etc", "../../../../etc"])
def test_a_part_of_a_volume_never_leads_out_of_it(daemon, name, link):
    """The links are a container's doing; the host has /etc/shadow, the volume has not."""
    _fill(daemon, name, f"echo mine > /v/mine; ln -s {link} /v/out; mkdir /v/etc; echo mine > /v/etc/mine")
    mount = f"type=volume,source={name},target=/m,volume-subpath=out"
    listing = daemon.docker("run", "--rm", "--mount", mount, "busybox", "ls", "-A", "/m").split()
    assert "mine" in listing and not {"shadow", "proc", "hostname"} & set(listing)
    container = daemon.docker("create", "--name", f"{name}-c", "--mount", mount, "busybox")
    assert "shadow" not in daemon.docker("cp", f"{container}:/m", "-")


@pytest.mark.parametrize("subpath", ["../x", "/etc", "a/../../x"])
def test_a_part_that_names_something_else_is_refused(daemon, name, subpath):
    mount = f"type=volume,source={name},target=/m,volume-subpath={subpath}"
    text = daemon.docker("create", "--mount", mount, "busybox", status=1, both=True)
    assert "subpath must be a relative path within the volume" in text


def test_an_image_as_a_volume(daemon, name):
    mount = "type=image,source=busybox,target=/other"
    container = daemon.docker("run", "-d", "--name", name, "--mount", mount, "busybox", "sleep", "600")
    assert "root:x:0:0" in daemon.docker("exec", name, "cat", "/other/etc/passwd")
    text = daemon.docker("exec", name, "touch", "/other/x", status=1, both=True)
    assert "Read-only file system" in text
    [shown] = daemon.inspect(container)["Mounts"]
    assert (shown["Type"], shown["Name"], shown["RW"]) == ("image", "busybox", False)
    assert _staged(daemon) == []
    daemon.docker("restart", "-t", "0", name)
    assert "passwd" in daemon.docker("exec", name, "ls", "/other/etc")
    part = f"{mount},image-subpath=etc"
    assert "passwd" in daemon.docker("run", "--rm", "--mount", part, "busybox", "ls", "/other")
    text = daemon.docker("create", "--mount", "type=image,source=none:1,target=/o", "busybox", status=1, both=True)
    assert "No such image: none:1" in text


@pytest.mark.parametrize(
    ("bind", "message"),
    [
        ("vol:/m:copy", "invalid mode: copy"),
        ("vol:/m:ro,ro", "invalid mode: ro,ro"),
        ("vol:/m:nocopy,nocopy", "invalid mode: nocopy,nocopy"),
        ("/tmp:/m:z,Z", "invalid mode: z,Z"),
        ("/tmp:/m:shared,slave", "invalid mode: shared,slave"),
        ("/tmp:/m:delegated,cached", "invalid mode: delegated,cached"),
        ("/tmp:/m:ro,", "invalid mode: ro,"),
        ("vol:ro", "invalid volume specification: 'vol:ro'"),
        ("/m:rprivate", "invalid volume specification: '/m:rprivate'"),
        (
            "/tmp:/m:nocopy",
            "invalid volume specification: '/tmp:/m:nocopy': invalid mount config for type \"bind\": field VolumeOptions "
            "must not be specified",
        ),
        (
            "vol:/m:rshared",
            "invalid volume specification: 'vol:/m:rshared': invalid mount config for type \"volume\": field BindOptions "
            "must not be specified",
        ),
    ],
)
def test_a_bind_that_says_too_much(daemon, name, bind, message):
    """Texts of a real dockerd, 20.10."""
    body = {"Image": "busybox", "HostConfig": {"Binds": [bind]}}
    assert daemon.request("POST", f"/containers/create?name={name}", body) == (400, {"message": message})


@pytest.mark.parametrize("mode", ["cached", "consistent,ro,z", "delegated,nocopy,Z"])
def test_what_only_docker_desktop_heeds_is_taken(daemon, name, mode):
    assert daemon.docker("run", "--rm", "-v", f"{name}:/m:{mode}", "busybox", "echo", "fine") == "fine"


@pytest.mark.parametrize(
    ("mount", "message"),
    [
        ({"Type": "odd", "Source": "a", "Target": "/m"}, 'invalid mount config for type "odd": mount type unknown'),
        (
            {"Type": "bind", "Source": "/etc/passwd/x", "Target": "/m"},
            'invalid mount config for type "bind": stat /etc/passwd/x: not a directory',
        ),
        (
            {"Type": "bind", "Source": "/tmp", "Target": "/m", "VolumeOptions": {}},
            'invalid mount config for type "bind": field VolumeOptions must not be specified',
        ),
        (
            {"Type": "volume", "Source": "vol", "Target": "/m", "BindOptions": {}},
            'invalid mount config for type "volume": field BindOptions must not be specified',
        ),
        (
            {"Type": "tmpfs", "Target": "/m", "BindOptions": {}},
            'invalid mount config for type "tmpfs": field BindOptions must not be specified',
        ),
        (
            {"Type": "volume", "Target": "/m", "ReadOnly": True},
            'invalid mount config for type "volume": must not set ReadOnly mode when using anonymous volumes',
        ),
        (
            {"Type": "volume", "Source": "/abs", "Target": "/m"},
            'create /abs: "/abs" includes invalid characters for a local volume name, only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are '
            "allowed. If you intended to pass a host directory, use absolute path",
        ),
    ],
)
def test_a_mount_that_makes_no_sense(daemon, name, mount, message):
    """Texts of a real dockerd, 20.10."""
    body = {"Image": "busybox", "HostConfig": {"Mounts": [mount]}}
    assert daemon.request("POST", f"/containers/create?name={name}", body) == (400, {"message": message})


@pytest.mark.parametrize(
    ("source", "target"), [("folder", "/etc/passwd"), ("file", "/etc")], ids=["folder on file", "file on folder"]
)
def test_a_folder_onto_a_file_and_the_other_way(daemon, name, tmp_path, source, target):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    daemon.docker("create", "--name", name, "-v", f"{tmp_path / source}:{target}", "busybox", "true")
    status, answer = daemon.request("POST", f"/containers/{name}/start")
    assert status == 400
    assert f'error mounting "{tmp_path / source}" to rootfs at "{target}": mount ' in answer["message"]
    assert answer["message"].endswith(
        ": not a directory: unknown: Are you trying to mount a directory onto a file (or vice-versa)? Check if the "
        "specified host path exists and is the expected type"
    )
    assert daemon.inspect(name)["State"]["ExitCode"] == 127


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"VolumesFrom": ["{}:zz"]}, "invalid mode: zz"),
        ({"VolumesFrom": ["{}:nocopy"]}, "invalid mode: nocopy"),
        ({"VolumesFrom": [""]}, "volumes-from specification cannot be an empty string"),
        ({"Tmpfs": {"m": ""}}, "invalid mount path: 'm' mount path must be absolute"),
        ({"Tmpfs": {"/": ""}}, "invalid specification: destination can't be '/'"),
    ],
)
def test_volumes_of_others_and_tmpfs_that_are_refused(daemon, name, options, message):
    """Texts of a real dockerd, 20.10."""
    daemon.docker("create", "--name", f"{name}-donor", "-v", f"{name}:/v", "busybox")
    if "VolumesFrom" in options:
        options = {"VolumesFrom": [text.format(f"{name}-donor") for text in options["VolumesFrom"]]}
    body = {"Image": "busybox", "HostConfig": options}
    assert daemon.request("POST", f"/containers/create?name={name}", body) == (400, {"message": message})


@pytest.mark.parametrize(("mode", "expected"), [("", "rw ro"), (":rw", "rw ro"), (":ro,z", "ro ro")])
def test_volumes_of_others_with_a_mode(daemon, name, mode, expected):
    """What is read-only there is never writable here."""
    donor = f"{name}-donor"
    daemon.docker("create", "--name", donor, "-v", f"{name}-a:/a", "-v", f"{name}-b:/b:ro", "--tmpfs", "/t", "busybox")
    line = "grep -E ' /(a|b|t) ' /proc/mounts | sort -k2 | cut -d' ' -f4 | cut -d, -f1"
    output = daemon.docker("run", "--rm", "--volumes-from", f"{donor}{mode}", "busybox", "sh", "-c", line)
    assert output.split() == expected.split()


def test_named_pipes_are_refused(daemon):
    text = daemon.docker("create", "--mount", "type=npipe,source=/a,target=/b", "busybox", status=1, both=True)
    assert "named pipes are of Windows" in text


@pytest.mark.parametrize(
    ("options", "itself", "below"),
    [
        ("", "rw", "rw"),
        (",readonly", "ro", "ro"),
        (",readonly,bind-recursive=writable", "ro", "rw"),
        (",readonly,bind-recursive=readonly,bind-propagation=rprivate", "ro", "ro"),
        (",bind-recursive=disabled", "rw", None),
        (",readonly,bind-nonrecursive", "ro", None),
    ],
)
def test_what_is_mounted_below_a_bind(daemon, tree, options, itself, below):
    mount = f"type=bind,source={tree},target=/m{options}"
    found = _mounted(daemon, mount)
    assert found["/m"][0] == itself
    assert found.get("/m/below", (None, None))[0] == below


@pytest.mark.parametrize("mode", ["private", "rprivate", "shared", "rshared", "slave", "rslave"])
def test_propagation(daemon, tmp_path, mode):
    """`shared` reaches the host and back, `slave` only comes in; the folder itself is a mount of its own for that."""
    folder = tmp_path / "p"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "wharfie-test", folder], check=True)
    try:
        subprocess.run(["mount", "--make-shared", folder], check=True)
        found = _mounted(daemon, f"type=bind,source={folder},target=/m,bind-propagation={mode}")
        expected = {"private": "", "shared": "shared:", "slave": "master:"}[mode.removeprefix("r")]
        assert found["/m"][1].startswith(expected) and bool(found["/m"][1]) == bool(expected)
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def _mounted(daemon, mount):
    """Mount point → (ro or rw, propagation), as the container sees it (proc_pid_mountinfo(5))."""
    lines = daemon.docker("run", "--rm", "--mount", mount, "busybox", "cat", "/proc/self/mountinfo").splitlines()
    entries = [line.partition(" - ")[0].split() for line in lines]
    return {words[4]: (words[5].split(",")[0], " ".join(words[6:])) for words in entries}


def test_labels_of_selinux_are_accepted(daemon, name, tmp_path):
    words = ("-v", f"{tmp_path}:/bind:z", "-v", f"{name}:/volume:ro,Z")
    assert daemon.docker("run", "--rm", *words, "busybox", "echo", "fine") == "fine"


@pytest.mark.parametrize("options", ["", "loop,ro"])
def test_a_file_system_in_a_file(daemon, name, tmp_path, options):
    image = tmp_path / "image"
    image.touch()
    with image.open("r+b") as file:
        file.truncate(8 << 20)
    subprocess.run(["mkfs.ext4", "-q", image], check=True)
    words = ["-o", "type=ext4", "-o", f"device={image}", *(["-o", f"o={options}"] if options else [])]
    daemon.docker("volume", "create", *words, name)
    line = "ls -d /m/lost+found; touch /m/x 2>/dev/null && echo written || echo not"
    output = daemon.docker("run", "--rm", "-v", f"{name}:/m", "busybox", "sh", "-c", line)
    assert output.split() == ["/m/lost+found", "not" if "ro" in options else "written"]
    # The device clears itself when the last mount namespace that saw it has gone.
    until(lambda: not subprocess.run(["losetup", "-j", image], capture_output=True, check=True).stdout)
    daemon.docker("volume", "rm", name)


def test_pruning_volumes(daemon, name):
    daemon.docker("volume", "create", "--label", f"of={name}", f"{name}-a")
    daemon.docker("volume", "create", "--label", f"of={name}", "--label", "keep", f"{name}-b")
    daemon.docker("volume", "create", "--label", f"of={name}", f"{name}-used")
    daemon.docker("create", "--name", name, "-v", f"{name}-used:/v", "busybox")
    unused = daemon.docker("volume", "ls", "-q", "-f", "dangling=true", "-f", f"label=of={name}").split()
    assert unused == [f"{name}-a", f"{name}-b"]
    assert name not in daemon.docker("volume", "prune", "-f", "--filter", f"label=of={name}")
    words = ("volume", "prune", "-af", "--filter", f"label=of={name}")
    pruned = daemon.docker(*words, "--filter", "label!=keep")
    assert f"{name}-a" in pruned and f"{name}-b" not in pruned and f"{name}-used" not in pruned
    assert f"{name}-b" in daemon.docker(*words)
    left = json.loads(daemon.docker("volume", "inspect", f"{name}-used"))
    assert left[0]["Labels"] == {"of": name}


def test_mounts_of_a_start_that_was_cut_off_go_without_their_content(make_daemon, tmp_path):
    own = make_daemon()
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("of somebody")
    place = own.run / "staging" / "deadbeef-0"
    place.mkdir(parents=True)
    subprocess.run(["mount", "--bind", tmp_path / "precious", place], check=True)
    own.kill()
    own.start()
    assert list((own.run / "staging").iterdir()) == []
    assert (tmp_path / "precious" / "file").read_text() == "of somebody"
