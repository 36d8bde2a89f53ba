"""Commits with every option, and what lists, filters, sizes and prunes say of images that share layers."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.harness import Daemon, import_busybox, running, until


@pytest.fixture(scope="module")
def house(tmp_path_factory) -> Iterator[Daemon]:
    """A daemon with busybox, `child:1` made of it by 5,000 bytes, and `child:2` made of that by 700."""
    with running(Daemon(tmp_path_factory.mktemp("images") / "own", bridge=False, config={"bridge": "none"})) as daemon:
        import_busybox(daemon)
        daemon.docker("run", "--network", "none", "--name", "one", "busybox", "sh", "-c", "head -c 5000 /dev/zero > /one")
        daemon.docker("commit", "-c", "LABEL stage=first", "one", "child:1")
        daemon.docker("run", "--network", "none", "--name", "two", "child:1", "sh", "-c", "head -c 700 /dev/zero > /two")
        daemon.docker("commit", "-c", "LABEL stage=second", "-c", "LABEL kept=yes", "two", "child:2")
        daemon.docker("rm", "one", "two")
        yield daemon


def size(daemon: Daemon, image: str) -> int:
    return int(daemon.docker("image", "inspect", "--format", "{{.Size}}", image))


def test_commit_with_every_option(house) -> None:
    house.docker("run", "-d", "--network", "none", "--name", "runs", "busybox", "sleep", "1000")
    try:
        changes = ['CMD ["echo", "hi"]', "ENV A=b C=d", "WORKDIR /tmp", "USER 7", "EXPOSE 80/udp", "VOLUME /v"]
        changes += ['ENTRYPOINT ["/bin/sh"]', "LABEL a=b", "STOPSIGNAL SIGINT", "HEALTHCHECK --interval=5s CMD true"]
        words = [word for change in changes for word in ("--change", change)]
        image = house.docker("commit", "-a", "A <a@b>", "-m", "a message", *words, "runs", "made:1")
        found = json.loads(house.docker("image", "inspect", image))[0]
        config = found["Config"]
        assert (found["Author"], found["Comment"]) == ("A <a@b>", "a message")
        assert (config["Cmd"], config["Entrypoint"]) == (["echo", "hi"], ["/bin/sh"])
        assert {"A=b", "C=d"} <= set(config["Env"])
        assert (config["WorkingDir"], config["User"], config["StopSignal"]) == ("/tmp", "7", "SIGINT")
        assert (config["ExposedPorts"], config["Volumes"], config["Labels"]) == ({"80/udp": {}}, {"/v": {}}, {"a": "b"})
        assert config["Healthcheck"]["Interval"] == 5_000_000_000
        newest = json.loads(house.docker("history", "--no-trunc", "--format", "json", "made:1").splitlines()[0])
        assert (newest["Comment"], newest["CreatedBy"]) == ("a message", "sleep 1000")

        assert "NOSUCH is not a valid change command" in house.docker(
            "commit", "-c", "NOSUCH x", "runs", status=1, both=True
        )
        assert "No such container" in house.docker("commit", "nobody", status=1, both=True)
        assert "invalid reference format" in house.docker("commit", "runs", "BAD", status=1, both=True)
    finally:
        house.run_docker("rm", "-f", "runs")
        house.run_docker("rmi", "made:1")


@pytest.mark.parametrize("pause", [True, False])
def test_commit_holds_the_container_unless_told_otherwise(house, pause) -> None:
    house.docker("run", "-d", "--network", "none", "--name", "held", "busybox", "sleep", "1000")
    try:
        since = house.docker("info", "--format", "{{.SystemTime}}")
        house.docker("commit", f"--pause={str(pause).lower()}", "held", "held:1")
        now = house.docker("info", "--format", "{{.SystemTime}}")
        words = ["events", "--since", since, "--until", now, "--filter", "container=held", "--format", "{{.Action}}"]
        said = house.docker(*words).split()
        assert said == (["pause", "unpause", "commit"] if pause else ["commit"])
        assert house.inspect("held")["State"]["Status"] == "running"
    finally:
        house.run_docker("rm", "-f", "held")
        house.run_docker("rmi", "held:1")


def test_sizes_of_images_that_share(house) -> None:
    base = size(house, "busybox")
    assert (size(house, "child:1"), size(house, "child:2")) == (base + 5000, base + 5700)
    shared = {"busybox:latest": base, "child:1": base + 5000, "child:2": base + 5000}
    _, listed = house.request("GET", "/images/json?shared-size=1")
    assert {image["RepoTags"][0]: image["SharedSize"] for image in listed} == shared
    _, listed = house.request("GET", "/images/json")
    assert {image["SharedSize"] for image in listed} == {-1}
    _, usage = house.request("GET", "/system/df")
    assert usage["LayersSize"] == base + 5700
    assert {image["RepoTags"][0]: image["SharedSize"] for image in usage["Images"]} == shared
    shown = house.docker("system", "df", "-v", "--format", "{{range .Images}}{{.Tag}} {{.UniqueSize}}\n{{end}}").split("\n")
    assert {"1 0B", "2 700B", "latest 0B"} <= {line.strip() for line in shown}
    house.docker("tag", "child:2", "again:1")
    _, again = house.request("GET", "/system/df")
    assert again["LayersSize"] == usage["LayersSize"]
    house.docker("rmi", "again:1")


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        (["dangling=true"], []),
        (["dangling=false"], ["busybox:latest", "child:1", "child:2"]),
        (["label=stage"], ["child:1", "child:2"]),
        (["label=stage=first"], ["child:1"]),
        (["label=stage", "label=kept=yes"], ["child:2"]),
        (["label!=kept"], ["busybox:latest", "child:1"]),
        (["before=child:2"], ["busybox:latest", "child:1"]),
        (["since=child:1"], ["child:2"]),
        (["since=busybox", "before=child:2"], ["child:1"]),
        (["reference=child"], ["child:1", "child:2"]),
        (["reference=*:1"], ["child:1"]),
        (["reference=child:1", "reference=busy*"], ["busybox:latest", "child:1"]),
        (["reference=child:[^1]"], ["child:2"]),
        (["reference=child:[12]", "label=kept"], ["child:2"]),
        (["until=1h"], []),
        (["until=2999-01-01"], ["busybox:latest", "child:1", "child:2"]),
    ],
)
def test_filters_of_lists(house, filters, found) -> None:
    words = [word for text in filters for word in ("--filter", text)]
    assert sorted(house.docker("images", "--format", "{{.Repository}}:{{.Tag}}", *words).split()) == found


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nosuch=x", "invalid filter 'nosuch'"),
        ("dangling=maybe", "invalid filter 'dangling"),
        ("since=nosuch", "No such image: nosuch"),
        ("reference=[", "syntax error in pattern"),
    ],
)
def test_filters_that_cannot_be(house, text, said) -> None:
    assert said in house.docker("images", "--filter", text, status=1, both=True)


def test_what_is_pruned(house) -> None:
    for name, label in (("p:1", "team=a"), ("p:2", "team=b"), ("p:3", "keep=yes")):
        house.docker("import", "-c", f"LABEL {label}", "-", name, stdin=b"\0" * 1024)

    def left() -> list[str]:
        return sorted(house.docker("images", "--format", "{{.Tag}}", "--filter", "reference=p").split())

    def prune(*words: str) -> str:
        return house.docker("image", "prune", "-f", *words)

    prune()
    assert left() == ["1", "2", "3"]
    prune("-a", "--filter", "until=1h", "--filter", "label=team")
    assert left() == ["1", "2", "3"]
    prune("-a", "--filter", "label=team=a")
    assert left() == ["2", "3"]
    said = prune("-a", "--filter", "label=team", "--filter", "label!=keep")
    assert left() == ["3"] and "untagged: p:2" in said
    house.docker("rmi", "p:3")
    assert "invalid filter 'reference'" in house.docker(
        "image", "prune", "-f", "--filter", "reference=x", status=1, both=True
    )


def test_an_image_of_which_a_container_runs_is_not_pruned(house) -> None:
    house.docker("run", "-d", "--network", "none", "--name", "user", "child:2", "sleep", "1000")
    try:
        house.docker("tag", "busybox", "spare:1")
        assert "untagged: spare:1" in house.docker("image", "prune", "-a", "-f", "--filter", "label!=stage")
        until(lambda: house.docker("images", "-q", "child:2"), 10, "the image")
    finally:
        house.run_docker("rm", "-f", "user")
        if not house.docker("images", "-q", "busybox"):
            import_busybox(house)
