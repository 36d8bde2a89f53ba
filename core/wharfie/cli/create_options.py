"""The flags of `run` and `create`: names, types and help as in the docker command line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from wharfie.cli import units

Command = Callable[..., Any]

_FLAGS: tuple[tuple[tuple[str, ...], str], ...] = (
    (("-i", "--interactive"), "Keep stdin open."),
    (("-t", "--tty"), "Give the container a terminal."),
    (("--rm",), "Remove the container and its anonymous volumes when it ends."),
    (("--init",), "Run a small init that passes signals on and reaps processes."),
    (("--privileged",), "Give the container all rights over the host."),
    (("--read-only",), "Mount the root file system read-only."),
    (("-P", "--publish-all"), "Publish all exposed ports on random host ports."),
    (("--no-healthcheck",), "Switch the image's health check off."),
    (("--oom-kill-disable",), "Do not kill for lack of memory."),
)
_TEXTS: tuple[tuple[tuple[str, ...], str], ...] = (
    (("--name",), "The container's name."),
    (("-h", "--hostname"), "Its host name."),
    (("--domainname",), "Its NIS domain name."),
    (("-u", "--user"), "Who it runs as: NAME or UID, with :GROUP."),
    (("-w", "--workdir"), "Working directory."),
    (("--entrypoint",), "In place of the image's entry point."),
    (("--restart",), "no, always, unless-stopped, or on-failure[:TIMES]."),
    (("--stop-signal",), "Signal that stops it."),
    (("--platform",), "OS/ARCH of the image."),
    (("--runtime",), "Runtime driver."),
    (("--log-driver",), "Log driver."),
    (("--volume-driver",), "Volume driver for volumes that are made."),
    (("--cgroup-parent",), "Parent control group."),
    (("--cgroupns",), "Control group namespace: host or private."),
    (("--ipc",), "IPC namespace: private, shareable, host, none, container:NAME."),
    (("--pid",), "Process namespace: host, container:NAME."),
    (("--uts",), "Host name namespace: host."),
    (("--userns",), "User namespace: host."),
    (("--cpuset-cpus",), "Which CPUs (0-3, 0,1)."),
    (("--cpuset-mems",), "Which memory nodes."),
    (("--ip",), "IPv4 address on the network."),
    (("--ip6",), "IPv6 address on the network."),
    (("--mac-address",), "MAC address on the network."),
    (("--health-cmd",), "Health check, a shell line."),
    (("--cidfile",), "Write the id into this file."),
)
_LISTS: tuple[tuple[tuple[str, ...], str], ...] = (
    (("-e", "--env"), "Set a variable: NAME=VALUE, or NAME to take it over."),
    (("--env-file",), "Set the variables in a file."),
    (("-v", "--volume"), "Mount [VOLUME or /HOST/PATH:]/PATH[:ro]."),
    (("--mount",), "Mount type=bind|volume|tmpfs,src=…,dst=…[,ro]."),
    (("--tmpfs",), "Mount a tmpfs at PATH[:OPTIONS]."),
    (("--volumes-from",), "Mount another container's volumes."),
    (("-p", "--publish"), "Publish [[ADDRESS:]HOST_PORT:]PORT[/udp]; ranges too."),
    (("--expose",), "Expose a port without publishing it."),
    (("--network", "--net"), "Network: NAME, host, none, container:NAME."),
    (("--network-alias", "--net-alias"), "A further name on the network."),
    (("--add-host",), "A line for /etc/hosts: NAME:ADDRESS."),
    (("--dns",), "DNS server."),
    (("--dns-search",), "DNS search domain."),
    (("--dns-option", "--dns-opt"), "DNS option."),
    (("--link",), "Link to another container (default bridge)."),
    (("-l", "--label"), "Label: NAME=VALUE."),
    (("--label-file",), "Set the labels in a file."),
    (("--annotation",), "OCI annotation: NAME=VALUE."),
    (("--cap-add",), "Add a capability."),
    (("--cap-drop",), "Drop a capability; ALL drops all."),
    (("--security-opt",), "Security option (no-new-privileges, seccomp=FILE)."),
    (("--device",), "Add a device: /HOST[:/CONTAINER[:rwm]]."),
    (("--device-cgroup-rule",), "Allow devices: 'c 1:3 rwm'."),
    (("--group-add",), "Add a group."),
    (("--log-opt",), "Option of the log driver: NAME=VALUE."),
    (("--storage-opt",), "Option of the storage driver."),
    (("--sysctl",), "Kernel setting: NAME=VALUE."),
    (("--ulimit",), "Limit: NAME=SOFT[:HARD]."),
    (("-a", "--attach"), "Attach stdin, stdout or stderr only."),
)
_NUMBERS: tuple[tuple[tuple[str, ...], Callable[[str], Any], str], ...] = (
    (("-m", "--memory"), units.size, "Memory limit (64m, 1g)."),
    (("--memory-reservation",), units.size, "Soft memory limit."),
    (("--memory-swap",), units.size, "Limit of memory and swap together; -1: unlimited."),
    (("--memory-swappiness",), int, "0 to 100."),
    (("--shm-size",), units.size, "Size of /dev/shm."),
    (("--cpus",), float, "Number of CPUs (0.5)."),
    (("-c", "--cpu-shares"), int, "Relative weight."),
    (("--cpu-period",), int, "Scheduler period in microseconds."),
    (("--cpu-quota",), int, "Scheduler quota in microseconds."),
    (("--blkio-weight",), int, "Block I/O weight, 10 to 1000."),
    (("--pids-limit",), int, "Limit of processes; -1: none."),
    (("--oom-score-adj",), int, "-1000 to 1000."),
    (("--stop-timeout",), int, "Seconds before a stop kills."),
    (("--health-interval",), units.nanoseconds, "Time between health checks."),
    (("--health-timeout",), units.nanoseconds, "Time a health check may take."),
    (("--health-start-period",), units.nanoseconds, "Time to start in before failures count."),
    (("--health-start-interval",), units.nanoseconds, "Time between checks while starting."),
    (("--health-retries",), int, "Failures until unhealthy."),
)


def create_options(command: Command) -> Command:
    """All flags that describe a container."""
    options = [
        *(click.option(*names, is_flag=True, help=text) for names, text in _FLAGS),
        *(click.option(*names, default="", help=text) for names, text in _TEXTS),
        *(click.option(*names, multiple=True, help=text) for names, text in _LISTS),
        *(click.option(*names, type=kind, help=text) for names, kind, text in _NUMBERS),
        click.option(
            "--pull",
            type=click.Choice(("always", "missing", "never")),
            default="missing",
            help="When to pull the image.",
        ),
        click.option("-q", "--quiet", is_flag=True, help="Do not show the progress of a pull."),
    ]
    for option in reversed(options):
        command = option(command)
    return command
