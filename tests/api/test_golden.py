"""Our answers beside those that Docker's daemon gave to the same requests."""

from __future__ import annotations

import io
import json
import re
import tarfile
from collections.abc import Iterator

import pytest

from tests.api import golden
from tests.harness import Daemon, busybox_tar, running

pytestmark = pytest.mark.root

CASES = golden.cases()

OTHER_WORDS = {
    "auth-unreachable": r"registry\.invalid",
    "auth-bad-body": r"invalid JSON: invalid character 'n' looking for beginning of object key string",
    "image-pull-unreachable": r"registry\.invalid",
    "distribution-unreachable": r"registry\.invalid",
    "exec-start-again": r"exec command ID has already run",
    "archive-put-bad-tar": r"archive/tar: invalid tar header",
    "start-bad-command": r"/no/such/program.*no such file or directory",
    "network-create-bad-driver": r'plugin ."nosuchdriver." not found',
    "volume-create-bad-driver": r"create golden-vol3: error looking up volume plugin nosuchdriver: plugin .* not found",
}
"""Messages that hold what is Docker's alone (its resolver, its runtime) or say more than Docker's: what must be in ours."""

OTHER_STATUS = {
    "auth-bad-body": 400,  # the client's fault, as everywhere else
    "exec-start-again": 409,  # Docker says it inside the stream, where no program finds it
}

OTHER_TYPE = {
    "stats-stream-two": "application/json",  # Docker sends none
    "exec-start-again": "application/json",
}

SHARED_NAMES = {
    "archive-get": {"passwd"},
    "export": {"bin", "bin/busybox", "bin/cat"},  # of different images
}

_IMAGES = {"[].Labels", ".Images[].Labels"}
_BLOCKS = {f".blkio_stats.{key}_recursive" for key in ("io_service_bytes", "io_serviced")}
OTHER_SHAPE = {
    # Switched off there
    "info": {".CDISpecDirs"},
    # Other images, containers and volumes were there
    "system-df": {".Images[].Labels", ".Containers[].SizeRw", ".Volumes"},
    "images-list": _IMAGES,
    "images-list-shared-digests": _IMAGES,
    "system-df-images": _IMAGES,
    # The date of a build; this is no build
    "version": {".BuildTime", ".Components[].Details.BuildTime"},
    "version-unprefixed": {".BuildTime", ".Components[].Details.BuildTime"},
    # Layers have no folders of their own at this driver's interface
    "image-inspect": {".GraphDriver.Data"},
    "image-inspect-committed": {".GraphDriver.Data"},
    # Whether the program was in the page cache, or came from the disk
    "stats-no-stream": _BLOCKS,
    "stats-one-shot": _BLOCKS,
    "stats-stream-two": {f".ndjson[]{path}" for path in _BLOCKS},
}
"""Paths in the body that may differ."""


@pytest.fixture(scope="module")
def replay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[golden.Replay]:
    with running(Daemon(tmp_path_factory.mktemp("golden"))) as daemon:
        client = golden.Client(daemon.socket)
        answer = client.ask(
            "POST",
            f"{golden.PREFIX}/images/create?fromSrc=-&repo=busybox&tag=latest",
            busybox_tar(),
            {"Content-Type": "application/x-tar"},
        )
        assert answer.status == 200, answer
        yield golden.Replay(client, CASES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.number:03d}-{case.name}")
def test_answer(replay: golden.Replay, case: golden.Case) -> None:
    ours = replay.answers[case.name]
    assert ours.status == OTHER_STATUS.get(case.name, case.response["status"]), ours.body[:1000]
    assert ours.headers.get("content-type", "") == OTHER_TYPE.get(case.name, case.content_type)
    recorded = case.response["body"]
    if case.name in OTHER_WORDS:
        assert re.search(OTHER_WORDS[case.name], golden.plain_message(ours.body.decode()))
    elif case.stream:
        assert streamed(case, ours.body) == streamed(case, bytes.fromhex(recorded["hex"]))
    elif isinstance(recorded, dict) and "members" in recorded:
        assert members(ours.body) == members_of(recorded)
    elif isinstance(recorded, dict) and "tar" in recorded:
        assert shown_names(ours.body) & set(recorded["tar"]) >= SHARED_NAMES[case.name]
    else:
        compare(case, recorded, golden.decoded(ours))


def compare(case: golden.Case, recorded: object, ours: object) -> None:
    if isinstance(recorded, dict) and recorded.keys() == {"message"}:
        assert isinstance(ours, dict)
        assert golden.plain_message(ours["message"]) == golden.plain_message(recorded["message"])
        return
    found = set(golden.differences(recorded, ours))
    assert not {text for text in found if text.partition(": ")[0] not in OTHER_SHAPE.get(case.name, set())}


def streamed(case: golden.Case, data: bytes) -> object:
    """Frames, with times taken out."""
    if "tty" in case.name:
        return data
    found = []
    for stream, line in golden.frames(data):
        text = re.sub(r"\d{4}-\d\d-\d\dT[\d:.]{18}Z", "TIME", golden.plain_message(line.decode()))
        if case.name == "logs-timestamps-tail":  # which of the two lines is the last is not sure
            stream, text = 0, re.sub("out|err", "some", text)
        found.append((stream, text))
    return found


def members(data: bytes) -> dict[str, object]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        names = {golden.plain_message(name) for name in tar.getnames()}
        manifest = tar.extractfile("manifest.json")
        assert manifest is not None
        return {"names": names, "tags": json.loads(manifest.read())[0]["RepoTags"]}


def shown_names(data: bytes) -> set[str]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return set(tar.getnames())


def members_of(recorded: dict[str, object]) -> dict[str, object]:
    names = {golden.plain_message(name) for name in recorded["tar"]}  # type: ignore[attr-defined]
    return {"names": names, "tags": recorded["members"]["manifest.json"][0]["RepoTags"]}  # type: ignore[index]


def test_the_comparer_sees_differences() -> None:
    recorded = {"a": None, "b": [], "c": {"d": 1}, "e": "2026-01-01T00:00:00Z", "f": True, "Labels": {"x": "y"}}
    assert not list(golden.differences(recorded, recorded))
    assert not list(golden.differences(recorded, {**recorded, "Labels": {"z": "w"}}))
    for name, value in (
        ("a", []),
        ("b", None),
        ("b", [1]),
        ("c", {}),
        ("c", {"d": "1"}),
        ("e", "never"),
        ("f", 1),
        ("Labels", {"x": 1}),
    ):
        assert len(list(golden.differences(recorded, {**recorded, name: value}))) == 1, name
    assert list(golden.differences({}, {"new": 1})) == [".new: not in the recording"]
