"""Mounts beyond the plain bind: ids mapped, attributes for all below, a tmpfs with the image's content, propagation."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from wharfie_runtime_native import mounts

from wharfie.spi.errors import InvalidArgument

KERNEL = tuple(int(part) for part in os.uname().release.split(".")[:2])

MAPPING = [{"containerID": 0, "hostID": 100000, "size": 65536}]


def bind(destination, source, *options, **more):
    return {"destination": destination, "type": "bind", "source": str(source), "options": ["rbind", *options], **more}


@pytest.fixture
def volume(work):
    """A folder on the disk, whose file system can be id-mapped, with a mount below it."""
    folder = work / "volume"
    (folder / "below").mkdir(parents=True)
    (folder / "file").write_text("content\n")
    os.chown(folder / "file", 7, 8)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "below", folder / "below"], check=True)
    (folder / "below/file").touch()
    yield folder
    subprocess.run(["umount", folder / "below"], check=True)
    (folder / "below").rmdir()
    (folder / "file").unlink()
    for left in folder.iterdir():
        left.unlink()
    folder.rmdir()


@pytest.mark.parametrize(
    ("option", "below"),
    [(["idmap"], "0:0"), (["ridmap"], "100000:100000"), ([], "0:0")],
)
def test_ids_are_mapped(bare, volume, option, below):
    """Both ways: what is on the disk is seen as another's, and what another makes is written as his there."""
    bare.spec["mounts"].append(bind("/v", volume, *option, uidMappings=MAPPING, gidMappings=MAPPING))
    bare.spec["process"]["user"] = {"uid": 100000, "gid": 100000}
    if option == ["ridmap"] and KERNEL < (6, 3):  # which brought it to tmpfs
        with pytest.raises(InvalidArgument, match="cannot be id-mapped by this kernel"):
            bare.create("true")
        return
    assert bare.sh("stat -c %u:%g /v/file /v/below/file; touch /v/made") == f"100007:100008\n{below}\n"
    assert ((volume / "made").stat().st_uid, (volume / "file").stat().st_uid) == (0, 7)


def test_ids_are_mapped_as_the_containers_users(bare, volume):
    """In a user namespace: root's files on the disk are the container's root's."""
    bare.spec["linux"]["namespaces"].append({"type": "user"})
    bare.spec["linux"].update(uidMappings=MAPPING, gidMappings=MAPPING)
    bare.spec["process"]["user"]["additionalGids"] = []
    for path in (bare.root, *bare.root.rglob("*")):
        os.chown(path, 100000, 100000, follow_symlinks=False)
    bare.spec["mounts"] += [bind("/v", volume, "idmap"), bind("/plain", volume)]
    assert bare.sh("stat -c %u:%g /v/file /plain/file; touch /v/made") == "7:8\n65534:65534\n"
    assert (volume / "made").stat().st_uid == 0


def test_a_file_system_that_cannot_be_mapped_is_named(bare):
    bare.spec["mounts"].append(bind("/v", "/proc", uidMappings=MAPPING, gidMappings=MAPPING))
    with pytest.raises(InvalidArgument, match=r'"/proc" to rootfs at "/v": the file system.* cannot be id-mapped'):
        bare.create("true")
    assert not bare.groups()


@pytest.mark.parametrize(
    ("entry", "word"),
    [
        ({"type": "tmpfs", "options": ["idmap"]}, "only a bind mount"),
        ({"type": "bind", "source": "/", "uidMappings": MAPPING}, "belong together"),
        ({"type": "proc", "options": ["tmpcopyup"]}, "tmpcopyup is for a tmpfs"),
    ],
)
def test_mounts_that_make_no_sense(entry, word):
    with pytest.raises(InvalidArgument, match=word):
        mounts.parse({"destination": "/v", **entry})


def test_mapping_without_a_map(bare, volume):
    bare.spec["mounts"].append(bind("/v", volume, "idmap"))
    with pytest.raises(InvalidArgument, match="idmap needs uidMappings and gidMappings"):
        bare.create("true")


def test_a_tmpfs_with_what_the_image_has_there(bare):
    (bare.root / "data/deep").mkdir()
    (bare.root / "data/deep/file").write_text("content\n")
    os.chown(bare.root / "data/deep/file", 5, 6)
    (bare.root / "data/link").symlink_to("/etc/passwd")
    bare.spec["mounts"].append(
        {"destination": "/data", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup", "ro", "noexec"]}
    )
    script = "cd data; stat -c %u:%g deep/file; cat deep/file; readlink link; grep ' /data ' /proc/self/mounts; touch x"
    code, out, err = bare.run("sh", "-c", script)
    assert out.split()[:4] == ["5:6", "content", "/etc/passwd", "tmpfs"]
    assert (code, "Read-only" in err) == (1, True)


def test_attributes_of_a_file_system_and_all_below(bare):
    bare.spec["mounts"] += [
        {"destination": "/data", "type": "tmpfs", "source": "tmpfs", "options": ["rro", "rnosuid", "rnosymfollow"]},
        {"destination": "/dev/shm", "options": ["remount", "bind", "ro"]},
        {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["remount", "noexec"]},
    ]
    options = dict(line.split()[1:4:2] for line in bare.sh("cat /proc/self/mounts").splitlines())
    assert {"ro", "nosuid", "nosymfollow"} <= set(options["/data"].split(","))
    assert {"ro", "nosuid", "nodev"} <= set(options["/dev/shm"].split(","))
    assert "noexec" in options["/dev/mqueue"].split(",")


@pytest.mark.parametrize(("propagation", "sees"), [("slave", True), ("private", False), ("shared", False)])
def test_what_the_root_hears_of_the_host(bare, propagation, sees):
    host = bare.root.parent
    subprocess.run(["mount", "--bind", host, host], check=True)
    try:
        subprocess.run(["mount", "--make-shared", host], check=True)
        bare.spec["linux"]["rootfsPropagation"] = propagation
        bare.sleeping()
        subprocess.run(["mount", "-t", "tmpfs", "late", bare.root / "data"], check=True)
        try:
            found = bare.exec("grep", "-c", " /data ", "/proc/self/mounts")[1].strip()
            assert found == ("1" if sees else "0")
            tags = bare.exec("sh", "-c", "grep -m1 ' / / ' /proc/self/mountinfo || head -n 1 /proc/self/mountinfo")[1]
            assert ("shared:" in tags, "master:" in tags) == (propagation == "shared", sees)
            assert "inside" not in Path("/proc/self/mountinfo").read_text()
        finally:
            subprocess.run(["umount", bare.root / "data"], check=True)
    finally:
        subprocess.run(["umount", "-l", host], check=True)
