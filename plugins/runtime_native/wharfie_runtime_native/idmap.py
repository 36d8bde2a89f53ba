"""Id-mapped mounts: files of a mount seen with other owners (mount_setattr(2), MOUNT_ATTR_IDMAP; runtime-spec, config.md
"Mounts"). Imported only when a configuration has some.

The kernel takes a mapping from a user namespace. Unless that is the container's own and is there already, one is made for
it: a process that waits in a new user namespace until the namespace has been opened.
"""

from __future__ import annotations

import errno
import os
import signal
from pathlib import Path
from typing import NoReturn

from wharfie.spi.errors import InvalidArgument
from wharfie_runtime_native.constants import AT_RECURSIVE, CLONE_NEWUSER, MOUNT_ATTR_IDMAP, PR_SET_PDEATHSIG
from wharfie_runtime_native.errors import reason
from wharfie_runtime_native.syscalls import mount_setattr, prctl, unshare


def open_user_namespace(uid_map: str, gid_map: str) -> int:
    """A descriptor of a user namespace with these maps; it lives as long as what refers to it. Errors: InvalidArgument."""
    ready_read, ready_write = os.pipe()
    pid = os.fork()
    if pid == 0:
        _wait_inside(ready_write)
    os.close(ready_write)
    try:
        word = os.read(ready_read, 256).decode()
        if not word.isdecimal():
            raise InvalidArgument(f"cannot make a user namespace for an id-mapped mount: {word or 'killed'}")
        try:
            Path(f"/proc/{word}/uid_map").write_text(uid_map)
            Path(f"/proc/{word}/gid_map").write_text(gid_map)
        except OSError as error:
            raise InvalidArgument(f"the kernel refuses the id mappings of a mount: {reason(error)}") from error
        return os.open(f"/proc/{word}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(ready_read)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _wait_inside(ready: int) -> NoReturn:
    """Says its pid as /proc has it, which shows the host's pid namespace, when it is there."""
    try:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        unshare(CLONE_NEWUSER)
        os.write(ready, os.fsencode(Path("/proc/self").readlink()))
        signal.pause()
    except OSError as error:
        os.write(ready, (error.strerror or "").encode())
    finally:
        os._exit(0)


def apply(tree: int, user_namespace: int, *, recursive: bool, what: str) -> None:
    """Map the ids of a detached mount. `what`: its description for messages.

    Errors: InvalidArgument (the file system cannot be mapped, or is already).
    """
    try:
        mount_setattr(tree, "", AT_RECURSIVE if recursive else 0, attr_set=MOUNT_ATTR_IDMAP, userns_fd=user_namespace)
    except OSError as error:
        cause = reason(error)
        if error.errno == errno.EINVAL:
            cause = "the file system, or one mounted below it, cannot be id-mapped by this kernel"
        raise InvalidArgument(f"error mounting {what}: {cause}") from error
