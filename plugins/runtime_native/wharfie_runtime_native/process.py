"""A process made ready for execve, the same for a container's first one and for an exec: streams, limits, user,
capabilities, working directory, program. Runs in the child, inside the container's root."""

from __future__ import annotations

import errno
import os
import resource
import signal
import socket
import stat
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from wharfie.spi.errors import InvalidArgument, Unsupported
from wharfie_runtime_native import capabilities
from wharfie_runtime_native.capabilities import Capabilities
from wharfie_runtime_native.constants import (
    CLOSE_RANGE_CLOEXEC,
    PR_SET_DUMPABLE,
    PR_SET_KEEPCAPS,
    PR_SET_NO_NEW_PRIVS,
    PR_SET_PDEATHSIG,
)
from wharfie_runtime_native.errors import reason
from wharfie_runtime_native.syscalls import close_range, prctl
from wharfie_runtime_native.syscalls import seccomp as seccomp_call

if TYPE_CHECKING:
    from wharfie_runtime_native.attributes import Attributes

_LAST_FD: Final = 0xFFFFFFFF
_SECCOMP_SET_MODE_FILTER: Final = 1
_WITH_ATTRIBUTES: Final = ("scheduler", "ioPriority", "execCPUAffinity")
_DEFAULT_UMASK: Final = 0o022


class ProcessSpec(NamedTuple):
    """`process` of config.json (OCI runtime-spec, config.md "Process"), checked. `filter`: a seccomp program."""

    args: tuple[str, ...]
    env: Mapping[str, str]
    cwd: str = "/"
    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()
    umask: int = _DEFAULT_UMASK
    terminal: bool = False
    no_new_privileges: bool = False
    oom_score_adj: int | None = None
    limits: tuple[tuple[str, int, int], ...] = ()  # name, soft, hard
    capabilities: Capabilities = Capabilities()
    console_size: tuple[int, int] | None = None  # rows, columns
    attributes: Attributes | None = None
    filter: bytes = b""
    filter_flags: int = 0
    notify: bool = False


def parse(process: Mapping[str, Any], personality: Mapping[str, Any] | None = None) -> ProcessSpec:
    """`personality`: of `linux`. Errors: InvalidArgument naming the field, Unsupported (what this kernel has not got)."""
    args = tuple(process.get("args") or ())
    if not args:
        raise InvalidArgument("process.args is empty: there is no command to run")
    user = process.get("user") or {}
    cwd = str(process.get("cwd") or "/")
    if not cwd.startswith("/"):
        raise InvalidArgument(f'working directory "{cwd}" is not absolute')
    env: dict[str, str] = {}
    for entry in process.get("env") or ():
        name, separator, value = entry.partition("=")
        if not separator or not name:
            raise InvalidArgument(f'environment entry "{entry}" is not NAME=value')
        env[name] = value
    for text in (*args, cwd, *env.values()):
        if "\0" in text:
            raise InvalidArgument("a command, working directory or environment entry has a NUL character in it")
    if process.get("apparmorProfile") not in (None, "", "unconfined"):
        raise unsupported_label("apparmor", f'the AppArmor profile "{process["apparmorProfile"]}"')
    if process.get("selinuxLabel"):
        raise unsupported_label("selinux", f'process.selinuxLabel "{process["selinuxLabel"]}"')
    attributes = None
    if personality or any(process.get(key) for key in _WITH_ATTRIBUTES):
        from wharfie_runtime_native.attributes import (
            parse as parse_attributes,
        )  # hardly ever needed, and no shim's business

        attributes = parse_attributes(process, personality)
    size = process.get("consoleSize")
    return ProcessSpec(
        args=args,
        env=env,
        cwd=cwd,
        uid=_id(user, "uid"),
        gid=_id(user, "gid"),
        groups=tuple(user.get("additionalGids") or ()),
        umask=_DEFAULT_UMASK if user.get("umask") is None else int(user["umask"]),
        terminal=bool(process.get("terminal")),
        no_new_privileges=bool(process.get("noNewPrivileges")),
        oom_score_adj=process.get("oomScoreAdj"),
        limits=tuple(_limit(entry) for entry in process.get("rlimits") or ()),
        capabilities=capabilities.parse(process.get("capabilities") or {}),
        console_size=(int(size["height"]), int(size.get("width") or 0)) if size and size.get("height") else None,
        attributes=attributes,
    )


