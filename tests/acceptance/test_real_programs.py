"""nginx, redis and PostgreSQL of Debian, run as people run them: published, by name, on a volume."""

from __future__ import annotations

import subprocess
import urllib.request

import pytest

from tests import programs
from tests.harness import free_port, until

POSTGRES = "/usr/lib/postgresql/15/bin"
BINARIES = (
    "usr/sbin/nginx",
    "usr/bin/redis-server",
    "usr/bin/redis-cli",
    *(f"{POSTGRES[1:]}/{name}" for name in ("postgres", "initdb", "psql")),
)
NGINX = """
daemon off; user www-data; pid /tmp/nginx.pid; error_log stderr;
events {}
http {
  access_log /dev/stdout;
  server { listen 80; root /srv; location /api/ { proxy_pass http://api:80/; } }
}
"""
SERVE_POSTGRES = f"""
if ! test -e /data/PG_VERSION; then
  {POSTGRES}/initdb -N -A trust --no-locale -U postgres -D /data && echo "host all all all trust" >> /data/pg_hba.conf
fi
exec {POSTGRES}/postgres -D /data -h 0.0.0.0 -k /tmp
"""


@pytest.fixture(scope="module")
def image(daemon, request, tmp_path_factory):
    """One image with all three."""
    packages = programs.download(["nginx-light", "redis-server", "postgresql-15"], request.config.cache.mkdir("debs"))
    root = tmp_path_factory.mktemp("programs")
    programs.make_root(root, packages, BINARIES)
    (root / "etc/nginx.conf").write_text(NGINX)
    archive = root.with_suffix(".tar")
    subprocess.run(["tar", "-C", root, "-cf", archive, "."], check=True)
    daemon.docker("import", archive, "programs")
    archive.unlink()
    yield "programs"
    daemon.docker("rmi", "programs")


def _query(daemon, name, statement):
    """What a client on the same network is told, or None while the server does not answer."""
    result = daemon.run_docker(
        "run", "--rm", "--network", f"{name}net", "programs", f"{POSTGRES}/psql", "-h", f"{name}db", "-U", "postgres",
        "-At", "-v", "ON_ERROR_STOP=1", "-c", statement,
    )  # fmt: skip
    return result.stdout.decode().strip() if result.returncode == 0 else None


def _serve_postgres(daemon, name, *options):
    daemon.docker(
        "run", "-d", "--name", f"{name}db", "--network", f"{name}net", "--shm-size", "64m", *options, "-u", "worker",
        "programs", "sh", "-c", SERVE_POSTGRES,
    )  # fmt: skip
    try:
        until(lambda: _query(daemon, name, "select 1") == "1", what="PostgreSQL", seconds=60)
    except AssertionError as error:
        error.add_note(daemon.docker("logs", f"{name}db", both=True))
        raise


@pytest.mark.slow
def test_postgresql_keeps_its_data_on_a_volume_and_loses_it_without(daemon, name, image):
    daemon.docker("network", "create", f"{name}net")
    daemon.docker("volume", "create", f"{name}data")
    daemon.docker("run", "--rm", "-v", f"{name}data:/data", image, "chown", "worker:worker", "/data")
    volume = ("-v", f"{name}data:/data")
    _serve_postgres(daemon, name, *volume)
    assert _query(daemon, name, "create table ships (name text); insert into ships values ('Wharfinger')") is not None
    daemon.docker("rm", "-f", f"{name}db")
    _serve_postgres(daemon, name, *volume)
    assert _query(daemon, name, "select name from ships") == "Wharfinger"
    daemon.docker("stop", f"{name}db")
    daemon.docker("rm", f"{name}db")
    _serve_postgres(daemon, name, "--tmpfs", "/data:uid=1000,gid=1000,mode=0700")
    assert _query(daemon, name, "select name from ships") is None


@pytest.mark.slow
def test_nginx_before_an_api_and_redis_behind(daemon, name, image):
    for network in ("front", "back"):
        daemon.docker("network", "create", f"{name}{network}")
    port = free_port()
    daemon.docker(
        "run", "-d", "--name", f"{name}api", "--network", f"{name}front", "--network-alias", "api", "busybox",
        "sh", "-c", "mkdir /w; echo answer > /w/one; exec httpd -f -h /w -p 80",
    )  # fmt: skip
    daemon.docker("network", "connect", f"{name}back", f"{name}api")
    daemon.docker("volume", "create", f"{name}pages")
    daemon.docker("run", "--rm", "-v", f"{name}pages:/srv", image, "sh", "-c", "echo page > /srv/index.html")
    daemon.docker(
        "run", "-d", "--name", f"{name}web", "--network", f"{name}front", "-p", f"127.0.0.1:{port}:80",
        "-v", f"{name}pages:/srv:ro", image, "/usr/sbin/nginx", "-c", "/etc/nginx.conf",
    )  # fmt: skip
    daemon.docker(
        "run", "-d", "--name", f"{name}redis", "--network", f"{name}back", image,
        "/usr/bin/redis-server", "--bind", "0.0.0.0", "--protected-mode", "no", "--save", "",
    )  # fmt: skip

    def fetch(path):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as response:
                return response.read()
        except OSError:
            return None

    def redis(*words):
        client = ("run", "--rm", "--network", f"{name}back", image, "/usr/bin/redis-cli", "-h", f"{name}redis")
        return daemon.run_docker(*client, *words).stdout.decode().strip()

    until(lambda: fetch("/") == b"page\n", what="nginx")
    until(lambda: fetch("/api/one") == b"answer\n", what="the API behind nginx")
    assert "GET /api/one" in daemon.docker("logs", f"{name}web")
    until(lambda: redis("ping") == "PONG", what="redis")
    assert redis("set", "berth", "7") == "OK"
    assert redis("get", "berth") == "7"
    daemon.docker("restart", "-t", "5", f"{name}web")
    until(lambda: fetch("/") == b"page\n", what="nginx after a restart")
    assert (
        "Could not connect"
        in daemon.run_docker(
            "run", "--rm", "--network", f"{name}front", image, "/usr/bin/redis-cli", "-h", f"{name}redis", "ping"
        ).stderr.decode()
    )
