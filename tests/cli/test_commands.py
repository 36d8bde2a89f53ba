"""What the commands ask of the engine, what they print, and how they end."""

from __future__ import annotations

import json
import shutil
import struct
import time

import pytest

ID = "f40b3a0e34d3" + "0" * 52
CREATED = {"Id": ID, "Warnings": []}


def frame(stream, payload):
    return struct.pack(">BxxxL", stream, len(payload)) + payload


def container(**changes):
    return {
        "Id": ID,
        "Names": ["/web"],
        "Image": "nginx",
        "Command": "/docker-entrypoint.sh nginx -g",
        "Created": int(time.time()) - 7200,
        "State": "running",
        "Status": "Up 2 hours",
        "Ports": [
            {"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"},
            {"IP": "0.0.0.0", "PrivatePort": 90, "PublicPort": 90, "Type": "tcp"},
            {"IP": "0.0.0.0", "PrivatePort": 91, "PublicPort": 91, "Type": "tcp"},
            {"IP": "::", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"},
            {"PrivatePort": 53, "Type": "udp"},
        ],
        "Labels": {"a": "b"},
        **changes,
    }


@pytest.mark.skipif(not shutil.which("docker"), reason="needs the docker command line to compare with")
@pytest.mark.parametrize(
    "arguments",
    [
        ("ps", "-a"),
        ("ps", "-a", "-s", "--no-trunc"),
        ("ps", "--format", "{{.ID}} {{.Ports}} {{.Networks}} {{.Status}}"),
        ("images",),
        ("images", "--digests"),
        ("images", "-q"),
        ("volume", "ls"),
        ("network", "ls"),
        ("inspect", "front"),
        ("volume", "prune", "-f"),
        ("events",),
        ("logs", "web"),
        ("stop", "-t", "0", "front", "web"),
        ("rmi", "x:1"),
        ("load", "-q", "-i", "/dev/null"),
        ("pull", "r.example/x:1"),
        ("run", "-d", "nginx"),
        ("run", "nginx"),
        ("exec", "web", "true"),
        ("inspect", "nothing"),
    ],
    ids=" ".join,
)
def test_output_and_exit_code_are_those_of_docker(engine, wharfie, arguments):
    image = {"Id": "sha256:" + "a" * 64, "Created": int(time.time()) - 90 * 86400, "Size": 4_261_550, "Containers": -1}
    names = [
        {"RepoTags": ["busybox:latest", "busybox:1.36"], "RepoDigests": ["busybox@sha256:" + "ab" * 32]},
        {"RepoTags": [], "RepoDigests": None},
        {"RepoTags": [], "RepoDigests": ["old@sha256:" + "cd" * 32]},
    ]
    event = {"Type": "network", "Action": "connect", "scope": "local", "time": 1_795_538_890}
    event |= {"timeNano": 1_795_538_890_597_251_234, "Actor": {"ID": ID, "Attributes": {"name": "web", "a": "b"}}}
    networks = {"front": {"NetworkID": ID}}
    running = {"SizeRw": 12_345, "SizeRootFs": 1_234_567_890, "NetworkSettings": {"Networks": networks}, "HostConfig": {}}
    engine.on(
        "GET", "/containers/json", [container(**running), container(Names=["/db", "/web/db"], Ports=[], Command="sh")]
    )
    engine.on("GET", "/images/json", [{**image, **one} for one in names])
    engine.on("GET", "/volumes", {"Volumes": [{"Driver": "local", "Name": name} for name in ("z", "b")], "Warnings": None})
    engine.on("GET", "/networks", [{"Id": ID, "Name": name, "Driver": "bridge", "Scope": "local"} for name in ("z", "b")])
    engine.on("GET", "/networks/front", {"Name": "front", "Id": ID, "Labels": {}})
    engine.on("POST", "/volumes/prune", {"VolumesDeleted": ["a"], "SpaceReclaimed": 123456789})
    engine.on("GET", "/events", engine.Answer(chunks=[json.dumps(event).encode() + b"\n"]))
    engine.on("GET", "/containers/web/json", {"Id": ID, "Config": {"Tty": False}, "State": {"Running": True}})
    for name in ("web", ID):
        engine.on("GET", f"/containers/{name}/logs", engine.Answer(chunks=[frame(1, b"out\n"), frame(2, b"err\n")]))
    engine.on("POST", "/containers/web/stop", engine.Answer(204))
    engine.on("POST", "/containers/front/stop", engine.Answer(404, {"message": "No such container: front"}))
    engine.on("DELETE", "/images/x:1", [{"Untagged": "x:1"}, {"Deleted": "sha256:aa"}])
    engine.on("POST", "/images/load", engine.Answer(chunks=[b'{"stream":"Loaded image: x:1\\n"}\n']))
    pulled = [{"status": "Pulling from x", "id": "1"}, {"status": "Pull complete", "id": "abc", "progressDetail": {}}]
    pulled += [{"status": "Digest: sha256:ab"}, {"status": "Status: Downloaded newer image for r.example/x:1"}]
    engine.on("POST", "/images/create", engine.Answer(chunks=[json.dumps(one).encode() + b"\r\n" for one in pulled]))
    engine.on("POST", "/containers/create", CREATED)
    engine.on("POST", f"/containers/{ID}/attach", engine.Answer(hijack=lambda sock: sock.sendall(frame(1, b"hi\n"))))
    engine.on("POST", f"/containers/{ID}/wait", {"StatusCode": 7})
    engine.on("POST", f"/containers/{ID}/start", engine.Answer(204))
    engine.on("POST", "/containers/web/exec", {"Id": "e1"})
    engine.on("POST", "/exec/e1/start", engine.Answer(hijack=lambda sock: sock.sendall(frame(2, b"oops\n"))))
    engine.on("GET", "/exec/e1/json", {"ID": "e1", "ExitCode": 3})
    engine.on("GET", "/info", {"Swarm": {}})
    engine.on("GET", "/plugins/nothing/json", engine.Answer(404, {"message": 'plugin "nothing" not found'}))
    theirs = wharfie(*arguments, command=["docker"])
    assert wharfie(*arguments) == theirs


def test_ps_prints_dockers_table(engine, wharfie):
    engine.on("GET", "/containers/json", [container()])
    code, out, err = wharfie("ps", "-a", "--filter", "label=a=b")
    heading, row = out.splitlines()
    assert (code, err) == (0, "")
    ports = "53/udp, 0.0.0.0:90-91->90-91/tcp, 0.0.0.0:8080->80/tcp, [::]:8080->80/tcp"
    assert heading == (
        f"CONTAINER ID   IMAGE     COMMAND                  CREATED       STATUS       {'PORTS':{len(ports)}}   NAMES"
    )
    assert row == f'f40b3a0e34d3   nginx     "/docker-entrypoint.…"   2 hours ago   Up 2 hours   {ports}   web'
    (call,) = engine.made("GET", "/containers/json")
    assert call.query["all"] == "1"
    assert json.loads(call.query["filters"]) == {"label": ["a=b"]}


@pytest.mark.parametrize(
    ("arguments", "out"),
    [
        (("-q",), "f40b3a0e34d3\n"),
        (("-q", "--no-trunc"), ID + "\n"),
        (("--format", "{{.Names}}\\t{{json .State}}"), 'web\t"running"\n'),
        (("--format", "{{.Names}} {{.Labels}}"), "web a=b\n"),
    ],
)
def test_ps_in_other_forms(engine, wharfie, arguments, out):
    engine.on("GET", "/containers/json", [container()])
    assert wharfie("ps", *arguments) == (0, out, "")


def test_ps_as_json_has_a_line_for_each(engine, wharfie):
    engine.on("GET", "/containers/json", [container(), container(Names=["/db"])])
    _, out, _ = wharfie("ps", "--format", "json")
    assert [json.loads(line)["Names"] for line in out.splitlines()] == ["web", "db"]


def test_images_table(engine, wharfie):
    image = {"Id": "sha256:" + "a" * 64, "Created": int(time.time()) - 90 * 86400, "Size": 4_261_550}
    engine.on(
        "GET",
        "/images/json",
        [
            {**image, "RepoTags": ["busybox:latest", "r.example:5000/b:1"], "RepoDigests": ["busybox@sha256:ab"]},
            {**image, "RepoTags": [], "RepoDigests": None},
        ],
    )
    assert wharfie("images")[1].splitlines() == [
        "REPOSITORY         TAG       IMAGE ID       CREATED        SIZE",
        "busybox            latest    aaaaaaaaaaaa   3 months ago   4.26MB",
        "r.example:5000/b   1         aaaaaaaaaaaa   3 months ago   4.26MB",
        "<none>             <none>    aaaaaaaaaaaa   3 months ago   4.26MB",
    ]
    assert wharfie("images", "-q")[1] == "aaaaaaaaaaaa\n" * 3


def test_run_attached_gives_streams_and_exit_code(engine, wharfie):
    received = []

    def streams(sock):
        sock.sendall(frame(1, b"out\n")[:5])
        time.sleep(0.02)
        sock.sendall(frame(1, b"out\n")[5:] + frame(2, b"err\n"))
        while data := sock.recv(100):
            received.append(data)
        sock.sendall(frame(1, b"after the end of input\n"))

    engine.on("POST", "/containers/create", CREATED)
    engine.on("POST", f"/containers/{ID}/attach", engine.Answer(hijack=streams))
    engine.on("POST", f"/containers/{ID}/wait", {"StatusCode": 42})
    engine.on("POST", f"/containers/{ID}/start", engine.Answer(204))
    result = wharfie("run", "--rm", "-i", "--name", "x", "busybox", "sh", "-c", "cat", stdin=b"typed\n")
    assert result == (42, "out\nafter the end of input\n", "err\n")
    assert b"".join(received) == b"typed\n"
    assert [call.path.rpartition("/")[2] for call in engine.calls] == ["create", "attach", "wait", "start"]
    create, attach, wait, _ = engine.calls
    assert create.query == {"name": "x"}
    assert (create.json["Cmd"], create.json["OpenStdin"], create.json["StdinOnce"]) == (["sh", "-c", "cat"], True, True)
    assert create.json["HostConfig"]["AutoRemove"] is True
    assert attach.query == {"stream": "1", "stdin": "1", "stdout": "1", "stderr": "1"}
    assert wait.query == {"condition": "removed"}


def test_run_detached_prints_the_id(engine, wharfie):
    engine.on("POST", "/containers/create", {"Id": ID, "Warnings": ["be careful"]})
    engine.on("POST", f"/containers/{ID}/start", engine.Answer(204))
    assert wharfie("run", "-d", "busybox") == (0, ID + "\n", "WARNING: be careful\n")


def test_run_pulls_what_is_missing(engine, wharfie):
    missing = engine.Answer(404, {"message": "No such image: busybox:latest"})
    engine.on("POST", "/containers/create", missing, CREATED)
    engine.on("POST", f"/containers/{ID}/start", engine.Answer(204))
    messages = [
        {"status": "Pulling from library/busybox", "id": "latest"},
        {"status": "Downloading", "id": "abc", "progressDetail": {"current": 1, "total": 2}},
        {"status": "Pull complete", "id": "abc", "progressDetail": {}},
        {"status": "Status: Downloaded newer image for busybox:latest"},
    ]
    data = b"".join(json.dumps(message).encode() + b"\r\n" for message in messages)
    engine.on("POST", "/images/create", engine.Answer(chunks=[data[:50], data[50:]]))
    code, out, err = wharfie("run", "-d", "busybox")
    assert (code, out) == (0, ID + "\n")
    assert err.splitlines() == [
        "Unable to find image 'busybox:latest' locally",
        "latest: Pulling from library/busybox",
        "abc: Pull complete",
        "Status: Downloaded newer image for busybox:latest",
    ]
    assert engine.made("POST", "/images/create")[0].query == {"fromImage": "busybox", "tag": "latest"}
    engine.on("POST", "/containers/create", missing)
    assert wharfie("run", "--pull", "never", "busybox")[0] == 125


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ('exec: "nosuch": executable file not found in $PATH: unknown', 127),
        ("exec: /etc/passwd: permission denied", 126),
        ("driver failed programming external connectivity", 125),
    ],
)
def test_run_ends_with_dockers_code_when_the_start_fails(engine, wharfie, message, code):
    engine.on("POST", "/containers/create", CREATED)
    engine.on("POST", f"/containers/{ID}/attach", engine.Answer(hijack=lambda sock: None))
    engine.on("POST", f"/containers/{ID}/wait", {"StatusCode": 0})
    engine.on("POST", f"/containers/{ID}/start", engine.Answer(400, {"message": message}))
    assert wharfie("run", "busybox", "x") == (code, "", f"Error response from daemon: {message}\n")
    assert wharfie("run", "-d", "busybox", "x")[0] == code


