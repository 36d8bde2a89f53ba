"""The child's side of `exec`: a further process in a running container (setns(2)).

It is forked as a child of the shim straight into the container's pid namespace, not dumpable, and runs nothing of the
container before execve: every module is loaded, and every host file read, before the first namespace is entered.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NoReturn

from wharfie_runtime_native import capabilities, channel, process, seccomp, terminal
from wharfie_runtime_native.beginning import keyring, settle, start_over
from wharfie_runtime_native.cgroups.base import Cgroup
from wharfie_runtime_native.constants import CLONE_NEWUSER, PR_SET_DUMPABLE, PR_SET_PDEATHSIG
from wharfie_runtime_native.manner import Manner
from wharfie_runtime_native.namespaces import become_root_inside, id_map, outside
from wharfie_runtime_native.syscalls import prctl, setns

if TYPE_CHECKING:
    from wharfie.shim.engine import Streams


class Exec:
    """One further process. `run` does not return."""

    def __init__(
        self,
        id: str,
        process: Mapping[str, Any],
        linux: Mapping[str, Any],
        streams: Streams,
        cgroup: Cgroup,
        cache: str,
        pidfd: int,
        namespaces: int,
        manner: Manner,
    ) -> None:
        """`linux`: of the container's config.json. `pidfd`: of its first process. `namespaces`: CLONE_NEW… flags of what to
        share with that."""
        self._id = id
        self._process = process
        self._linux = linux
        self._cache = cache
        self._streams = streams
        self._cgroup = cgroup
        self._pidfd = pidfd
        self._namespaces = namespaces
        self._manner = manner

    def run(self, end: socket.socket) -> NoReturn:
        """In the forked child."""
        try:
            start_over(end, self._streams, self._pidfd, preserve=self._manner.preserve)
            spec = process.parse(self._process, self._linux.get("personality"))
            capabilities.check(spec.capabilities, capabilities.held())
            spec = seccomp.with_filter(spec, self._linux.get("seccomp"), self._cache)
            if self._manner.keyring:
                keyring(self._id)
            if spec.attributes is not None:
                spec.attributes.apply(lambda: self._cgroup.join(beside=self._pidfd))
            else:
                self._cgroup.join(beside=self._pidfd)
            process.set_oom_score_adj(spec.oom_score_adj)
            if self._namespaces & CLONE_NEWUSER:
                maps = [id_map(self._linux.get(f"{kind}Mappings") or (), kind) for kind in ("uid", "gid")]
                process.own_streams(outside(maps[0], spec.uid), outside(maps[1], spec.gid))
                process.set_limits(spec.limits)  # with the host's privileges; once more below changes nothing
            setns(self._pidfd, self._namespaces)
            os.close(self._pidfd)
            if self._namespaces & CLONE_NEWUSER:
                become_root_inside()
                prctl(PR_SET_DUMPABLE, 0)
            if spec.terminal:
                self._take_terminal(self._streams.size or spec.console_size)
            os.umask(spec.umask)
            process.set_limits(spec.limits)
            program = settle(spec)
            process.close_others(self._manner.preserve)
            if self._manner.outlive:
                prctl(PR_SET_PDEATHSIG, 0)
            process.seal(spec, end)
            process.execute(spec, program)
        except BaseException as error:  # noqa: BLE001  # whatever it is, the shim has to hear of it
            channel.fail(end, error)
        finally:
            os._exit(1)

    def _take_terminal(self, size: tuple[int, int] | None) -> None:
        root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        master, slave = terminal.open_pair(root, size)
        os.close(root)
        terminal.send(self._streams.console, master)
        os.close(master)
        process.redirect(slave, slave, slave)
        terminal.make_controlling(0)
