"""Bringing the processes of a checkpoint back, beside a container's first process that waits for its start."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

from wharfie.spi.errors import InvalidArgument
from wharfie_runtime_native.checkpoints import criu, traits
from wharfie_runtime_native.checkpoints.dump import read_record
from wharfie_runtime_native.constants import (
    AT_FDCWD,
    CLONE_NEWCGROUP,
    CLONE_NEWNS,
    MOVE_MOUNT_F_EMPTY_PATH,
    MS_PRIVATE,
    MS_REC,
    OPEN_TREE_CLOEXEC,
    OPEN_TREE_CLONE,
    PR_SET_NO_NEW_PRIVS,
)
from wharfie_runtime_native.errors import reason
from wharfie_runtime_native.syscalls import mount, move_mount, open_tree, pidfd_getfd, prctl, setns, unshare

LOG: Final = "restore.log"
PID: Final = "restore.pid"
_STAGE: Final = "stage"


def run(spec: Mapping[str, Any], waiting: int, folder: Path, work: Path, options: Sequence[str]) -> NoReturn:
    """Become criu, in whose place and as whose sibling the container's new first process appears. The caller is in the
    container's control group.

    `waiting`: the pid of the first process that `create` made. `work`: a folder for the log and the pid, and to mount on.
    `options`: of criu's. Errors: NotFound, InvalidArgument, Unsupported; what criu says is in the log.
    """
    traits.check(spec)
    program = criu.find()
    record = read_record(folder)
    for name in (LOG, PID):
        (work / name).unlink(missing_ok=True)
    words = ["restore", "--images-dir", str(folder), "--work-dir", str(work), "--log-file", LOG, *criu.COMMON]
    words += ["--pidfile", str(work / PID), "--restore-detached", "--restore-sibling", *options]
    pidfd = os.pidfd_open(waiting)
    for key, number in record["streams"].items():
        words += _inherited(pidfd_getfd(pidfd, number), key)
    if record["network"]:
        words += _inherited(os.open(f"/proc/{waiting}/ns/net", os.O_RDONLY), traits.NETWORK)
    if (spec.get("process") or {}).get("noNewPrivileges"):
        prctl(PR_SET_NO_NEW_PRIVS, 1)  # criu before 4 forgets it; what it forks has it from here
    if traits.has_own("cgroup", spec):
        unshare(CLONE_NEWCGROUP)  # its root is the group that this process is in
    for number, (point, path) in enumerate(_stage(waiting, ["/", *record["mounts"]], work / _STAGE).items()):
        words += ["--root", path] if number == 0 else ["--external", f"mnt[{point}]:{path}"]
    os.close(pidfd)
    os.execv(program, [program, *words])


def _inherited(fd: int, key: str) -> Sequence[str]:
    os.set_inheritable(fd, True)
    return ("--inherit-fd", f"fd[{fd}]:{key}")


def _stage(waiting: int, points: Sequence[str], stage: Path) -> Mapping[str, str]:
    """Copies of the waiting process's mounts, where this process, in a mount namespace of its own from now on, and criu can
    reach them; by mount point. Errors: InvalidArgument (it lacks one that the checkpoint has)."""
    theirs = os.open(f"/proc/{waiting}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    stage.mkdir(exist_ok=True)
    unshare(CLONE_NEWNS)
    mount("", "/", "", MS_REC | MS_PRIVATE, "")
    ours = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    setns(theirs, CLONE_NEWNS)
    trees = {point: _clone(point) for point in points}
    setns(ours, CLONE_NEWNS)
    mount("tmpfs", str(stage), "tmpfs", 0, "mode=0700")
    places = {}
    for number, (point, tree) in enumerate(trees.items()):
        place = stage / str(number)
        if stat.S_ISDIR(os.fstat(tree).st_mode):
            place.mkdir()
        else:
            place.touch()
        move_mount(tree, "", AT_FDCWD, str(place), MOVE_MOUNT_F_EMPTY_PATH)
        os.close(tree)
        places[point] = str(place)
    for fd in (theirs, ours):
        os.close(fd)
    return places


def _clone(point: str) -> int:
    try:
        return open_tree(AT_FDCWD, point, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC)
    except OSError as error:
        raise InvalidArgument(
            f"the checkpoint is of a container that has something mounted at {point}; this one has not: {reason(error)}"
        ) from error


def result(work: Path, code: int) -> int:
    """The pid of the new first process. Errors: as `criu.explain`."""
    try:
        pid = int((work / PID).read_text())
    except (OSError, ValueError):
        pid = 0
    if code or not pid:
        raise criu.explain(criu.find(), "restore", work / LOG)
    return pid
