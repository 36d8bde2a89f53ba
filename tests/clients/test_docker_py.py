"""docker-py does its work against us: the widest spread of the API that a program uses, through its own objects."""

from __future__ import annotations

import contextlib
import io
import socket as sockets
import tarfile
import threading
import time

import pytest

docker = pytest.importorskip("docker")
errors, types = docker.errors, docker.types

from tests.harness import until  # noqa: E402  # after the check that docker-py is there


@pytest.fixture(scope="module")
def client(daemon):
    with contextlib.closing(docker.DockerClient(base_url=f"unix://{daemon.socket}", timeout=60)) as client:
        yield client


@pytest.fixture
def sleeper(client, name):
    return client.containers.run("busybox", ["sleep", "600"], name=name, detach=True, labels={"test": name})


def archive(files):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for path, content in files.items():
            entry = tarfile.TarInfo(path)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


# ---- running


def test_run(client):
    assert client.containers.run("busybox", ["echo", "hi"], remove=True) == b"hi\n"
    line = ["sh", "-c", "echo out; echo err >&2"]
    assert client.containers.run("busybox", line, remove=True, stdout=False, stderr=True) == b"err\n"
    with pytest.raises(errors.ContainerError) as failed:
        client.containers.run("busybox", ["sh", "-c", "echo why >&2; exit 3"], remove=True)
    assert (failed.value.exit_status, failed.value.stderr) == (3, b"why\n")
    with pytest.raises(errors.APIError, match="executable file not found"):
        client.containers.run("busybox", ["nosuch"], remove=True)
    with pytest.raises(errors.NotFound):
        client.containers.get("nosuch")


def test_run_with_options(client, name):
    container = client.containers.run(
        "busybox",
        ["sh", "-c", "env; id; cat /etc/hosts /proc/self/limits; pwd; hostname; sleep 60"],
        name=name,
        detach=True,
        environment={"A": "b"},
        user="1000:1000",
        working_dir="/tmp",
        hostname="inside",
        extra_hosts={"other": "192.0.2.1"},
        mem_limit="64m",
        nano_cpus=500_000_000,
        pids_limit=50,
        read_only=True,
        tmpfs={"/scratch": "size=1m"},
        cap_drop=["ALL"],
        security_opt=["no-new-privileges"],
        ulimits=[types.Ulimit(name="nofile", soft=100, hard=200)],
        sysctls={"net.ipv4.ip_forward": "0"},
        restart_policy={"Name": "on-failure", "MaximumRetryCount": 3},
        healthcheck=types.Healthcheck(test=["CMD", "true"], interval=10**8),
        init=True,
        log_config=types.LogConfig(type="json-file", config={"max-size": "1m"}),
    )
    text = until(
        lambda: (log := container.logs()).endswith(b"inside\n") and b"processes" in log and log, what="the output"
    ).decode()
    for part in ("A=b", "uid=1000(worker) gid=1000(worker)", "192.0.2.1\tother", "/tmp", "inside"):
        assert part in text
    host = container.attrs["HostConfig"]
    assert (host["Memory"], host["PidsLimit"], host["CapDrop"], host["ReadonlyRootfs"]) == (64 << 20, 50, ["ALL"], True)
    until(lambda: container.reload() or container.health == "healthy", what="health")
    assert container.attrs["State"]["Health"]["Status"] == "healthy"


def test_life(client, sleeper):
    assert sleeper.status == "created"  # as docker-py saw it before the start
    sleeper.reload()
    assert sleeper.status == "running"
    sleeper.pause()
    sleeper.reload()
    assert sleeper.status == "paused"
    sleeper.unpause()
    sleeper.rename(f"{sleeper.name}-new")
    sleeper.reload()
    assert sleeper.name.endswith("-new")
    sleeper.restart(timeout=0)
    sleeper.update(mem_limit="128m", memswap_limit="256m", cpu_shares=100)
    sleeper.reload()
    assert sleeper.attrs["HostConfig"]["Memory"] == 128 << 20
    assert "sleep" in str(sleeper.top()["Processes"])
    sleeper.kill(signal="SIGKILL")
    assert sleeper.wait()["StatusCode"] == 137
    sleeper.start()
    sleeper.stop(timeout=0)
    sleeper.remove(v=True)
    with pytest.raises(errors.NotFound):
        sleeper.reload()


