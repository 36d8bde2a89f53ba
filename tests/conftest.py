"""Fixtures of the cross-cutting tests: one shared daemon, and daemons of a test's own."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator

import pytest

from tests.harness import Daemon, import_busybox, running


@pytest.fixture(scope="session")
def daemon(tmp_path_factory) -> Iterator[Daemon]:
    """The shared daemon, with the image busybox:latest. A test removes what it makes (see `name`)."""
    with running(Daemon(tmp_path_factory.mktemp("shared"))) as shared:
        import_busybox(shared)
        yield shared


@pytest.fixture
def name(daemon) -> Iterator[str]:
    """A fresh name; containers, volumes and networks whose names begin with it are removed afterwards."""
    prefix = f"t{uuid.uuid4().hex[:10]}"
    yield prefix
    for container in daemon.docker("ps", "-aq", "--filter", f"name={prefix}").split():
        daemon.run_docker("rm", "-fv", container)
    for volume in daemon.docker("volume", "ls", "-q", "--filter", f"name={prefix}").split():
        daemon.run_docker("volume", "rm", volume)
    for network in daemon.docker("network", "ls", "-q", "--filter", f"name={prefix}").split():
        daemon.run_docker("network", "rm", network)


@pytest.fixture
def make_daemon(tmp_path) -> Iterator[Callable[..., Daemon]]:
    """Makes daemons of the test's own; all of them end with the test."""
    made: list[Daemon] = []

    def make(folder: str = "own", *, start: bool = True, busybox: bool = False, **options) -> Daemon:
        daemon = Daemon(tmp_path / folder, **options)
        made.append(daemon)
        if start:
            daemon.start()
        if busybox:
            import_busybox(daemon)
        return daemon

    yield make
    for daemon in made:
        daemon.close()