def test_a_failed_pull_is_one_line(engine, wharfie):
    message = json.dumps({"errorDetail": {"message": "no route"}, "error": "no route"}).encode()
    engine.on("POST", "/images/create", engine.Answer(chunks=[b'{"status":"Pulling"}\n', message]))
    assert wharfie("pull", "r.example/x:1") == (1, "Pulling\n", "Error response from daemon: no route\n")


def test_pull_names_what_it_pulled_and_sends_stored_credentials(engine, wharfie, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"auths": {"r.example:5000": {"auth": "dXNlcjpwYXNz"}}}))
    engine.on("POST", "/images/create", engine.Answer(chunks=[b'{"status":"ok"}\n']))
    assert wharfie("pull", "-q", "busybox")[1] == "docker.io/library/busybox:latest\n"
    assert wharfie("pull", "r.example:5000/x@sha256:ab")[1] == "ok\nr.example:5000/x@sha256:ab\n"
    first, second = engine.made("POST", "/images/create")
    assert "x-registry-auth" not in first.headers
    assert second.query == {"fromImage": "r.example:5000/x", "tag": "sha256:ab"}
    assert second.headers["x-registry-auth"]


def test_exec_gives_the_commands_exit_code(engine, wharfie):
    engine.on("POST", "/containers/web/exec", {"Id": "e1"})
    engine.on("POST", "/exec/e1/start", engine.Answer(hijack=lambda sock: sock.sendall(frame(1, b"hi\n"))))
    engine.on("GET", "/exec/e1/json", {"ExitCode": None, "Running": True}, {"ExitCode": 3, "Running": False})
    assert wharfie("exec", "-e", "A=b", "-w", "/tmp", "web", "echo", "-n", "hi") == (3, "hi\n", "")
    body = engine.made("POST", "/containers/web/exec")[0].json
    assert (body["Cmd"], body["Env"], body["WorkingDir"]) == (["echo", "-n", "hi"], ["A=b"], "/tmp")
    engine.on("POST", "/exec/e1/start", engine.Answer(200))
    assert wharfie("exec", "-d", "web", "true") == (0, "", "")
    assert engine.made("POST", "/exec/e1/start")[-1].json == {"Detach": True, "Tty": False}