def unsupported_label(module: str, what: str) -> Unsupported:
    """Why a label of a Linux security module is refused."""
    if os.path.exists(f"/sys/fs/{module}" if module == "selinux" else f"/sys/kernel/security/{module}"):
        return Unsupported(f"the native runtime cannot apply {what}; use another runtime, or none of it")
    return Unsupported(f"cannot apply {what}: this kernel runs without that security module")


def _id(user: Mapping[str, Any], key: str) -> int:
    value = int(user.get(key) or 0)
    if not 0 <= value < 0xFFFFFFFF:  # the last one is (uid_t)-1, "no change"
        raise InvalidArgument(f"process.user.{key} {value} is outside 0 … 4294967294")
    return value


def _limit(entry: Mapping[str, Any]) -> tuple[str, int, int]:
    name = str(entry.get("type", ""))
    if not name.startswith("RLIMIT_") or not hasattr(resource, name):
        raise InvalidArgument(f'process.rlimits: "{name}" is unknown')
    soft, hard = int(entry.get("soft", 0)), int(entry.get("hard", 0))
    if soft > hard:
        raise InvalidArgument(f"process.rlimits: {name} has soft {soft} above hard {hard}")
    return name, soft, hard


def set_oom_score_adj(value: int | None) -> None:
    """While the host's /proc is there. Errors: InvalidArgument (lower than the engine's own without a privilege)."""
    if value is None:
        return
    try:
        fd = os.open("/proc/self/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, str(value).encode())
        finally:
            os.close(fd)
    except OSError as error:
        with open("/proc/self/oom_score_adj", encoding="ascii") as file:
            if int(file.read()) == value:
                return
        raise InvalidArgument(f"cannot set oomScoreAdj to {value}: {reason(error)}") from error


def set_limits(limits: Sequence[tuple[str, int, int]], pid: int = 0) -> None:
    """Of this process, or of another. Errors: InvalidArgument naming the limit."""
    for name, soft, hard in limits:
        kind = int(getattr(resource, name))
        values = tuple(resource.RLIM_INFINITY if value >= 1 << 63 else value for value in (soft, hard))
        try:
            resource.prlimit(pid, kind, (values[0], values[1]))
        except (OSError, ValueError) as error:
            allowed = resource.getrlimit(kind)[1]
            raise InvalidArgument(
                f"error setting rlimit {name} to soft {soft}, hard {hard}: the engine's own hard limit is "
                f"{'unlimited' if allowed == resource.RLIM_INFINITY else allowed} and may not be raised ({error})"
            ) from error


def redirect(stdin: int, stdout: int, stderr: int) -> None:
    """Put three descriptors on 0, 1 and 2, whatever their numbers are now."""
    high = [os.dup(fd) if fd > 2 else _dup_high(fd) for fd in (stdin, stdout, stderr)]
    for target, fd in enumerate(high):
        os.dup2(fd, target, inheritable=True)
        os.close(fd)


def _dup_high(fd: int) -> int:
    copies = [os.dup(fd)]
    while copies[-1] <= 2:
        copies.append(os.dup(fd))
    for copy in copies[:-1]:
        os.close(copy)
    return copies[-1]


def own_streams(uid: int, gid: int) -> None:
    """Let the process's user reopen its streams by /dev/stdout. Terminals and pipes are given, devices stay."""
    for fd in (0, 1, 2):
        status = os.fstat(fd)
        if status.st_uid == uid or (stat.S_ISCHR(status.st_mode) and status.st_rdev == os.makedev(1, 3)):
            continue
        try:
            os.fchown(fd, uid, gid if not stat.S_ISCHR(status.st_mode) else -1)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EPERM, errno.EROFS):  # ids not mapped, read-only files
                raise


def try_directory(cwd: str) -> bool:
    """Change to the working directory while still privileged; False when the kernel forbids even that."""
    try:
        os.chdir(cwd)
    except PermissionError:
        return False
    except OSError as error:
        raise _bad_directory(cwd, error) from error
    return True


