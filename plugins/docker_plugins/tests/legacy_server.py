"""A legacy plugin as its protocol's documentation describes it, in a process of its own: it knows nothing of this engine.

    python legacy_server.py ADDRESS STATE [--implements A,B] [--without Method] [--certificate FILE --key FILE]

ADDRESS is a socket's path or host:port. Every call is written to STATE/calls.jsonl as `[method, document]`.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import ipaddress
import json
import os
import shutil
import signal
import socketserver
import ssl
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path

MEDIA_TYPE = "application/vnd.docker.plugins.v1+json"


class Fault(Exception):
    """What the plugin answers as `Err`."""


class Volumes:
    """VolumeDriver: a folder for each volume; how often it is mounted, by id."""

    def __init__(self, state):
        self.root = state / "volumes"
        self.mounted = {}

    def create(self, asked):
        if asked.get("Opts", {}).get("fail"):
            raise Fault("told to fail")
        for option in set(asked.get("Opts") or {}) - {"a", "size"}:
            raise Fault(f"invalid option {option}")
        (self.root / asked["Name"]).mkdir(parents=True, exist_ok=True)

    def remove(self, asked):
        if self.mounted.get(asked["Name"]):
            raise Fault("volume is mounted")
        self._known(asked)
        shutil.rmtree(self.root / asked["Name"])

    def mount(self, asked):
        self._known(asked)
        self.mounted.setdefault(asked["Name"], set()).add(asked["ID"])
        return {"Mountpoint": str(self.root / asked["Name"])}

    def unmount(self, asked):
        self._known(asked)
        if asked["ID"] not in self.mounted.get(asked["Name"], ()):
            raise Fault(f"not mounted by {asked['ID']}")
        self.mounted[asked["Name"]].discard(asked["ID"])

    def path(self, asked):
        return {"Mountpoint": str(self.root / asked["Name"])}

    def get(self, asked):
        self._known(asked)
        return {"Volume": {**self._shown(asked["Name"]), "Status": {"uses": len(self.mounted.get(asked["Name"], ()))}}}

    def list(self, asked):
        names = sorted(path.name for path in self.root.iterdir()) if self.root.exists() else []
        return {"Volumes": [self._shown(name) for name in names]}

    def capabilities(self, asked):
        return {"Capabilities": {"Scope": "global"}}

    def _shown(self, name):
        return {"Name": name, "Mountpoint": str(self.root / name), "CreatedAt": "2026-01-02T03:04:05Z"}

    def _known(self, asked):
        if not (self.root / asked["Name"]).is_dir():
            raise Fault("no such volume")


class Networks:
    """NetworkDriver: a bridge for each network, a veth pair for each endpoint."""

    def __init__(self, state):
        self.networks = {}
        self.endpoints = {}

    def get_capabilities(self, asked):
        return {"Scope": "local", "ConnectivityScope": "local", "GwAllocChecker": True}

    def gw_alloc_check(self, asked):
        skip = asked["Options"]["com.docker.network.generic"].get("nogateway") == "yes"
        return {"SkipIPv4": skip, "SkipIPv6": skip}

    def create_network(self, asked):
        if asked["NetworkID"] in self.networks:
            raise Fault("network exists already")
        if asked["Options"]["com.docker.network.generic"].get("fail"):
            raise Fault("told to fail")
        bridge = "wl" + asked["NetworkID"][:10]
        ip("link", "add", bridge, "type", "bridge")
        for data in (*asked["IPv4Data"], *asked["IPv6Data"]):
            if data.get("Gateway"):
                ip("address", "add", data["Gateway"], "dev", bridge)
        ip("link", "set", bridge, "up")
        gateways = [data.get("Gateway", "").partition("/")[0] for data in asked["IPv4Data"]]
        options = asked["Options"]["com.docker.network.generic"]
        self.networks[asked["NetworkID"]] = (bridge, gateways[0] if gateways else "", options)

    def delete_network(self, asked):
        if asked["NetworkID"] not in self.networks:
            raise Fault("no such network")
        ip("link", "delete", self.networks.pop(asked["NetworkID"])[0])

    def create_endpoint(self, asked):
        if asked["EndpointID"] in self.endpoints:
            raise Fault("endpoint exists already")
        bridge = self.networks[asked["NetworkID"]][0]
        near, far = "vl" + asked["EndpointID"][:10], "vc" + asked["EndpointID"][:10]
        ip("link", "add", near, "type", "veth", "peer", "name", far)
        ip("link", "set", near, "master", bridge, "up")
        self.endpoints[asked["EndpointID"]] = {"near": near, "far": far, "joined": False, "program": None}
        return {"Interface": {} if asked["Interface"]["MacAddress"] else {"MacAddress": "02:11:22:33:44:55"}}

    def endpoint_oper_info(self, asked):
        return {"Value": {"near": self._endpoint(asked)["near"]}}

    def join(self, asked):
        endpoint = self._endpoint(asked)
        _, gateway, options = self.networks[asked["NetworkID"]]
        if options.get("failjoin"):
            raise Fault("told to fail")
        endpoint["joined"] = True
        names = {"SrcName": endpoint["far"], "DstPrefix": options.get("prefix", "eth")}
        answer = {"InterfaceName": names, "Gateway": gateway}
        answer["StaticRoutes"] = [
            {"Destination": "10.199.1.0/24", "RouteType": 1},
            {"Destination": "10.199.2.0/24", "RouteType": 0, "NextHop": gateway},
        ]
        return answer if gateway else {"InterfaceName": names}

    def leave(self, asked):
        self._endpoint(asked)["joined"] = False

    def delete_endpoint(self, asked):
        endpoint = self.endpoints.pop(asked["EndpointID"], None)
        if endpoint is None:
            raise Fault("no such endpoint")
        ip("link", "delete", endpoint["near"], check=False)

    def program_external_connectivity(self, asked):
        self._endpoint(asked)["program"] = asked["Options"]

    def revoke_external_connectivity(self, asked):
        self._endpoint(asked)["program"] = None

    def _endpoint(self, asked):
        try:
            return self.endpoints[asked["EndpointID"]]
        except KeyError:
            raise Fault("no such endpoint") from None


class Ipam:
    """IpamDriver: /24 subnets of 10.197.0.0/16. A pool that is asked for again is the same pool, as a replay wants it."""

    def __init__(self, state):
        self.pools = {}

    def get_default_address_spaces(self, asked):
        return {"LocalDefaultAddressSpace": "near", "GlobalDefaultAddressSpace": "far"}

    def get_capabilities(self, asked):
        return {"RequiresMACAddress": False, "RequiresRequestReplay": True}

    def request_pool(self, asked):
        taken = {pool["subnet"] for pool in self.pools.values()}
        subnets = ipaddress.ip_network("10.197.0.0/16").subnets(new_prefix=24)
        subnet = asked["Pool"] or str(next(one for one in subnets if str(one) not in taken))
        if asked["AddressSpace"] != "near":
            raise Fault(f"unknown address space {asked['AddressSpace']}")
        pool_id = f"pool-{subnet}-{asked['SubPool']}"
        self.pools.setdefault(pool_id, {"subnet": subnet, "range": asked["SubPool"] or subnet, "addresses": set()})
        return {"PoolID": pool_id, "Pool": subnet, "Data": {"owner": "legacy"}}

    def release_pool(self, asked):
        if self.pools.pop(asked["PoolID"], None) is None:
            raise Fault("no such pool")

    def request_address(self, asked):
        pool = self.pools[asked["PoolID"]]
        subnet = ipaddress.ip_network(pool["subnet"])
        gateway = asked["Options"].get("RequestAddressType") == "com.docker.network.gateway"
        given = subnet if gateway else ipaddress.ip_network(pool["range"])
        free = (str(host) for host in given if host not in (subnet[0], subnet[-1]) and str(host) not in pool["addresses"])
        address = asked["Address"] or next(free, "")
        if not address:
            raise Fault("no available addresses")
        if address in pool["addresses"]:
            raise Fault("Address already in use")
        if ipaddress.ip_address(address) not in subnet:
            raise Fault("requested address is out of range")
        pool["addresses"].add(address)
        return {"Address": f"{address}/{subnet.prefixlen}", "Data": {}}

    def release_address(self, asked):
        self.pools[asked["PoolID"]]["addresses"].discard(asked["Address"])


class Authz:
    """AuthZPlugin: no privileged containers, no word "secret" in answers."""

    def __init__(self, state):
        self.state = state

    def auth_z_req(self, asked):
        mode = (self.state / "mode").read_text() if (self.state / "mode").exists() else ""
        if mode == "sleep":
            time.sleep(30)
        if mode == "error":
            return {"Allow": True, "Err": "broken inside"}
        if mode == "strange":
            return {"Allow": "yes"}
        body = json.loads(base64.b64decode(asked.get("RequestBody", "")) or b"null")
        if isinstance(body, dict) and (body.get("HostConfig") or {}).get("Privileged"):
            return {"Allow": False, "Msg": f"no privileged containers for {asked['RequestUri']}"}
        return {"Allow": True}

    def auth_z_res(self, asked):
        hidden = b"secret" in base64.b64decode(asked.get("ResponseBody", ""))
        return {"Allow": not hidden, "Msg": "it says a secret" if hidden else ""}


class Logs:
    """LogDriver: reads FIFOs, keeps the entries of each container as they came, gives them back."""

    def __init__(self, state):
        self.root = state / "logs"
        self.readers = {}

    def capabilities(self, asked):
        return {"Cap": {"ReadLogs": True}}

    def start_logging(self, asked):
        self.root.mkdir(exist_ok=True)
        if asked["Info"]["Config"].get("fail"):
            raise Fault("told to fail")
        container = asked["Info"]["ContainerID"]
        (self.root / f"{container}.json").write_text(json.dumps(asked["Info"]))
        if asked["Info"]["Config"].get("deaf"):
            return
        fifo = os.open(asked["File"], os.O_RDONLY)
        stopping = threading.Event()
        thread = threading.Thread(target=self._copy, args=(fifo, self.root / container, stopping))
        thread.start()
        self.readers[asked["File"]] = (thread, stopping)

    def _copy(self, fifo, path, stopping):
        os.set_blocking(fifo, False)
        with path.open("ab", buffering=0) as out:
            while True:
                try:
                    piece = os.read(fifo, 65536)
                except BlockingIOError:
                    piece = None
                if piece:
                    out.write(piece)
                elif stopping.is_set() or piece == b"":
                    break
                else:
                    time.sleep(0.005)
        os.close(fifo)

    def stop_logging(self, asked):
        thread, stopping = self.readers.pop(asked["File"], (None, None))
        if thread is not None:
            stopping.set()
            thread.join()

    def read_logs(self, asked, write):
        """Streams: whole entries, the last `Tail` of them, and with Follow those that come until logging ends."""
        container, config = asked["Info"]["ContainerID"], asked["Config"]
        path = self.root / container
        data = path.read_bytes() if path.exists() else b""
        entries = frames(data)
        if config["Tail"] >= 0:
            entries = entries[len(entries) - config["Tail"] :]
        write(b"".join(entries))
        position = len(data)
        while config["Follow"]:
            followed = any(container in name for name in self.readers)
            more = path.read_bytes()[position:]
            position += len(more)
            write(more)
            if not followed and not more:
                return
            time.sleep(0.02)


def frames(data):
    found, at = [], 0
    while at < len(data):
        end = at + 4 + int.from_bytes(data[at : at + 4], "big")
        found.append(data[at:end])
        at = end
    return found


SUBSYSTEMS = {
    "VolumeDriver": Volumes,
    "NetworkDriver": Networks,
    "IpamDriver": Ipam,
    "LogDriver": Logs,
    "authz": Authz,
}
PREFIXES = {"authz": "AuthZPlugin"}


def ip(*words, check=True):
    subprocess.run(["ip", *words], check=check, capture_output=True)


def snake(method):
    return "".join("_" + letter.lower() if letter.isupper() else letter for letter in method).lstrip("_")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *words):
        pass

    def address_string(self):
        return "unix"

    def do_POST(self):
        plugin = self.server.plugin
        method = self.path.lstrip("/")
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        asked = json.loads(body) if body else None
        assert MEDIA_TYPE in self.headers["Accept"]
        with plugin.lock, plugin.calls.open("a") as calls:
            calls.write(json.dumps([method, asked]) + "\n")
        if method == "LogDriver.ReadLogs" and "LogDriver" in plugin.subsystems:
            self._stream(plugin.subsystems["LogDriver"], asked)
            return
        status, answer = plugin.answer(method, asked)
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", MEDIA_TYPE)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _stream(self, logs, asked):
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

        def write(data):
            if data:
                self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")

        with contextlib.suppress(ConnectionError):
            logs.read_logs(asked, write)
            self.wfile.write(b"0\r\n\r\n")


class Plugin:
    def __init__(self, options):
        self.state = Path(options.state)
        self.calls = self.state / "calls.jsonl"
        self.implements = options.implements.split(",")
        self.without = set(options.without)
        self.lock = threading.RLock()
        self.subsystems = {name: SUBSYSTEMS[name](self.state) for name in self.implements if name in SUBSYSTEMS}

    def answer(self, method, asked):
        if method == "Plugin.Activate":
            return 200, {"Implements": self.implements}
        prefix, _, name = method.partition(".")
        for subsystem, found in self.subsystems.items():
            if PREFIXES.get(subsystem, subsystem) == prefix and method not in self.without and name not in self.without:
                function = getattr(found, snake(name), None)
                if function is None or snake(name).startswith("_"):
                    break
                try:
                    if subsystem in ("LogDriver", "authz"):
                        return 200, function(asked) or {}
                    with self.lock:
                        return 200, function(asked) or {}
                except Fault as fault:
                    return 200, {"Err": str(fault)}
                except Exception as fault:
                    return 500, {"Err": f"{type(fault).__name__}: {fault}"}
        return 404, {}


class UnixServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    request_queue_size = 16


class TcpServer(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("state")
    parser.add_argument("--implements", default="VolumeDriver")
    parser.add_argument("--without", action="append", default=[])
    parser.add_argument("--certificate")
    parser.add_argument("--key")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    host, _, port = options.address.rpartition(":")
    if options.address.startswith("/"):
        Path(options.address).unlink(missing_ok=True)
        server = UnixServer(options.address, Handler)
    else:
        server = TcpServer((host, int(port)), Handler)
    if options.certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(options.certificate, options.key)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    server.plugin = Plugin(options)
    print("ready", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
