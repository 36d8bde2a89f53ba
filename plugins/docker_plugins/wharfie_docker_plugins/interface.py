"""Moving a plugin's interface into a sandbox and back. What is done to interfaces is done by netlink."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import socket
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute, NetlinkError

from wharfie.shim.netns import within
from wharfie.spi.errors import Conflict, DriverError, NotFound, Unavailable
from wharfie.spi.network import Route
from wharfie_docker_plugins.wiring import Wiring

IFA_F_NODAD = 0x02
RT_SCOPE_LINK = 253


def move_in(wiring: Wiring, sandbox: Path) -> Wiring:
    """Give the interface to the sandbox, with name, addresses, routes, up. What it was given in the end comes back.

    A failure brings it back to the host. Errors: NotFound (the sandbox is gone), Conflict (name taken), DriverError (the
    plugin named an interface that is not there), Unavailable (the kernel refuses).
    """
    with _explained(wiring):
        target = os.open(sandbox, os.O_RDONLY | os.O_CLOEXEC)
        try:
            with IPRoute() as route:
                link = _find(route, wiring.source)
                if link is None:
                    raise DriverError(f"NetworkDriver.Join: SrcName: there is no interface {wiring.source} on this host")
                route.link("set", index=link["index"], ifalias=_mark(wiring), net_ns_fd=target)
        finally:
            os.close(target)
        try:
            return within(sandbox, partial(_configure, wiring))
        except BaseException:
            bring_back(wiring, sandbox)
            raise


def set_default_routes(wiring: Wiring, sandbox: Path) -> None:
    """Carry the default routes that the endpoint's flags say, and no others. May be repeated."""
    with _explained(wiring):
        within(sandbox, partial(_default_routes, wiring))


def is_wired(wiring: Wiring, sandbox: Path) -> bool:
    """Is the endpoint's interface in the sandbox?"""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return within(sandbox, partial(_is_marked, wiring))
    return False


def bring_back(wiring: Wiring, sandbox: Path) -> None:
    """The interface returns to the host under its old name, so that the plugin finds it. It may be gone, and so may the
    sandbox, which takes a virtual interface along."""
    host = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError, NetlinkError):
            within(sandbox, partial(_send_back, wiring, host))
    finally:
        os.close(host)


def _configure(wiring: Wiring) -> Wiring:
    """Runs in the sandbox."""
    with IPRoute() as route:
        link = _marked(route, wiring)
        if link is None:
            raise NotFound(f"interface {wiring.source} did not arrive in the container")
        index = link["index"]
        name = wiring.name
        if _find(route, name) is not None:
            raise Conflict(f'the container has an interface "{name}" already')
        route.link("set", index=index, state="down")
        route.link("set", index=index, ifname=name)
        if wiring.mac:
            route.link("set", index=index, address=wiring.mac)
        ipv6 = any(address.version == 6 for address in wiring.addresses)
        setting = Path("/proc/sys/net/ipv6/conf", name, "disable_ipv6")
        if setting.exists():
            setting.write_text("0" if ipv6 else "1")
        for address in wiring.addresses:
            given = {"flags": IFA_F_NODAD} if address.version == 6 else {}
            with _tolerated(errno.EEXIST):
                route.addr("add", index=index, address=str(address.ip), prefixlen=address.network.prefixlen, **given)
        route.link("set", index=socket.if_nametoindex("lo"), state="up")
        route.link("set", index=index, state="up")
        for static in wiring.routes:
            _add_route(route, index, static)
        mac = str(route.link("get", index=index)[0].get_attr("IFLA_ADDRESS") or "")
    return dataclasses.replace(wiring, name=name, mac=mac)


def _default_routes(wiring: Wiring) -> None:
    """Runs in the sandbox."""
    with IPRoute() as route:
        link = _marked(route, wiring)
        if link is None:
            return
        for gateway, wanted, family in (
            (wiring.gateway4, wiring.default4, socket.AF_INET),
            (wiring.gateway6, wiring.default6, socket.AF_INET6),
        ):
            if gateway is None:
                continue
            if wanted:
                route.route("replace", family=family, dst="default", gateway=str(gateway), oif=link["index"])
            else:
                with _tolerated(errno.ESRCH):
                    route.route("del", family=family, dst="default", oif=link["index"])


def _add_route(route: IPRoute, index: int, static: Route) -> None:
    family = socket.AF_INET if static.destination.version == 4 else socket.AF_INET6
    given: dict[str, Any] = {"gateway": str(static.via)} if static.via is not None else {"scope": RT_SCOPE_LINK}
    if family == socket.AF_INET6:
        given.pop("scope", None)
    route.route("replace", family=family, dst=str(static.destination), oif=index, **given)


def _is_marked(wiring: Wiring) -> bool:
    """Runs in the sandbox."""
    with IPRoute() as route:
        return _marked(route, wiring) is not None


def _send_back(wiring: Wiring, host: int) -> None:
    """Runs in the sandbox."""
    with IPRoute() as route:
        link = _marked(route, wiring)
        if link is not None:
            route.link("set", index=link["index"], state="down")
            route.link("set", index=link["index"], ifname=wiring.source, ifalias="", net_ns_fd=host)


def _marked(route: IPRoute, wiring: Wiring) -> Any | None:
    """The endpoint's interface in this namespace, whatever it is called."""
    return next((link for link in route.get_links() if link.get_attr("IFLA_IFALIAS") == _mark(wiring)), None)


def _mark(wiring: Wiring) -> str:
    return f"wharfie-legacy:{wiring.endpoint}"


def _find(route: IPRoute, name: str) -> Any | None:
    try:
        (link,) = route.link("get", ifname=name)
    except NetlinkError as error:
        if error.code == errno.ENODEV:
            return None
        raise
    return link


@contextlib.contextmanager
def _explained(wiring: Wiring) -> Iterator[None]:
    """An error of the kernel becomes one that says for what."""
    try:
        yield
    except (FileNotFoundError, ProcessLookupError) as error:
        raise NotFound("the container's network namespace is gone: its process has ended") from error
    except NetlinkError as error:
        what = f"interface {wiring.source} as {wiring.name}: the kernel refused: {error}"
        raise (Conflict if error.code == errno.EEXIST else Unavailable)(what) from error


@contextlib.contextmanager
def _tolerated(number: int) -> Iterator[None]:
    try:
        yield
    except NetlinkError as error:
        if error.code != number:
            raise
