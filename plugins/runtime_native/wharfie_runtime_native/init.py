"""The child's side of `create`: from fork to execve of the container's first process.

Everything that can fail is done before the child says it is ready, in the order in which the kernel needs it; after
the word to go there is only the seccomp filter, the last capability and execve. The child is not dumpable until then:
a process that is already inside could otherwise read the interpreter's memory or reopen its files (CVE-2019-5736).
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NoReturn

from wharfie.spi.errors import InvalidArgument
from wharfie_runtime_native import (
    capabilities,
    channel,
    devices,
    gate,
    namespaces,
    process,
    reaper,
    rootfs,
    seccomp,
    sources,
    sysctls,
    terminal,
)
from wharfie_runtime_native.beginning import keyring, settle, start_over
from wharfie_runtime_native.cgroups.base import Cgroup
from wharfie_runtime_native.constants import (
    CLONE_NEWPID,
    CLONE_NEWUSER,
    MOUNT_ATTR_RDONLY,
    MS_RDONLY,
    PR_SET_DUMPABLE,
    PR_SET_PDEATHSIG,
)
from wharfie_runtime_native.errors import reason
from wharfie_runtime_native.manner import Manner
from wharfie_runtime_native.mounts import MountEntry
from wharfie_runtime_native.plan import Plan, parse
from wharfie_runtime_native.process import ProcessSpec
from wharfie_runtime_native.rootfs import Root
from wharfie_runtime_native.state import describe
from wharfie_runtime_native.syscalls import (
    mount_setattr,
    prctl,
    setdomainname,
    unshare,
)

if TYPE_CHECKING:
    from wharfie.shim.engine import Streams
    from wharfie_runtime_native.hooks import Hooks


class Init:
    """One container's first process. `run` does not return."""

    def __init__(
        self,
        id: str,
        bundle: str,
        spec: Mapping[str, Any],
        rootfs: str,
        streams: Streams,
        cgroup: Cgroup,
        cache: str,
        manner: Manner,
    ) -> None:
        """Costs next to nothing: what `run` makes of `spec` is memory of the child's, not of the shim's."""
        self._id = id
        self._bundle = bundle
        self._spec = spec
        self._rootfs = rootfs
        self._streams = streams
        self._cgroup = cgroup
        self._cache = cache
        self._manner = manner

    def run(self, end: socket.socket) -> NoReturn:
        """In the forked child."""
        try:
            start_over(end, self._streams, self._manner.gate, self._manner.lock, preserve=self._manner.preserve)
            plan = parse(self._spec)
            capabilities.check(plan.process.capabilities, capabilities.held())
            self._cgroup.apply(plan.resources)
            self._cgroup.join()
            if self._manner.keyring:
                keyring(self._id)
            process.set_oom_score_adj(plan.process.oom_score_adj)
            spec = seccomp.with_filter(plan.process, plan.seccomp, self._cache)
            if spec.attributes is not None:
                spec.attributes.apply()
            joined = namespaces.open_joined(plan.namespaces)
            tree, binds = sources.clone(self._rootfs, plan)
            self._enter_namespaces(end, plan, joined)
            identify(plan)
            slave = self._build_root(end, plan, tree, binds)
            program = self._get_ready(end, plan, spec, slave)
            end = self._change_parents(end)
            if spec.notify:
                # Here, since a process and what it forks can have one listener only.
                process.filter_calls(spec, end)
                spec = spec._replace(filter=b"", notify=False)
            if plan.hooks is not None:
                self._run_start_hooks(end, plan.hooks, spec)
            if plan.init:
                reaper.run(end, spec, program, self._manner)
            process.close_others(self._manner.preserve)
            process.seal(spec, end)
            process.execute(spec, program)
        except BaseException as error:  # noqa: BLE001  # whatever it is, the shim has to hear of it
            channel.fail(end, error)
        finally:
            os._exit(1)

    def _enter_namespaces(self, end: socket.socket, plan: Plan, joined: Mapping[str, int]) -> None:
        """All but the pid namespace, where the shim does it by forking."""
        spaces = plan.namespaces
        late: Mapping[str, int] = {}
        if joined:
            # The host's, with its privileges; what belongs to the user namespace that follows, with those that it gives.
            late = namespaces.enter(joined, "pid", "user", later=spaces.own("user"))
        if spaces.own("user"):
            # From within nothing can be done about what belongs to the host's users.
            user = plan.process
            process.own_streams(namespaces.outside(plan.uid_map, user.uid), namespaces.outside(plan.gid_map, user.gid))
            self._enter_user_namespace(end, plan, joined)
        namespaces.enter(late)
        unshare(spaces.flags("pid", "user"))
        if "time" in spaces.new:
            if plan.time_offsets:
                channel.send(end, offsets=plan.time_offsets)
                self._wait(end)
            namespaces.enter_time()

    def _enter_user_namespace(self, end: socket.socket, plan: Plan, joined: Mapping[str, int]) -> None:
        """A process becomes the first of a new pid namespace only by fork, and the namespace has to belong to the user
        namespace; so this one makes both, forks and goes, and the shim, a subreaper, adopts its child."""
        if "user" in joined:
            namespaces.enter({"user": joined["user"]})
            namespaces.check_maps(plan.uid_map, plan.gid_map)
        else:
            unshare(CLONE_NEWUSER)
            channel.send(end, map={"uid_map": plan.uid_map, "gid_map": plan.gid_map})
            self._wait(end)
        namespaces.become_root_inside()
        if "pid" in plan.namespaces.new:
            unshare(CLONE_NEWPID)
            if child := os.fork():
                channel.send(end, pid=child)
                os._exit(0)
            os.setsid()  # the one that went was the leader, and only a leader gets a terminal
            self._wait(end)
        prctl(PR_SET_DUMPABLE, 0)
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)

    def _wait(self, end: socket.socket) -> None:
        """Until the shim sends the word. Without a shim there is nothing to live for."""
        if not end.recv(1):
            os._exit(1)

    def _change_parents(self, end: socket.socket) -> socket.socket:
        """Say that all is ready, and wait for the word to go; where an error of execve is to be told. Meanwhile the maker
        ends, which is no reason to die, and the shim is the parent. Should it end, so does the channel."""
        if self._manner.outlive:
            return self._outlive(end)
        prctl(PR_SET_PDEATHSIG, 0)
        channel.send(end, ready=True)
        self._wait(end)
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if channel.is_closed(end):
            os._exit(1)
        return end

    def _outlive(self, end: socket.socket) -> socket.socket:
        """The same without a shim: once the maker has recorded what it made, nobody's end is this process's. Until then it
        dies with the maker, so that at each moment there is either a record of a whole container, or no process."""
        channel.send(end, ready=True)
        self._wait(end)
        prctl(PR_SET_PDEATHSIG, 0)
        end.close()  # which tells the maker that it may go
        if self._manner.lock >= 0:
            os.close(self._manner.lock)
        return gate.wait(self._manner.gate)

    def _build_root(self, end: socket.socket, plan: Plan, tree: int, binds: dict[MountEntry, int]) -> int:
        """Mount everything and move in; the terminal's slave, or -1."""
        null = rootfs.open_null()
        os.umask(0)
        own_users = plan.namespaces.own("user")
        root = Root(self._rootfs, tree, binds, propagation=plan.root_propagation, own_users=own_users)
        groups = self._cgroup.directories()
        cgroup_namespace = plan.namespaces.own("cgroup")
        dev_read_only = False
        for entry in plan.mounts:
            if entry.destination == "/dev" and not entry.bind and entry.read_only:
                dev_read_only = True
                entry = entry._replace(flags=entry.flags & ~MS_RDONLY)
            root.mount(entry, groups, cgroup_namespace=cgroup_namespace)
        if plan.own_dev:
            devices.make(root, plan.devices, by_bind=own_users)
            devices.link(root)
        slave = self._open_terminal(root, plan) if plan.process.terminal else -1
        if dev_read_only:
            mount_setattr(root.reopen("/dev"), "", 0, attr_set=MOUNT_ATTR_RDONLY)
        root.make_directory(plan.process.cwd)
        root.make_read_only(plan.read_only)
        root.mask(plan.masked, null)
        os.close(null)
        if plan.hooks is not None:
            self._run_create_hooks(end, plan.hooks, root)
        sysctls.write(plan.sysctls)
        root.enter(pivot=self._manner.pivot, read_only=plan.root_read_only, propagation=plan.root_propagation)
        os.umask(plan.process.umask)
        return slave

    def _open_terminal(self, root: Root, plan: Plan) -> int:
        master, slave = terminal.open_pair(root.fd, self._streams.size or plan.process.console_size)
        if plan.own_dev:
            devices.bind_console(root, slave)
        terminal.send(self._streams.console, master)
        os.close(master)
        return slave

    def _run_create_hooks(self, end: socket.socket, hooks: Hooks, root: Root) -> None:
        """The parent's, then those that are run in here, with what they may want to change as their working directory."""
        from wharfie_runtime_native.hooks import run

        channel.send(end, hooks=True)
        self._wait(end)
        os.fchdir(root.fd)
        run(hooks, "createContainer", describe(self._spec, self._id, self._bundle, "creating", os.getpid()))

    def _run_start_hooks(self, end: socket.socket, hooks: Hooks, spec: ProcessSpec) -> None:
        """Those of the container's own root: as what the program is going to be."""
        from wharfie_runtime_native.hooks import allowance, run

        channel.send(end, hooks=allowance(hooks, "startContainer"))
        state = describe(self._spec, self._id, self._bundle, "created", os.getpid())
        run(hooks, "startContainer", state, confine=lambda: process.seal(spec, end))

    def _get_ready(self, end: socket.socket, plan: Plan, spec: ProcessSpec, slave: int) -> str:
        """All that is left but the filter; the program to execute."""
        if slave >= 0:
            process.redirect(slave, slave, slave)
            terminal.make_controlling(0)
        if spec.limits and plan.namespaces.own("user"):
            channel.send(end, limits=spec.limits)  # which may be raised with the privileges of the host's root only
            self._wait(end)
        else:
            process.set_limits(spec.limits)
        return settle(spec)


def identify(plan: Plan) -> None:
    """What the new network, uts and ipc namespaces get."""
    if "network" in plan.namespaces.new:
        namespaces.loopback_up()
    try:
        if plan.hostname:
            socket.sethostname(plan.hostname)
        if plan.domainname:
            setdomainname(plan.domainname)
    except OSError as error:
        names = f'hostname "{plan.hostname}", domainname "{plan.domainname}"'
        raise InvalidArgument(f"cannot set {names}: {reason(error)}") from error