def enter_directory(cwd: str) -> None:
    """Be in the working directory as the process's user, and make sure that it is inside: a host directory left open by
    mistake could be reached as /proc/self/fd/N (CVE-2024-21626). "" stays where the process is.

    Errors: InvalidArgument.
    """
    try:
        if cwd:
            os.chdir(cwd)
        inside = os.getcwd().startswith("/")
    except FileNotFoundError:  # the kernel said "(unreachable)…", or the folder is gone
        inside = False
    except OSError as error:
        raise _bad_directory(cwd, error) from error
    if not inside:
        raise InvalidArgument("the working directory is outside of the container, or was removed")


def _bad_directory(cwd: str, error: OSError) -> InvalidArgument:
    return InvalidArgument(f'chdir to cwd ("{cwd}") set in config.json failed: {reason(error)}')


def find_program(name: str, path: str | None) -> str:
    """The file that execve will be given, found as Go's exec.LookPath does, whose words Docker's users and its CLI know.

    Errors: InvalidArgument.
    """
    if "/" in name:
        problem = _problem(name)
        if problem is not None:
            raise InvalidArgument(f'exec: "{name}": {problem}')
        return name
    for folder in (path or "").split(":"):
        candidate = f"{folder or '.'}/{name}"
        if _problem(candidate) is None:
            if not candidate.startswith("/"):
                raise InvalidArgument(f'exec: "{name}": cannot run executable found relative to current directory')
            return candidate
    raise InvalidArgument(f'exec: "{name}": executable file not found in $PATH')


def _problem(path: str) -> str | None:
    """Why a path is not a program, None when it is."""
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        return f"stat {path}: {reason(error)}"
    if stat.S_ISDIR(mode):
        return "is a directory"
    if not os.access(path, os.X_OK, effective_ids=True):
        return "permission denied"
    return None


def become(spec: ProcessSpec) -> None:
    """Change groups, user and capabilities, but for what installing a seccomp filter needs (see `seal`)."""
    capabilities.drop_bounding(spec.capabilities)
    prctl(PR_SET_KEEPCAPS, 1)
    try:
        os.setgroups(spec.groups)
        os.setresgid(spec.gid, spec.gid, spec.gid)
        os.setresuid(spec.uid, spec.uid, spec.uid)
    except OSError as error:
        names = f"user {spec.uid}, group {spec.gid}, additional groups {list(spec.groups)}"
        cause = "not all of them are mapped in the user namespace" if error.errno == errno.EINVAL else reason(error)
        raise InvalidArgument(f"cannot become {names}: {cause}") from error
    prctl(PR_SET_KEEPCAPS, 0)
    late = capabilities.SYS_ADMIN if spec.filter and not spec.no_new_privileges else 0
    capabilities.prepare(spec.capabilities, late)
    # A change of user clears the parent's death signal, and sets dumpable to whatever fs.suid_dumpable says.
    prctl(PR_SET_DUMPABLE, 0)
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if spec.no_new_privileges:
        prctl(PR_SET_NO_NEW_PRIVS, 1)


def close_others(preserve: int = 0) -> None:
    """Leave exactly 0, 1 and 2 to the program, and as many more as it was promised; the rest, known to us or not, closes
    at execve (CVE-2016-9962)."""
    close_range(3 + preserve, _LAST_FD, CLOSE_RANGE_CLOEXEC)


def seal(spec: ProcessSpec, end: socket.socket) -> None:
    """Install the filter and drop the last capability: after this only execve is left to be called. `end`: of the channel
    to the parent, who passes the filter's listener on when it has one."""
    filter_calls(spec, end)
    capabilities.finish(spec.capabilities)


def filter_calls(spec: ProcessSpec, end: socket.socket) -> None:
    """The first half of `seal`."""
    try:
        if spec.notify:
            from wharfie_runtime_native.seccomp.listener import install

            install(end, spec.filter, spec.filter_flags)
        elif spec.filter:
            seccomp_call(_SECCOMP_SET_MODE_FILTER, spec.filter_flags, spec.filter)
    except OSError as error:
        raise InvalidArgument(f"cannot install the seccomp filter: {reason(error)}") from error


def execute(spec: ProcessSpec, program: str) -> None:
    """Does not return. Errors: InvalidArgument with the kernel's word."""
    try:
        os.execve(program, spec.args, dict(spec.env))
    except OSError as error:
        raise InvalidArgument(f'exec "{program}": {reason(error)}') from error