def test_logs_with_and_without_a_terminal(engine, wharfie):
    engine.on("GET", "/containers/web/json", {"Config": {"Tty": False}}, {"Config": {"Tty": True}})
    engine.on(
        "GET",
        "/containers/web/logs",
        engine.Answer(chunks=[frame(1, b"a\n") + frame(2, b"b\n")[:9], frame(2, b"b\n")[9:]]),
        engine.Answer(chunks=[b"raw\r\n"]),
    )
    assert wharfie("logs", "--tail", "5", "-t", "web") == (0, "a\n", "b\n")
    query = engine.made("GET", "/containers/web/logs")[0].query
    assert query == {"stdout": "1", "stderr": "1", "tail": "5", "timestamps": "1"}
    assert wharfie("logs", "--since", "10m", "web")[1] == "raw\r\n"
    assert float(engine.made("GET", "/containers/web/logs")[1].query["since"]) < time.time() - 500


def test_lists_of_names_go_on_after_an_error(engine, wharfie):
    engine.on("POST", "/containers/a/stop", engine.Answer(204))
    engine.on("POST", "/containers/b/stop", engine.Answer(404, {"message": "No such container: b"}))
    engine.on("POST", "/containers/c/stop", engine.Answer(304))
    assert wharfie("stop", "-t", "0", "a", "b", "c") == (1, "a\nc\n", "Error response from daemon: No such container: b\n")
    assert engine.made("POST", "/containers/a/stop")[0].query == {"t": "0"}
    engine.on("DELETE", "/containers/a", engine.Answer(204))
    assert wharfie("rm", "-fv", "a") == (0, "a\n", "")
    assert engine.made("DELETE", "/containers/a")[0].query == {"force": "1", "v": "1"}
    engine.on("DELETE", "/images/x:1", [{"Untagged": "x:1"}, {"Deleted": "sha256:aa"}])
    assert wharfie("rmi", "x:1")[1] == "Untagged: x:1\nDeleted: sha256:aa\n"


