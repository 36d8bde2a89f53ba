"""What there is without containers: settings, the search for the program, run-time names, error texts, the bundle."""

from __future__ import annotations

import copy
import logging

import pytest
from pydantic import ValidationError
from wharfie_runtime_oci import hooks
from wharfie_runtime_oci.bundle import configuration
from wharfie_runtime_oci.driver import OciRuntime, RunscDriver
from wharfie_runtime_oci.settings import OciSettings
from wharfie_runtime_oci.words import explain

from wharfie.spi.driver import Context, HostFacts
from wharfie.spi.errors import Conflict, DriverError, InvalidArgument


@pytest.fixture
def context(tmp_path):
    facts = HostFacts(kernel=(6, 1), architecture="amd64", cgroup="v2", cpus=2, memory=1 << 30)
    return Context(state=tmp_path, run=tmp_path, instance="0a0b0c0d", log=logging.getLogger("t"), host=facts, emit=print)


def test_a_missing_program_is_named_with_the_way_to_get_it(context, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    (problem,) = RunscDriver(context, OciSettings()).check()
    assert problem.what == 'the program "runsc" is not in PATH'
    assert "apt-get install runsc" in problem.fix
    (problem,) = RunscDriver(context, OciSettings(path="/no/such/runsc")).check()
    assert problem.what == 'the program "/no/such/runsc" is not there, or not executable'


def test_a_program_that_is_no_runtime_is_refused(context):
    driver = RunscDriver(context, OciSettings(path="/bin/true"))
    assert not driver.check()
    with pytest.raises(DriverError, match="/bin/true is no OCI runtime"):
        driver.open()


def test_settings():
    assert OciSettings.model_validate({"path": "/x/runc", "runtime-args": ["--debug"]}).runtime_args == ["--debug"]
    for bad in ({"path": "./runc"}, {"path": ""}, {"runtime": "x"}):
        with pytest.raises(ValidationError):
            OciSettings.model_validate(bad)


def test_names_of_daemon_json_become_drivers():
    found = hooks.find_driver("runtime", "mine", {"path": "/opt/runc"})
    assert issubclass(found, OciRuntime)
    assert found.name == "mine"
    assert not found.__abstractmethods__
    assert hooks.find_driver("runtime", "mine", {}) is None
    assert hooks.find_driver("volume", "mine", {"path": "/opt/runc"}) is None
    assert list(hooks.known_drivers("runtime", {"mine": {"path": "/x"}, "other": {}})) == ["mine"]
    assert not hooks.known_drivers("volume", {"mine": {"path": "/x"}})


@pytest.mark.parametrize(
    ("text", "program", "said"),
    [
        ('runc create failed: unable to start: exec: "x": permission denied', "x", 'exec: "x": permission denied'),
        ("executable file `x` not found in $PATH: No such file", "x", 'exec: "x": executable file not found in $PATH'),
        ("executable file `/x` not found: No such file", "/x", 'exec: "/x": no such file or directory'),
        ("open executable: Permission denied", "/x", 'exec: "/x": permission denied'),
        ("mount `/y` to `x`: No such file or directory", "x", "mount `/y` to `x`: No such file or directory"),
    ],
)
def test_words_of_the_binaries(text, program, said):
    error = explain(text, program)
    assert (type(error), error.message) == (InvalidArgument, said)


def test_words_of_a_wrong_state():
    assert isinstance(explain("cannot start a container that has stopped", "x"), Conflict)


def test_the_bundle_says_it_in_old_words(base):
    spec = base
    spec["process"]["args"] = ["true"]
    spec["domainname"] = "example.org"
    spec["mounts"].append({"destination": "/x", "type": "bind", "source": "/x", "options": ["rbind", "rshared"]})
    before = copy.deepcopy(spec)
    document = configuration(spec, "abc", "")
    assert spec == before
    assert document["ociVersion"] == "1.0.2"
    assert "domainname" not in document
    assert document["linux"]["sysctl"] == {"kernel.domainname": "example.org"}
    assert document["linux"]["rootfsPropagation"] == "shared"
    assert document["linux"]["cgroupsPath"] == "/wharfie/abc"
    with pytest.raises(InvalidArgument, match="systemd"):
        configuration({**spec, "linux": {"cgroupsPath": "system.slice:x:y"}}, "abc", "")


def test_init_is_for_containers_with_a_pid_namespace_of_their_own(base):
    spec = base
    spec["process"]["args"] = ["true"]
    spec["annotations"] = {"org.wharfie.init": "true", "mine": "yes"}
    document = configuration(spec, "a", "/bin/sh")
    assert document["process"]["args"] == ["/sbin/docker-init", "--", "true"]
    assert document["annotations"] == {"mine": "yes"}, "a runtime that knows it too would add another init"
    spec["linux"]["namespaces"] = [{"type": "mount"}]
    assert configuration(spec, "a", "/bin/sh")["process"]["args"] == ["true"]