def test_wait_in_its_conditions(client, name):
    container = client.containers.create("busybox", ["sh", "-c", "sleep .3; exit 4"], name=name)
    codes = {}

    def wait(condition):
        codes[condition] = container.wait(condition=condition, timeout=30)["StatusCode"]

    threads = [threading.Thread(target=wait, args=(condition,)) for condition in ("next-exit", "removed")]
    for thread in threads:
        thread.start()
    time.sleep(0.2)
    container.start()
    threads[0].join()
    assert container.wait(condition="not-running")["StatusCode"] == 4
    container.remove()
    threads[1].join()
    assert codes == {"next-exit": 4, "removed": 4}


def test_list(client, sleeper):
    stopped = client.containers.create("busybox", ["true"], name=f"{sleeper.name}-stopped", labels={"test": sleeper.name})
    by_label = {"label": f"test={sleeper.name}"}
    assert client.containers.list(filters=by_label) == [sleeper]
    assert set(client.containers.list(all=True, filters=by_label)) == {sleeper, stopped}
    assert client.containers.list(all=True, filters=by_label | {"status": "created"}) == [stopped]
    assert client.containers.list(filters={"ancestor": "busybox", "name": sleeper.name}) == [sleeper]
    assert client.containers.list(all=True, limit=1, filters=by_label) == [stopped]
    removed = client.containers.prune(filters=by_label)
    assert removed["ContainersDeleted"] == [stopped.id]


# ---- output and input


def test_logs(client, name):
    script = "for i in 1 2 3; do echo line $i; sleep .1; done; echo err >&2"
    container = client.containers.run("busybox", ["sh", "-c", script], name=name, detach=True)
    assert b"".join(container.logs(stream=True, follow=True)).count(b"\n") == 4
    assert container.logs(tail=1) == b"err\n"
    assert container.logs(stderr=False, tail=2) == b"line 3\n"  # the last two lines of both streams, less the errors
    stamped = container.logs(timestamps=True, stderr=False).splitlines()
    assert stamped[0].endswith(b"Z line 1")
    assert container.logs(since=time.time() + 60) == b""
    assert container.logs(until=time.time() + 60, stdout=False) == b"err\n"


def test_exec(client, sleeper):
    assert sleeper.exec_run(["sh", "-c", "echo a; exit 5"]) == (5, b"a\n")
    code, output = sleeper.exec_run(["sh", "-c", "echo out; echo err >&2"], demux=True)
    assert (code, output) == (0, (b"out\n", b"err\n"))
    _, pieces = sleeper.exec_run(["sh", "-c", "for i in 1 2 3; do echo $i; sleep .05; done"], stream=True)
    assert b"".join(pieces) == b"1\n2\n3\n"
    out = sleeper.exec_run("id -u", user="worker", environment={"X": "y"}, workdir="/tmp").output
    assert out == b"1000\n"
    assert sleeper.exec_run("tty", tty=True).output == b"/dev/pts/0\r\n"
    assert sleeper.exec_run("sleep 1", detach=True).exit_code is None
    made = client.api.exec_create(sleeper.id, ["sh", "-c", "exit 6"])
    client.api.exec_start(made["Id"])
    assert client.api.exec_inspect(made["Id"])["ExitCode"] == 6


def test_exec_socket(client, sleeper):
    made = client.api.exec_create(sleeper.id, ["cat"], stdin=True)
    stream = client.api.exec_start(made["Id"], socket=True)
    raw = stream._sock
    raw.sendall(b"through\n")
    raw.shutdown(sockets.SHUT_WR)
    assert read_all(raw)[8:] == b"through\n"