def test_inspect_looks_everywhere(engine, wharfie):
    engine.on("GET", "/networks/front", {"Name": "front", "Driver": "bridge", "Internal": False})
    code, out, err = wharfie("inspect", "front", "nothing")
    assert code == 1
    assert json.loads(out) == [{"Name": "front", "Driver": "bridge", "Internal": False}]
    assert err == "Error: No such object: nothing\n"
    assert wharfie("inspect", "-f", "{{.Driver}} {{.Internal}}", "front")[1] == "bridge false\n"
    code, _, err = wharfie("inspect", "-f", "{{.Nope}}", "front")
    assert code == 125
    assert "there is no field 'Nope'" in err


def test_volumes_and_networks(engine, wharfie):
    engine.on("POST", "/volumes/create", {"Name": "data"})
    assert wharfie("volume", "create", "-o", "type=tmpfs", "-o", "o=size=1m,mode=1", "data")[1] == "data\n"
    assert engine.made("POST", "/volumes/create")[0].json["DriverOpts"] == {"type": "tmpfs", "o": "size=1m,mode=1"}
    engine.on("GET", "/volumes", {"Volumes": [{"Driver": "local", "Name": "data"}], "Warnings": None})
    assert wharfie("volume", "ls")[1] == "DRIVER    VOLUME NAME\nlocal     data\n"
    engine.on("POST", "/volumes/prune", {"VolumesDeleted": ["data"], "SpaceReclaimed": 1500})
    assert wharfie("volume", "prune", "-f")[1] == "Deleted Volumes:\ndata\n\nTotal reclaimed space: 1.5kB\n"
    assert wharfie("volume", "prune", stdin=b"n\n")[0] == 0
    assert len(engine.made("POST", "/volumes/prune")) == 1
    engine.on("POST", "/networks/create", {"Id": ID, "Warning": ""})
    assert wharfie("network", "create", "--subnet", "10.9.0.0/24", "--gateway", "10.9.0.1", "net")[1] == ID + "\n"
    assert engine.made("POST", "/networks/create")[0].json["IPAM"]["Config"] == [
        {"Subnet": "10.9.0.0/24", "Gateway": "10.9.0.1", "IPRange": ""}
    ]
    engine.on("GET", "/networks", [{"Id": ID, "Name": "bridge", "Driver": "bridge", "Scope": "local"}])
    assert wharfie("network", "ls")[1].splitlines()[1] == "f40b3a0e34d3   bridge    bridge    local"
    engine.on("POST", "/networks/net/connect", engine.Answer(200))
    assert wharfie("network", "connect", "--alias", "db", "net", "web") == (0, "", "")
    assert engine.made("POST", "/networks/net/connect")[0].json["EndpointConfig"]["Aliases"] == ["db"]


