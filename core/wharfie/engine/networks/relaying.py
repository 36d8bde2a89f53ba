"""Published ports where the kernel's translation does not reach: at [::1], by the host's IPv6 address to a container
without IPv6, and everywhere when there is no firewall. Docker's `userland-proxy`.

The work is done by a process of its own (`wharfie.proxy`) that outlives this daemon. Whoever of the two lives holds the
bound sockets, so a port is never free while its container runs; when the proxy dies, it is started again at once.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Mapping
from pathlib import Path

from wharfie.proxy.launch import Place, Proxy, Routes
from wharfie.spi.errors import WharfieError

log = logging.getLogger(__name__)


class Relaying:
    """What the proxy is to relay. Used by the event loop only."""

    def __init__(self, run: Path, *, enabled: bool) -> None:
        """`run`: the folder of the proxy's socket. Not `enabled`: nothing is relayed, and `serve` does nothing."""
        self.enabled = enabled
        self._proxy = Proxy(run)
        self._served: dict[str, tuple[Routes, int]] = {}  # by owner, with its process id
        self._watched = -1  # a pidfd of the proxy
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self) -> Mapping[str, Mapping[Place, socket.socket]]:
        """The sockets that a proxy of the last daemon holds, by owner; they are the caller's. It serves on.

        If nothing is to be relayed any more, it ends: its sockets listen, and nobody would accept.
        """
        held = await asyncio.to_thread(self._proxy.inherit)
        if not self.enabled:
            await asyncio.to_thread(self._proxy.quit)
            for places in held.values():
                for inherited in places.values():
                    inherited.close()
            return {}
        self._watch()
        return held

    async def serve(self, owner: str, routes: Routes, pid: int) -> None:
        """Relay all of an owner's ports, while the process `pid` lives. May be repeated. Errors: Unavailable, NotFound."""
        if not self.enabled or not routes:
            return
        self._served[owner] = routes, pid
        await self._put(owner)

    async def drop(self, owner: str) -> None:
        """Relay nothing of the owner's any more; when this returns, the proxy has given the sockets up. May be repeated."""
        if self._served.pop(owner, None) is not None:
            await asyncio.to_thread(self._proxy.drop, owner)

    async def drop_strangers(self, owners: set[str]) -> None:
        """Of what was inherited, give up what is of none of these owners."""
        for owner in owners - self._served.keys():
            await asyncio.to_thread(self._proxy.drop, owner)

    def close(self) -> None:
        """Let the proxy alone: it goes on as long as it holds something."""
        self._forget()
        for task in self._tasks:
            task.cancel()
        self._proxy.close()

    async def _put(self, owner: str) -> None:
        routes, pid = self._served[owner]
        try:
            life = os.pidfd_open(pid)
        except ProcessLookupError:
            return  # it has ended; its end gives everything back
        try:
            await asyncio.to_thread(self._proxy.put, owner, routes, life)
        finally:
            os.close(life)
        self._watch()

    def _watch(self) -> None:
        """Hear of the proxy's end."""
        if self._watched >= 0 or not self._proxy.pid:
            return
        try:
            self._watched = os.pidfd_open(self._proxy.pid)
        except ProcessLookupError:
            return
        asyncio.get_running_loop().add_reader(self._watched, self._ended)

    def _forget(self) -> None:
        if self._watched >= 0:
            asyncio.get_running_loop().remove_reader(self._watched)
            os.close(self._watched)
            self._watched = -1

    def _ended(self) -> None:
        self._forget()
        if self._served:
            log.warning("the proxy of published ports has ended, starting it again")
            task = asyncio.get_running_loop().create_task(self._serve_again())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _serve_again(self) -> None:
        await asyncio.to_thread(self._proxy.close)
        for owner in list(self._served):
            try:
                await self._put(owner)
            except (WharfieError, KeyError) as error:
                log.error("published ports of container %s are not relayed: %s", owner[:12], error)
