"""The driver as the core uses it: zygote, shim and engine together."""

from __future__ import annotations

import copy
import json
import logging
import queue

import pytest
from wharfie_runtime_native.driver import NativeDriver

from wharfie.shim.cgroups import prune
from wharfie.spi.driver import Context, HostFacts
from wharfie.spi.errors import InvalidArgument
from wharfie.spi.runtime import ExecExited, Exited, Io, Preparation
from wharfie.spi.storage import Mount


def make_context(tmp_path, events, kernel=(6, 1)):
    facts = HostFacts(kernel=kernel, architecture="amd64", cgroup="hybrid", cpus=2, memory=1 << 30)
    folders = {"state": tmp_path / "state", "run": tmp_path / "run"}
    return Context(**folders, instance="0a0b0c0d", log=logging.getLogger("test"), host=facts, emit=events.put)


@pytest.fixture
def driver(tmp_path):
    events = queue.Queue()
    made = NativeDriver(make_context(tmp_path, events), None)
    assert list(made.check()) == []
    made.open()
    made.events = events
    yield made
    for state in made.containers():
        made.delete(state.id, force=True)
    made.close()
    prune("wharfie-test-n")


@pytest.fixture
def create(driver, base, image, tmp_path):
    def make(id, *args, **process):
        bundle = tmp_path / f"bundle-{id}"
        bundle.mkdir()
        spec = copy.deepcopy(base)
        spec["linux"]["cgroupsPath"] = f"/wharfie-test-n/{id}"
        spec["process"].update(args=list(args), **process)
        (bundle / "config.json").write_text(json.dumps(spec))
        for name in ("upper", "work"):
            (bundle / name).mkdir()
        overlay = (f"lowerdir={image}", f"upperdir={bundle / 'upper'}", f"workdir={bundle / 'work'}")
        root = (Mount(type="overlay", source="overlay", options=overlay),)
        return driver.create(id, bundle, root, Io(), Preparation(user="root"))

    return make


def test_from_create_to_delete(driver, create, tmp_path):
    assert create("one", "sh", "-c", "touch /made; exit 7").pid > 0
    driver.start("one")
    event = driver.events.get(timeout=10)
    assert isinstance(event, Exited)
    assert (event.id, event.exit.code, event.exit.out_of_memory) == ("one", 7, False)
    driver.delete("one")
    assert (tmp_path / "bundle-one/upper/made").exists()
    assert driver.containers() == []
    assert not any(path.name == "one" for path in (tmp_path / "run").iterdir())


def test_running_container(driver, create):
    create("two", "sleep", "300")
    driver.start("two")
    assert driver.stats("two")["pids"]["current"] == 1
    assert len(driver.pids("two")) == 1
    driver.pause("two")
    assert driver.state("two").status == "paused"
    driver.resume("two")
    driver.update("two", {"pids": {"limit": 5}})
    assert driver.stats("two")["pids"]["limit"] == 5
    process = {"args": ["sh", "-c", "exit 3"], "env": ["PATH=/bin"], "cwd": "/"}
    driver.exec("two", "e", process, Io())
    driver.exec_start("two", "e")
    event = driver.events.get(timeout=10)
    assert isinstance(event, ExecExited)
    assert event.exit.code == 3
    driver.signal("two", 9)
    assert driver.events.get(timeout=10).exit.code == 137


def test_users_errors_come_as_they_are(driver, create):
    with pytest.raises(InvalidArgument) as caught:
        create("three", "nosuch")
    assert caught.value.message == 'exec: "nosuch": executable file not found in $PATH'
    assert driver.containers() == []


def test_compiled_filters_are_kept_in_the_drivers_folder(driver, create, tmp_path, base):
    base["linux"]["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW"}
    create("four", "true")
    assert [path.name.split("-")[0] for path in (tmp_path / "state").iterdir()] == ["seccomp"]


def test_old_kernels_are_told_so(tmp_path):
    (problem,) = NativeDriver(make_context(tmp_path, queue.Queue(), kernel=(5, 4)), None).check()
    assert problem.fatal
    assert "Linux 5.4 lacks mount_setattr" in problem.what
    assert "5.12" in problem.fix