def test_plugin_ls_says_what_is_wrong(engine, wharfie):
    row = {"Kind": "volume", "Name": "acme", "Distribution": "wharfie-acme", "Version": "0.3", "State": "broken"}
    row["Enabled"] = True
    engine.on("GET", "/wharfie/plugins", [{**row, "Cause": "cannot be imported", "Remedy": "pip install acme"}])
    code, out, err = wharfie("plugin", "ls")
    expected = "volume    acme      0.3       wharfie-acme   true      broken    cannot be imported"
    assert (code, out.splitlines()[1]) == (0, expected)
    assert err == "`wharfie plugin doctor` says what mends it.\n"


def test_plugin_doctor_prints_what_mends_it_and_counts_only_what_is_wrong(engine, wharfie):
    hint = {"Subject": "volume.b", "What": "no such module", "Fix": "modprobe b", "Command": "modprobe b", "Wrong": False}
    engine.on("GET", "/wharfie/doctor", [hint])
    assert wharfie("plugin", "doctor") == (0, "note   volume.b: no such module\n       run:  modprobe b\n", "")
    wrong = {"Subject": "volume.a", "What": "it hangs", "Fix": "Restart it", "Command": "", "Wrong": True}
    engine.on("GET", "/wharfie/doctor", [hint, wrong])
    code, out, _ = wharfie("plugin", "doctor")
    assert (code, out.splitlines()[:2]) == (1, ["wrong  volume.a: it hangs", "       Restart it"])
    engine.on("GET", "/wharfie/doctor", [])
    assert wharfie("plugin", "doctor") == (0, "Nothing is wrong.\n", "")


