"""What is remembered of execs, and for how long. No process is needed for that."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path

import pytest

from wharfie.engine import execs as module
from wharfie.engine.containers.catalog import Catalog
from wharfie.engine.events import Events
from wharfie.engine.execs import Execs
from wharfie.engine.model.config import Config
from wharfie.engine.model.container import Container, ExecCreate, State
from wharfie.engine.model.host import HostConfig
from wharfie.engine.settings import EngineSettings
from wharfie.plugins.drivers import Drivers
from wharfie.plugins.settings import DriverSettings
from wharfie.spi.driver import HostFacts
from wharfie.spi.errors import NotFound
from wharfie.spi.runtime import Exit
from wharfie.store.metadata import Metadata

ID = "ab" * 32


def container() -> Container:
    return Container(
        id=ID,
        name="box",
        created="2026-01-02T03:04:05.6Z",
        image_id="sha256:" + "1" * 64,
        config=Config(image="busybox", cmd=["sh"]),
        host_config=HostConfig(network_mode="bridge"),
        storage_driver="overlay2",
        runtime="native",
        log_driver="json-file",
        state=State(status="running", started_at="2026-01-02T03:04:06.7Z"),
    )


@pytest.fixture
def remembered(tmp_path: Path):
    """Run a coroutine on execs of one running container."""

    def run(work) -> None:
        async def main() -> None:
            settings = EngineSettings(data_root=tmp_path, exec_root=tmp_path, instance="00000000")
            metadata = Metadata(tmp_path / "metadata.db")
            catalog = Catalog(settings, metadata)
            await catalog.save(container())
            host = HostFacts(kernel=(6, 1), architecture="amd64", cgroup="v1", cpus=1, memory=1)
            drivers = Drivers(DriverSettings(), state=tmp_path, run=tmp_path, instance="00000000", host=host)
            try:
                await work(Execs(settings, catalog, drivers, Events()), catalog)
            finally:
                await drivers.close()
                metadata.close()

        asyncio.run(main())

    return run


async def make(execs: Execs) -> str:
    return await execs.create(ID, ExecCreate(cmd=["true"]))


def is_known(execs: Execs, exec_id: str) -> bool:
    try:
        execs.get(exec_id)
    except NotFound:
        return False
    return True


def test_of_those_that_ended_a_thousand_are_kept(remembered):
    async def work(execs: Execs, catalog: Catalog) -> None:
        made = []
        for _ in range(module.KEPT_MOST + 200):
            made.append(await make(execs))
            execs.ended(ID, made[-1], Exit(code=7, at_ns=1))
        last = await make(execs)
        assert [is_known(execs, exec_id) for exec_id in made] == [False] * 200 + [True] * module.KEPT_MOST
        assert execs.get(made[-1]).exit_code == 7
        assert is_known(execs, last)

    remembered(work)


def test_of_those_that_were_not_started_a_thousand_are_kept(remembered):
    async def work(execs: Execs, catalog: Catalog) -> None:
        made = [await make(execs) for _ in range(module.KEPT_MOST + 50)]
        await make(execs)
        kept = [exec_id for exec_id in made if is_known(execs, exec_id)]
        assert kept == made[-module.KEPT_MOST :]

    remembered(work)


def test_what_has_ended_is_kept_for_a_while(remembered, monkeypatch):
    async def work(execs: Execs, catalog: Catalog) -> None:
        clock = itertools.count(1000.0, 0.0)
        monkeypatch.setattr(module.time, "monotonic", lambda: next(clock))
        ended, running = await make(execs), await make(execs)
        execs.ended(ID, ended, Exit(code=0, at_ns=1))
        clock = itertools.count(1000.0 + module.KEPT_SECONDS, 0.0)
        await make(execs)
        assert is_known(execs, ended)
        clock = itertools.count(1001.0 + module.KEPT_SECONDS, 0.0)
        await make(execs)
        assert not is_known(execs, ended)
        assert is_known(execs, running)

    remembered(work)