def test_attach(client, name):
    container = client.containers.create("busybox", ["cat"], name=name, stdin_open=True)
    stream = container.attach_socket(params={"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1})
    container.start()
    raw = stream._sock
    raw.sendall(b"hello\n")
    until(lambda: b"hello" in container.logs(), what="the echo")
    raw.shutdown(sockets.SHUT_WR)
    assert read_all(raw)[8:14] == b"hello\n"
    container.wait()  # cat has met the end of its input
    assert container.logs() == b"hello\n"


def test_attach_of_a_terminal(client, name):
    container = client.containers.create("busybox", ["sh"], name=name, tty=True, stdin_open=True)
    raw = container.attach_socket(params={"stdin": 1, "stdout": 1, "stream": 1})._sock
    container.start()
    container.resize(height=30, width=90)
    raw.sendall(b"stty size; exit\n")
    assert b"30 90" in read_all(raw)


def read_all(raw):
    raw.settimeout(20)
    found = b""
    while piece := raw.recv(65536):
        found += piece
    return found


# ---- files


def test_files(client, sleeper):
    assert sleeper.put_archive("/tmp", archive({"a/b": b"content", "c": b"2"}))
    pieces, facts = sleeper.get_archive("/tmp/a/b")
    assert (facts["name"], facts["size"]) == ("b", 7)
    with tarfile.open(fileobj=io.BytesIO(b"".join(pieces))) as tar:
        assert tar.extractfile("b").read() == b"content"
    with pytest.raises(errors.NotFound):
        sleeper.get_archive("/nosuch")
    assert {"Path": "/tmp/c", "Kind": 1} in sleeper.diff()
    with tarfile.open(fileobj=io.BytesIO(b"".join(sleeper.export()))) as tar:
        assert "tmp/a/b" in tar.getnames()


def test_commit(client, sleeper, name):
    sleeper.exec_run(["sh", "-c", "echo kept > /kept; rm /bin/vi"])
    image = sleeper.commit(f"{name}-image", "1", message="why", author="me", changes=["ENV X=y", 'CMD ["cat", "/kept"]'])
    try:
        assert client.containers.run(image.id, remove=True) == b"kept\n"
        assert (image.attrs["Comment"], image.attrs["Author"], image.attrs["Config"]["Env"]) == ("why", "me", ["X=y"])
        assert image.history()[0]["Comment"] == "why"
        assert client.images.get(f"{name}-image:1").id == image.id
        again = client.containers.create(image, ["true"]).commit(f"{name}-image", "2", pause=False)
        assert again.attrs["Parent"] == image.id
        assert len(again.attrs["RootFS"]["Layers"]) == len(image.attrs["RootFS"]["Layers"])  # nothing was changed
    finally:
        for container in client.containers.list(all=True, filters={"ancestor": f"{name}-image:1"}):
            container.remove(force=True)
        for tag in ("2", "1"):
            client.images.remove(f"{name}-image:{tag}", force=True)


# ---- watching


def test_stats(sleeper):
    one = sleeper.stats(stream=False)
    assert one["cpu_stats"]["cpu_usage"]["total_usage"] > 0
    assert one["memory_stats"]["usage"] > 0
    stream = sleeper.stats(decode=True)
    first, second = next(stream), next(stream)
    assert second["preread"] == first["read"]
    stream.close()
    sleeper.kill()
    sleeper.wait()
    assert sleeper.stats(stream=False)["memory_stats"] == {}


def test_events(client, name):
    began = int(time.time())
    live = client.events(decode=True, filters={"container": name, "type": "container"})
    container = client.containers.run("busybox", ["sleep", "600"], name=name, detach=True, labels={"l": "v"})
    container.exec_run("true")
    container.kill()
    container.wait()
    container.remove()
    actions = []
    for event in live:
        actions.append(event["Action"].partition(":")[0])
        assert event["Actor"]["Attributes"]["l"] == "v"
        if event["Action"] == "destroy":
            break
    live.close()
    assert actions == ["create", "start", "exec_create", "exec_start", "exec_die", "kill", "die", "destroy"]
    past = client.events(since=began, until=int(time.time()) + 1, decode=True, filters={"container": name, "event": "die"})
    assert [event["Actor"]["Attributes"]["exitCode"] for event in past] == ["137"]


# ---- volumes, networks, images, system


def test_volumes(client, name):
    volume = client.volumes.create(f"{name}-vol", labels={"k": "v"})
    mount = types.Mount("/data", volume.name)
    client.containers.run("busybox", ["sh", "-c", "echo 1 > /data/x"], mounts=[mount], remove=True)
    out = client.containers.run(
        "busybox", ["cat", "/d/x"], volumes={volume.name: {"bind": "/d", "mode": "ro"}}, remove=True
    )
    assert out == b"1\n"
    assert volume in client.volumes.list(filters={"label": "k=v"})
    user = client.containers.create("busybox", ["true"], name=name, mounts=[mount])
    with pytest.raises(errors.APIError, match="volume is in use"):
        volume.remove()
    user.remove()
    volume.remove()
    with pytest.raises(errors.NotFound):
        client.volumes.get(volume.name)


def test_networks(client, name):
    network = client.networks.create(f"{name}-net", driver="bridge", labels={"k": name})
    server = client.containers.run(
        "busybox", ["sh", "-c", "echo page > /index.html; httpd -f -p 80"], name=name, detach=True, network=network.name
    )
    out = client.containers.run("busybox", ["wget", "-qO-", f"http://{name}/"], network=network.name, remove=True)
    assert out == b"page\n"
    other = client.networks.create(f"{name}-net2")
    other.connect(server, aliases=["alias"])
    server.reload()
    assert set(server.attrs["NetworkSettings"]["Networks"]) == {network.name, other.name}
    assert client.containers.run("busybox", ["wget", "-qO-", "http://alias/"], network=other.name, remove=True) == b"page\n"
    other.disconnect(server)
    network.reload()
    assert network.containers == [server]
    assert client.networks.list(filters={"label": f"k={name}"}) == [network]
    server.remove(force=True)
    network.remove()
    other.remove()


def test_an_endpoint_in_detail(client, name):
    """Link-local addresses are the endpoint's as well, also on a network that is joined while the container runs."""
    network = client.networks.create(name, driver="bridge")
    container = client.containers.run("busybox", ["sleep", "600"], name=name, detach=True)
    network.connect(container, aliases=["other"], link_local_ips=["169.254.77.7"])
    addresses = container.exec_run("ip -o addr show eth1").output.decode()
    assert "169.254.77.7/16" in addresses
    container.reload()
    endpoint = container.attrs["NetworkSettings"]["Networks"][name]
    assert (endpoint["Aliases"], endpoint["IPAMConfig"]) == (["other"], {"LinkLocalIPs": ["169.254.77.7"]})
    with pytest.raises(errors.NotFound, match="endpoint nobody not found"):
        client.api.disconnect_container_from_network("nobody", network.id, force=True)
    with pytest.raises(errors.APIError, match="not a swarm manager"):
        client.networks.create(f"{name}-far", driver="overlay")


def test_what_a_container_shares_with_another(client, name):
    giver = client.containers.run(
        "busybox", ["sh", "-c", "echo shared > /dev/shm/x; sleep 600"], name=name, detach=True, ipc_mode="shareable"
    )
    until(lambda: giver.exec_run(["cat", "/dev/shm/x"]).output == b"shared\n", what="the file")
    modes = {"ipc_mode": f"container:{name}", "pid_mode": f"container:{name}", "network_mode": f"container:{name}"}
    line = ["sh", "-c", "cat /dev/shm/x; ps -o args | grep -c '^sleep 600'"]
    assert client.containers.run("busybox", line, remove=True, **modes) == b"shared\n1\n"
    with pytest.raises(errors.APIError, match="hostname and the network mode") as refused:
        client.containers.create("busybox", hostname="own", **modes)
    assert refused.value.status_code == 400
    later = client.containers.create("busybox", ["true"], name=f"{name}-later", ipc_mode="container:nobody")
    with pytest.raises(errors.NotFound, match="No such container: nobody"):
        later.start()


def test_ports(client, name):
    server = client.containers.run(
        "busybox",
        ["sh", "-c", "echo page > /index.html; httpd -f -p 80"],
        name=name,
        detach=True,
        ports={"80/tcp": ("127.0.0.1", None)},
    )
    server.reload()
    port = int(server.ports["80/tcp"][0]["HostPort"])

    def fetch():
        with contextlib.suppress(OSError), sockets.create_connection(("127.0.0.1", port), timeout=3) as connection:
            connection.sendall(b"GET /index.html HTTP/1.0\r\n\r\n")
            return connection.makefile("rb").read().endswith(b"page\n")

    until(fetch, what="the page")


def test_images(client, name):
    data = archive({"hello": b"hi"})
    client.api.import_image_from_data(data, repository=f"{name}-image", tag="1")
    image = client.images.get(f"{name}-image:1")
    assert image.tag(f"{name}-image", "2")
    image.reload()
    assert set(image.tags) == {f"{name}-image:1", f"{name}-image:2"}
    saved = b"".join(image.save(named=f"{name}-image:1"))
    client.images.remove(f"{name}-image:1")
    client.images.remove(f"{name}-image:2")
    assert client.images.load(saved)[0].id == image.id
    assert image in client.images.list(name=f"{name}-image")
    client.images.remove(f"{name}-image:1")
    with pytest.raises(errors.ImageNotFound):
        client.images.get(f"{name}-image:1")


def test_system(client, sleeper):
    assert client.ping()
    assert client.version()["ApiVersion"]
    assert client.info()["ContainersRunning"] >= 1
    assert any(entry["Id"] == sleeper.id for entry in client.df()["Containers"])
