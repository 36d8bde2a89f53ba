"""Every key of daemon.json that Docker's daemon knows, and ours: its type, its flag, and what becomes of it here."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Kind(enum.Enum):
    """How a value looks in daemon.json, and on the command line."""

    TEXT = enum.auto()
    NUMBER = enum.auto()
    SWITCH = enum.auto()  # --x, --x=false
    TEXTS = enum.auto()  # repeatable
    PAIRS = enum.auto()  # an object of strings; repeatable NAME=VALUE
    OBJECT = enum.auto()  # no flag, or one with a form of its own (see `flags`)


class Fate(enum.Enum):
    """What this daemon does with a key."""

    SUPPORTED = enum.auto()
    ACCEPTED = enum.auto()  # has no effect, which is said in the log
    REFUSED = enum.auto()  # the daemon does not start


@dataclass(frozen=True, slots=True)
class Key:
    """`flag`: the long option where it is not the key itself; "-" for none. `why`: of a fate that is not support."""

    name: str
    kind: Kind
    help: str = ""
    flag: str = ""
    short: str = ""
    fate: Fate = Fate.SUPPORTED
    why: str = ""

    @property
    def option(self) -> str:
        """The long option, "" for a key without one."""
        return "" if self.flag == "-" else f"--{self.flag or self.name}"


def _accepted(name: str, kind: Kind, why: str, *, flag: str = "") -> Key:
    return Key(name, kind, flag=flag, fate=Fate.ACCEPTED, why=why)


def _refused(name: str, kind: Kind, why: str, *, flag: str = "") -> Key:
    return Key(name, kind, flag=flag, fate=Fate.REFUSED, why=why)


_NO_CONTAINERD = "this engine has no containerd beneath it"
_NO_SWARM = "this engine has no swarm mode"
_NO_BUILDER = "this engine has no builder yet"

KEYS: tuple[Key, ...] = (
    # Where things are, and how the daemon is reached
    Key("data-root", Kind.TEXT, "Folder of what must last", short="-g"),
    Key("exec-root", Kind.TEXT, "Folder of what a reboot ends"),
    Key("hosts", Kind.TEXTS, "Listen on unix://PATH or tcp://ADDRESS:PORT", flag="host", short="-H"),
    Key("pidfile", Kind.TEXT, "File of the daemon's process id (default: wharfied.pid in exec-root)", short="-p"),
    Key("group", Kind.TEXT, "Group of the unix socket", short="-G"),
    Key("tls", Kind.SWITCH, "Use TLS on TCP; implied by --tlsverify"),
    Key("tlsverify", Kind.SWITCH, "Use TLS and demand client certificates"),
    Key("tlscacert", Kind.TEXT, "Trust client certificates signed only by this CA"),
    Key("tlscert", Kind.TEXT, "TLS certificate file"),
    Key("tlskey", Kind.TEXT, "TLS key file"),
    Key("authorization-plugins", Kind.TEXTS, "Authorization drivers, asked in order", flag="authorization-plugin"),
    # The daemon itself
    Key("debug", Kind.SWITCH, "Debug mode", short="-D"),
    Key("log-level", Kind.TEXT, "debug, info, warn, error or fatal", short="-l"),
    Key("log-format", Kind.TEXT, "Of the daemon's own log: text or json"),
    Key("experimental", Kind.SWITCH, "Experimental features"),
    Key("labels", Kind.TEXTS, "KEY=VALUE shown by info", flag="label"),
    Key("metrics-addr", Kind.TEXT, "Serve Prometheus' metrics at ADDRESS:PORT"),
    Key("live-restore", Kind.SWITCH, "Containers go on when the daemon ends"),
    Key("shutdown-timeout", Kind.NUMBER, "Seconds that containers get to stop in at the daemon's end"),
    Key("default-stop-timeout", Kind.NUMBER, "Seconds that a container gets to stop in"),
    Key("proxies", Kind.OBJECT, flag="-"),
    Key("http-proxy", Kind.TEXT, "Proxy for HTTP requests of the daemon"),
    Key("https-proxy", Kind.TEXT, "Proxy for HTTPS requests of the daemon"),
    Key("no-proxy", Kind.TEXT, "Hosts that are reached directly"),
    # Drivers
    Key("storage-driver", Kind.TEXT, "Storage driver", short="-s"),
    Key("storage-opts", Kind.TEXTS, "Storage driver options: DRIVER.OPTION=VALUE", flag="storage-opt"),
    Key("log-driver", Kind.TEXT, "Default log driver of containers"),
    Key("log-opts", Kind.PAIRS, "Default log options of containers", flag="log-opt"),
    Key("default-runtime", Kind.TEXT, "Runtime of containers that name none"),
    Key("runtimes", Kind.OBJECT, "NAME=PATH of a further OCI runtime's program", flag="add-runtime"),
    Key("default-network-driver", Kind.TEXT, "Driver of networks that name none"),
    Key("default-volume-driver", Kind.TEXT, "Driver of volumes that name none"),
    Key("registry-driver", Kind.TEXT, "Driver of registries that `registries` does not name"),
    Key("registries", Kind.PAIRS, "Registry driver by HOST[:PORT]", flag="-"),
    Key("drivers", Kind.OBJECT, flag="-"),
    Key("plugins", Kind.OBJECT, flag="-"),
    Key("disabled-plugins", Kind.TEXTS, flag="-"),
    Key("required-plugins", Kind.TEXTS, flag="-"),
    # The default network
    Key(
        "bridge",
        Kind.TEXT,
        'Bridge of the default network, made when it is missing; "none": no default network',
        short="-b",
    ),
    Key("bip", Kind.TEXT, "Address and prefix of the default bridge"),
    Key("bip6", Kind.TEXT, "IPv6 address and prefix of the default bridge"),
    Key("fixed-cidr", Kind.TEXT, "Range of addresses in the default bridge's subnet; without bip the subnet itself"),
    Key("fixed-cidr-v6", Kind.TEXT, "The same for IPv6"),
    Key("default-gateway", Kind.TEXT, "Router of the default bridge's containers, in its subnet; without it the bridge"),
    Key("default-gateway-v6", Kind.TEXT, "The same for IPv6"),
    Key("ipv6", Kind.SWITCH, "IPv6 on the default bridge"),
    Key("icc", Kind.SWITCH, "Containers on the default bridge may talk to each other"),
    Key("ip-masq", Kind.SWITCH, "Masquerade what leaves the default bridge"),
    Key("ip", Kind.TEXT, "Host address of published ports"),
    Key("mtu", Kind.NUMBER, "MTU of the default bridge"),
    Key("default-address-pools", Kind.OBJECT, "base=CIDR,size=N for networks", flag="default-address-pool"),
    Key("default-network-opts", Kind.OBJECT, "DRIVER=OPTION=VALUE of new networks", flag="default-network-opt"),
    Key("host-gateway-ips", Kind.TEXTS, "What host-gateway means in --add-host", flag="host-gateway-ip"),
    Key("host-gateway-ip", Kind.TEXT, flag="-"),
    Key("dns", Kind.TEXTS, "DNS servers of containers"),
    Key("dns-opts", Kind.TEXTS, "DNS options of containers", flag="dns-opt"),
    Key("dns-search", Kind.TEXTS, "DNS search domains of containers"),
    Key("userland-proxy", Kind.SWITCH, "Relay published ports where the kernel's translation does not reach, as at [::1]"),
    Key("iptables", Kind.SWITCH, "Make firewall rules"),
    Key("ip6tables", Kind.SWITCH, "Make firewall rules for IPv6"),
    Key("ip-forward", Kind.SWITCH, "Turn IP forwarding on"),
    Key("allow-direct-routing", Kind.SWITCH, "Other hosts reach published ports by containers' own addresses too"),
    Key("bridge-accept-fwmark", Kind.TEXT, "Packets with this mark, VALUE or VALUE/MASK, reach all ports of containers"),
    Key("ip-forward-no-drop", Kind.SWITCH, "Do not drop what is forwarded between foreign networks"),
    # Containers
    Key("cgroup-parent", Kind.TEXT, "Parent cgroup of all containers"),
    Key("default-shm-size", Kind.TEXT, "Size of /dev/shm"),
    Key("default-ulimits", Kind.OBJECT, "NAME=SOFT[:HARD] of containers that set none", flag="default-ulimit"),
    Key("default-cgroupns-mode", Kind.TEXT, "host or private"),
    Key("default-ipc-mode", Kind.TEXT, "shareable or private"),
    Key("init", Kind.SWITCH, "Run an init in containers"),
    Key("init-path", Kind.TEXT, "Program for it, where the runtime brings none of its own"),
    Key("no-new-privileges", Kind.SWITCH, "Set no_new_privs in containers"),
    Key("userns-remap", Kind.TEXT, "Whose subordinate ids containers have: default or USER[:GROUP]"),
    Key("seccomp-profile", Kind.TEXT, "builtin, unconfined or a path"),
    # Images
    Key("max-concurrent-downloads", Kind.NUMBER, "Layers fetched at once"),
    Key("max-concurrent-uploads", Kind.NUMBER, "Layers pushed at once"),
    Key("max-download-attempts", Kind.NUMBER, "Attempts for each layer"),
    Key("insecure-registries", Kind.TEXTS, "Registries without TLS or with any certificate", flag="insecure-registry"),
    Key("registry-mirrors", Kind.TEXTS, "Mirrors of docker.io", flag="registry-mirror"),
    Key("mirror", Kind.OBJECT, flag="-"),
    Key("cdi-spec-dirs", Kind.TEXTS, "Folders that describe devices (CDI)", flag="cdi-spec-dir"),
    # Of no effect here
    _accepted("allow-nondistributable-artifacts", Kind.TEXTS, "Docker ignores it too"),
    _accepted("deprecated-key-path", Kind.TEXT, "Docker ignores it too", flag="-"),
    _accepted("builder", Kind.OBJECT, _NO_BUILDER, flag="-"),
    _accepted("containerd", Kind.TEXT, _NO_CONTAINERD),
    _accepted("containerd-namespace", Kind.TEXT, _NO_CONTAINERD),
    _accepted("containerd-plugins-namespace", Kind.TEXT, _NO_CONTAINERD),
    _accepted("cri-containerd", Kind.SWITCH, _NO_CONTAINERD),
    _accepted("exec-opts", Kind.TEXTS, "the runtime driver manages cgroups by their file system", flag="exec-opt"),
    _accepted("features", Kind.OBJECT, "none of Docker's feature switches exists here", flag="-"),
    _accepted("firewall-backend", Kind.TEXT, "the bridge driver writes nftables rules"),
    _accepted("min-api-version", Kind.TEXT, "versions from 1.24 on are served", flag="-"),
    _accepted("network-control-plane-mtu", Kind.NUMBER, _NO_SWARM),
    _accepted("network-diagnostic-port", Kind.NUMBER, _NO_SWARM),
    _accepted("node-generic-resources", Kind.TEXTS, _NO_SWARM, flag="node-generic-resource"),
    _accepted("nri-opts", Kind.OBJECT, "plugins take part by hooks instead", flag="-"),
    _accepted("raw-logs", Kind.SWITCH, "the daemon's log has full times and no colours always"),
    _accepted("swarm-default-advertise-addr", Kind.TEXT, _NO_SWARM),
    _accepted("userland-proxy-path", Kind.TEXT, "the proxy is a part of this engine"),
    # Promises that this daemon could not keep
    _refused("api-cors-header", Kind.TEXT, "web pages must not reach the API"),
    _refused("cpu-rt-period", Kind.NUMBER, "real-time scheduling of cgroup v1 is not supported"),
    _refused("cpu-rt-runtime", Kind.NUMBER, "real-time scheduling of cgroup v1 is not supported"),
    _refused("rootless", Kind.SWITCH, "this daemon runs as root only"),
    _refused("selinux-enabled", Kind.SWITCH, "SELinux labels are not supported"),
)

BY_NAME: dict[str, Key] = {key.name: key for key in KEYS}