def test_events_are_printed_as_docker_prints_them(engine, wharfie):
    event = {
        "Type": "container",
        "Action": "start",
        "Actor": {"ID": ID, "Attributes": {"name": "web", "image": "nginx"}},
        "timeNano": 1_795_538_890_597_251_234,
    }
    engine.on("GET", "/events", engine.Answer(chunks=[json.dumps(event).encode() + b"\n"]))
    _, out, _ = wharfie("events", "--filter", "type=container", env={"TZ": "UTC"})
    assert out == f"2026-11-24T16:48:10.597251234Z container start {ID} (image=nginx, name=web)\n"


def test_load_sends_the_archive_as_it_is(engine, wharfie, tmp_path):
    archive = tmp_path / "image.tar"
    archive.write_bytes(bytes(range(256)) * 9000)
    engine.on("POST", "/images/load", engine.Answer(chunks=[b'{"stream":"Loaded image: x:1\\n"}\n']))
    assert wharfie("load", "-i", str(archive)) == (0, "Loaded image: x:1\n", "")
    assert engine.calls[0].body == archive.read_bytes()
    assert wharfie("load", stdin=b"tar")[0] == 0
    assert engine.calls[1].body == b"tar"


def test_info_and_version(engine, wharfie):
    engine.on("GET", "/info", {"Containers": 3, "Driver": "overlay2", "DriverStatus": [["A", "b"]], "MemTotal": 2**31})
    out = wharfie("info")[1]
    assert " Containers: 3\n" in out
    assert " Storage Driver: overlay2\n  A: b\n" in out
    assert " Total Memory: 2GiB\n" in out
    server = {"Version": "1", "ApiVersion": "1.50", "MinAPIVersion": "1.24", "Os": "linux", "Arch": "amd64"}
    engine.on("GET", "/version", server)
    assert "API version:  1.50 (minimum version 1.24)" in wharfie("version")[1]
    assert wharfie("version", "--format", "{{.Server.ApiVersion}}")[1] == "1.50\n"


def test_no_engine_says_how_to_start_one(wharfie):
    code, out, err = wharfie("ps", host="unix:///nonexistent/engine.sock")
    assert (code, out) == (1, "")
    assert "Cannot connect to the Wharfie daemon at unix:///nonexistent/engine.sock" in err
    assert "`wharfied`" in err
    assert len(err.splitlines()) == 1
    assert wharfie("run", "x", host="unix:///nonexistent/engine.sock")[0] == 125
    assert "has to be a number" in wharfie("ps", host="tcp://localhost:http")[2]
    assert "write unix:///path" in wharfie("ps", host="ssh://host")[2]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("run", "--nope", "x"), 125, "--nope"),
        (("run", "-p", "70000:80", "x"), 125, "ports go up to 65535"),
        (("run", "-m", "lots", "x"), 125, "invalid size: 'lots'"),
        (("run", "--mount", "type=bind,nope=1", "x"), 125, "unexpected key 'nope'"),
        (("run",), 1, "Missing argument"),
        (("ps", "--filter", "x"), 125, "invalid filter 'x'"),
        (("nosuch",), 1, "No such command 'nosuch'"),
        (("ps", "--format", "{{range .}}"), 125, "--format json"),
    ],
)
def test_wrong_use_is_explained(engine, wharfie, arguments, code, message):
    engine.on("GET", "/containers/json", [container()])
    got, out, err = wharfie(*arguments)
    assert (got, out) == (code, "")
    assert message in err
    assert not engine.made("POST", "/containers/create")


def test_every_command_explains_itself_with_an_example(wharfie):
    import click

    from wharfie.cli.app import COMMANDS, app

    def walk(name, command, path):
        if isinstance(command, click.Group):
            for child in command.list_commands(click.Context(command)):
                walk(child, command.get_command(click.Context(command), child), f"{path} {child}")
        else:
            text = command.help or ""
            assert "Example" in text, path
            assert f"wharfie {path.split(' ', 1)[1]}" in text, path

    walk("wharfie", app, "wharfie")
    listed = wharfie("--help")[1]
    assert all(f"  {name} " in listed for name in COMMANDS)
