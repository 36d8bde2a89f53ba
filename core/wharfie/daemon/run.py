"""The daemon's life: folders, locks, sockets, engine, API; signals; and the same backwards."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import uvloop
from starlette.types import ASGIApp

from wharfie.api.app import create_app
from wharfie.api.front import REQUEST_ID
from wharfie.api.metrics import MetricsApp
from wharfie.api.mirror import MirrorApp
from wharfie.api.server import Server
from wharfie.daemon import logs
from wharfie.daemon.checks import driver_settings, report_missing
from wharfie.daemon.config import DaemonConfig
from wharfie.daemon.listeners import Listener, open_listeners, open_metrics, open_mirror
from wharfie.daemon.lock import Locks, instance_of
from wharfie.daemon.mapping import data_root as data_root_of
from wharfie.daemon.mapping import engine_settings, proxy_environment
from wharfie.daemon.users import check_kernel
from wharfie.engine.engine import Engine
from wharfie.engine.host import host_facts
from wharfie.engine.settings import EngineSettings
from wharfie.plugins.drivers import Drivers
from wharfie.plugins.supervisor import LEAK_WATCH
from wharfie.spi.errors import Forbidden, InvalidArgument, WharfieError, from_os_error

log = logging.getLogger("wharfie.daemon")

Load = Callable[[], tuple[DaemonConfig, list[str]]]

DATA_MODE = 0o710
"""Others see nothing of images and volumes."""
EXEC_MODE = 0o711
"""Others may reach a socket in it whose path they know."""

_RELOADABLE = frozenset({"debug", "log_level", "plugins"})


def run(load: Load, config_file: Path) -> int:
    """Be the daemon until a signal ends it. Returns the exit status. Errors: WharfieError when it cannot start."""
    config, warnings = load()
    if os.geteuid() != 0:
        raise Forbidden("wharfied needs to be started as root: it makes namespaces, mounts and network devices")
    logs.set_up(config.log_format, config.log_level, debug=config.debug, request_id=REQUEST_ID.get)
    for warning in warnings:
        log.warning("%s", warning)
    os.environ.update(proxy_environment(config))
    try:
        data_root, exec_root = _folder(data_root_of(config), DATA_MODE), _folder(config.exec_root, EXEC_MODE)
        with Locks(data_root, config.pid_path), contextlib.ExitStack() as sockets:
            listeners = open_listeners(config)
            for listener in listeners:
                sockets.callback(listener.close)
                _warn_if_open(listener)
            shop, figures = open_mirror(config), open_metrics(config)
            for listener in (*shop, *figures):
                sockets.callback(listener.close)
            settings = replace(
                engine_settings(config, instance_of(data_root)),
                data_root=data_root,
                exec_root=exec_root,
                config_file=config_file.absolute(),
            )
            daemon = _Daemon(load, config, settings, listeners, shop, figures)
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(daemon.live())
    except OSError as error:
        raise from_os_error(error) from error
    return 0


def _folder(path: str, mode: int) -> Path:
    folder = Path(path).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    if not folder.is_dir():
        raise InvalidArgument(f"{path} is no folder")
    os.chown(folder, 0, 0)
    folder.chmod(mode)
    return folder


def _warn_if_open(listener: Listener) -> None:
    if listener.socket.family != socket.AF_UNIX and listener.tls is None:
        log.warning(
            "%s is open to everybody who can reach it, without any authentication: who connects is root on this host; "
            "use --tlsverify",
            listener.host,
        )


class _Daemon:
    """What lives in the event loop."""

    def __init__(
        self,
        load: Load,
        config: DaemonConfig,
        settings: EngineSettings,
        listeners: Sequence[Listener],
        mirror: Sequence[Listener],
        metrics: Sequence[Listener],
    ) -> None:
        self._load = load
        self._config = config
        self._settings = settings
        self._listeners = listeners
        self._mirror = mirror
        self._metrics = metrics
        self._stop = asyncio.Event()

    async def live(self) -> None:
        """From the first to the last."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._end, number)
        settings, facts = self._settings, host_facts()
        check_kernel(settings.users, facts.kernel)
        drivers = Drivers(
            driver_settings(self._config),
            state=settings.data_root,
            run=settings.exec_root,
            instance=settings.instance,
            host=facts,
        )
        LEAK_WATCH.wanted += self._config.debug
        engine = await Engine.open(settings, drivers, facts)
        await report_missing(self._config, drivers)
        loop.add_signal_handler(signal.SIGHUP, self._reload, engine)
        try:
            await self._serve(engine)
        finally:
            _notify("STOPPING=1")
            await engine.shutdown()
            log.info("daemon has ended")

    async def _serve(self, engine: Engine) -> None:
        servers = [_serving(create_app(engine), self._listeners)]
        if self._config.mirror is not None:
            servers.append(_serving(MirrorApp(engine.images.mirror), self._mirror))
            log.info("images can be pulled from %s", self._config.mirror.listen)
        if self._metrics:
            servers.append(_serving(MetricsApp(engine), self._metrics))
            log.info("metrics are served at http://%s/metrics", self._config.metrics_addr)
        stopping = asyncio.create_task(self._stop.wait())
        log.info("daemon has completed initialization; API listens on %s", ", ".join(self._config.hosts))
        gc.freeze()  # what the start made lives as long as the process: no collection need look at it again
        _notify("READY=1")
        serving = [task for _, task in servers]
        await asyncio.wait((*serving, stopping), return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        for server, _ in servers:
            server.should_exit = True
        await asyncio.gather(*serving)

    def _end(self, number: int) -> None:
        if self._stop.is_set():
            _give_up(number)
        log.info("%s: the daemon ends; a second signal ends it at once", signal.Signals(number).name)
        self._stop.set()

    def _reload(self, engine: Engine) -> None:
        try:
            fresh, warnings = self._load()
        except WharfieError as error:
            log.error("the configuration was not reloaded: %s", error.message)
            return
        for warning in warnings:
            log.warning("%s", warning)
        changed = [name for name in DaemonConfig.model_fields if getattr(fresh, name) != getattr(self._config, name)]
        for name in changed:
            if name not in _RELOADABLE:
                log.warning("%s has changed; that takes effect at the next start", name.replace("_", "-"))
        logs.set_level(fresh.log_level, debug=fresh.debug)
        LEAK_WATCH.wanted += fresh.debug - self._config.debug
        if "plugins" in changed:
            task = asyncio.get_running_loop().create_task(engine.drivers.hooks.reconfigure(fresh.plugins))
            engine.background.add(task)
            task.add_done_callback(engine.background.discard)
        applied = {name: getattr(fresh, name) for name in changed if name in _RELOADABLE}
        self._config = self._config.model_copy(update=applied)
        engine.events.emit("daemon", "reload", engine.settings.instance, {"name": socket.gethostname()})
        log.info("the configuration was reloaded")


def _serving(app: ASGIApp, listeners: Sequence[Listener]) -> tuple[Server, asyncio.Task[None]]:
    """A server, and the task that ends when it has been asked to."""
    server = Server(app, tls=[(listener.socket, listener.tls) for listener in listeners if listener.tls is not None])
    plain = [listener.socket for listener in listeners if listener.tls is None]
    return server, asyncio.create_task(server.serve(plain))


def _give_up(number: int) -> NoReturn:
    """Leave everything as it is; the next start finds it."""
    log.error("%s again: the daemon ends at once", signal.Signals(number).name)
    os._exit(128 + number)


def _notify(state: str) -> None:
    """Tell systemd (sd_notify(3)), if it is there."""
    address = os.environ.get("NOTIFY_SOCKET")
    if address:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.sendto(state.encode(), f"\0{address[1:]}" if address.startswith("@") else address)
