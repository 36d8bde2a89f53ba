"""Compose does its work against us: three tiers on three networks, changed, scaled, and taken down to nothing.

Debian's Compose 1 takes the newest version of the API that a daemon has, but reads what Docker took out of 1.45, so that
it needs to be told an older one beside any recent engine.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import urllib.request

import pytest

from tests.harness import until

pytestmark = pytest.mark.skipif(shutil.which("docker-compose") is None, reason="docker-compose is not installed")

TIERS = """
services:
  database:
    image: busybox
    command: sh -c 'echo kept >> /data/file; exec httpd -f -v -p 5432 -h /data'
    networks: [backend, database]
    volumes: [data:/data, /scratch]
    healthcheck: {test: "test -s /data/file", interval: 200ms, start_period: 5s}
    stop_grace_period: 0s
  api:
    image: busybox
    command: ["sh", "-c", "echo $$GREETING > /index.html; exec httpd -f -v -p 80 -h /"]
    environment: {GREETING: "${GREETING:-hello}"}
    networks: {frontend: {aliases: [service]}, backend: {}}
    depends_on: {database: {condition: service_healthy}}
    stop_grace_period: 0s
  web:
    image: busybox
    command: httpd -f -v -p 80 -h /etc
    networks: [frontend]
    ports: ["127.0.0.1::80"]
    restart: unless-stopped
    depends_on: [api]
    stop_grace_period: 0s
networks: {frontend: {}, backend: {}, database: {internal: true}}
volumes: {data: {}}
"""


class Project:
    """Compose files of a test, and the program that works on them."""

    def __init__(self, daemon, folder, name):
        self.daemon, self.folder, self.name = daemon, folder, name
        self.environment = {**daemon.environment, "COMPOSE_API_VERSION": "1.44"}

    def try_to(self, *words, **variables):
        words = ["docker-compose", "--project-name", self.name, "--ansi", "never", *words]
        environment = {**self.environment, **variables}
        return subprocess.run(
            words, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=120, check=False
        )

    def __call__(self, *words, **variables):
        done = self.try_to(*words, **variables)
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return done.stdout

    def ids(self, service):
        return set(self("ps", "-q", service).split())

    def fetches(self, service, target):
        return self.try_to("exec", "-T", service, "timeout", "1", "wget", "-q", "-O", "-", target)


@pytest.fixture
def project(daemon, tmp_path, name):
    made = Project(daemon, tmp_path, name)
    yield made
    made.try_to("down", "--volumes", "--remove-orphans", "--timeout", "0")


def test_three_tiers(project, daemon):
    (project.folder / "docker-compose.yml").write_text(TIERS)
    project("up", "-d")
    assert "Up (healthy)" in project("ps", "database")

    # Who reaches whom: by name, by alias, by address.
    assert until(lambda: project.fetches("web", "http://service/index.html").stdout == "hello\n")
    assert project.fetches("api", "http://database:5432/file").stdout == "kept\n"
    assert "bad address" in project.fetches("web", "http://database:5432/file").stderr
    inspected = json.loads(daemon.docker("inspect", *project.ids("database")))[0]
    for network in inspected["NetworkSettings"]["Networks"].values():
        assert project.fetches("web", f"http://{network['IPAddress']}:5432/file").returncode != 0
    address = project("port", "web", "80").strip()
    with urllib.request.urlopen(f"http://{address}/passwd", timeout=10) as answer:
        assert answer.read().startswith(b"root:")
    assert until(lambda: "response:200" in project("logs", "--no-color", "api"))

    # The same again changes nothing; a changed service is made anew, and what it depends on is left alone.
    database, api = project.ids("database"), project.ids("api")
    assert "up-to-date" in project.try_to("up", "-d").stderr
    assert (project.ids("database"), project.ids("api")) == (database, api)
    project("up", "-d", "--scale", "api=2", GREETING="bye")
    assert project.ids("database") == database
    assert len(project.ids("api")) == 2
    assert not project.ids("api") & api
    assert project.fetches("web", "http://api/index.html").stdout == "bye\n"

    # A service by itself, in the networks of its own, with what it needs.
    assert project("run", "--rm", "-T", "--no-deps", "api", "sh", "-c", "wget -q -O - database:5432/file") == "kept\n"
    project("up", "-d", "--force-recreate", "--no-deps", "-t", "0", "database")
    assert until(lambda: project.fetches("api", "http://database:5432/file").stdout == "kept\n" * 2)  # the volume stays
    project("stop", "-t", "0")
    assert "Exit" in project("ps", "web")
    project("start")
    assert "Up" in project("ps", "web")

    project("down", "--volumes", "--timeout", "0")
    label = f"label=com.docker.compose.project={project.name}"
    for kind in (("ps", "-aq"), ("network", "ls", "-q"), ("volume", "ls", "-q")):
        assert daemon.docker(*kind, "--filter", label) == ""


def test_what_cannot_be_had(project, daemon):
    services = {"good": {"image": "busybox", "command": "sleep 600", "stop_grace_period": "0s"}}

    def up(**service):
        text = json.dumps({"services": {**services, "bad": {"depends_on": ["good"], **service}}})
        (project.folder / "docker-compose.yml").write_text(text)
        done = project.try_to("up", "-d")
        assert done.returncode == 1
        return done.stderr

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = up(image="busybox", command="sleep 600", ports=[f"127.0.0.1:{port}:80"])
    assert f"127.0.0.1:{port}" in said
    assert "port is already allocated" in said
    assert "connection refused" in up(image="127.0.0.1:1/nothing")
    assert "executable file not found" in up(image="busybox", command="nosuch")
    assert "Up" in project("ps", "good")
    project("down", "--timeout", "0")
    assert daemon.docker("ps", "-aq", "--filter", f"label=com.docker.compose.project={project.name}") == ""
