"""`make demo`: the engine at work, as a shell session with a sentence before each command.

It starts a daemon of its own, with folders, bridge and subnet of its own, beside whatever runs on this host; makes an image
of busybox; runs a web server with a network, a published port and a volume; removes everything and shows that nothing is
left. It ends with status 1 when any step fails, and cleans up in every case, also after Ctrl-C.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import ipaddress
import json
import os
import random
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import NoReturn

import busybox_image
from leftovers import KINDS, Traces, cgroups, look, sweep
from rich.console import Console
from rich.markup import escape
from rich.table import Table

BIN = Path(sys.executable).parent
PAGE = "Hello from a container."
START_SECONDS = 30.0
END_SECONDS = 60.0

console = Console(highlight=False, soft_wrap=True)


class StepFailed(Exception):
    """What was shown is not what was promised."""


def say(sentence: str) -> None:
    console.print(f"\n[dim]# {escape(sentence)}[/]")


def show_command(line: str) -> None:
    console.print(f"[bold green]$[/] [bold]{escape(line)}[/]")


class Session:
    """One daemon in a scratch folder, and the commands that are given to it."""

    def __init__(self, root: Path, client: str) -> None:
        self.root = root
        self.client = client
        self.program = str(BIN / "wharfie") if client == "wharfie" else "docker"
        self.bridge = f"whdemo{os.getpid() % 100000}"
        self.cgroup = f"/{self.bridge}"
        self.subnet = _free_subnet()
        self.socket = root / "wharfie.sock"
        self.log = root / "daemon.log"
        self.daemon: subprocess.Popen[bytes] | None = None
        self.while_it_ran: dict[str, list[str]] = {}
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("DOCKER_")}
        self.environment |= {"DOCKER_HOST": f"unix://{self.socket}", "DOCKER_CONFIG": str(root / "client")}

    @property
    def traces(self) -> Traces:
        with contextlib.suppress(OSError):
            return Traces(self.root, self.cgroup, (self.root / "data" / "instance").read_text().strip())
        return Traces(self.root, self.cgroup, "")

    def start_daemon(self) -> None:
        flags = [
            *("--data-root", f"{self.root}/data", "--exec-root", f"{self.root}/run"),
            *("--host", f"unix://{self.socket}", "--config-file", f"{self.root}/daemon.json"),
            *("--bridge", self.bridge, "--bip", f"{self.subnet[1]}/24", "--cgroup-parent", self.cgroup),
            *("--default-address-pool", f"base={self.subnet},size=24"),
        ]
        (self.root / "daemon.json").touch()  # the host's own file is not ours to follow
        pairs = [f"{name} {value}" for name, value in zip(flags[::2], flags[1::2], strict=True)]
        show_command(" \\\n    ".join(["wharfied", *pairs]) + " &")
        with self.log.open("ab") as log:
            self.daemon = subprocess.Popen(
                [BIN / "wharfied", *flags],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the demonstration alone
            )
        began = time.monotonic()
        while not self._answers():
            if self.daemon.poll() is not None or time.monotonic() - began > START_SECONDS:
                raise StepFailed("the daemon did not start")
            time.sleep(0.02)
        console.print(f"[dim](answers after {time.monotonic() - began:.1f} s)[/]")

    def _answers(self) -> bool:
        connection = http.client.HTTPConnection("wharfie", timeout=5)
        connection.sock = socket.socket(socket.AF_UNIX)
        with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
            connection.sock.connect(str(self.socket))
            connection.request("GET", "/_ping")
            return connection.getresponse().status == 200
        return False

    def log_tail(self) -> str:
        return self.log.read_text(errors="replace")[-2000:] if self.log.exists() else ""

    def end_daemon(self, number: signal.Signals) -> None:
        if self.daemon is None or self.daemon.poll() is not None:
            return
        self.daemon.send_signal(number)
        try:
            self.daemon.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            raise StepFailed(f"the daemon did not end within {END_SECONDS:.0f} s of {number.name}") from None

    def run(self, why: str, *words: str, expect: str = "") -> str:
        """Say why, show the command, run it, show its output; `expect` must be in it."""
        if why:
            say(why)
        show_command(" ".join([self.client, *(shlex.quote(word) for word in words)]))
        result = subprocess.run(
            [self.program, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=self.environment,
            timeout=60,
            check=False,
            text=True,
        )
        if result.stdout:
            console.print(escape(result.stdout.rstrip("\n")))
        if result.returncode != 0:
            raise StepFailed(f"{self.client} {words[0]} ended with status {result.returncode}")
        if expect not in result.stdout:
            raise StepFailed(f"{expect!r} is not in the output")
        return result.stdout.strip()

    def fetch(self, why: str, port: int) -> None:
        """The page, by this process on the host, through the published port."""
        say(why)
        url = f"http://127.0.0.1:{port}/"
        show_command(f"python3 -c 'import urllib.request as r; print(r.urlopen(\"{url}\").read().decode())'")
        deadline = time.monotonic() + 5
        while True:
            try:
                # Without a proxy, which the environment may name.
                page = urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=5).read().decode()
                break
            except OSError as error:
                if time.monotonic() > deadline:
                    raise StepFailed(f"{url}: {error}") from error
                time.sleep(0.05)
        console.print(escape(page.strip()))
        if PAGE not in page:
            raise StepFailed(f"{url} is not the page that was written")


def demonstrate(session: Session) -> None:
    """All steps. Errors: StepFailed."""
    say("A daemon of our own: folders, socket, bridge and cgroup are its alone. State is in SQLite, blobs are files.")
    session.start_daemon()
    session.run("The client talks to it over HTTP, as to dockerd.", "version")
    _show_drivers(session)

    say("A base image of Debian's busybox-static: one layer, written as `docker save` would.")
    image = session.root / "busybox.tar"
    show_command(f'python3 -c \'import busybox_image as b; open("{image}", "wb").write(b.archive())\'')
    image.write_bytes(busybox_image.archive())
    session.run("", "load", "-i", str(image), expect=busybox_image.TAG)
    session.run("The driver overlay2 keeps its layer.", "images", expect="busybox")

    session.run("A network of our own: a bridge, a subnet, and names that are answered.", "network", "create", "shop")
    session.run(
        "A short-lived container writes a page into a named volume; volume and container are made on the way.",
        *("run", "--rm", "-v", "site:/www", "busybox", "sh", "-c", f'echo "{PAGE}" > /www/index.html'),
    )
    port = _free_port()
    session.run(
        "A web server that serves the volume, on the network, with a port published on the host.",
        *("run", "-d", "--name", "web", "--network", "shop", "-p", f"127.0.0.1:{port}:80", "-v", "site:/www:ro"),
        *("--init", "-m", "64m", "--pids-limit", "20", "busybox", "httpd", "-f", "-v", "-p", "80", "-h", "/www"),
    )
    session.run("It runs.", "ps", expect="web")
    session.fetch("The host fetches the page through the published port.", port)
    session.run(
        "A second container fetches it by the first one's name, which the name server at 127.0.0.11 knows.",
        *("run", "--rm", "--network", "shop", "busybox", "wget", "-q", "-O", "-", "http://web/"),
        expect=PAGE,
    )
    session.run("What the server wrote is in its log.", "logs", "web", expect="response:200")
    session.run(
        "Inspect knows everything, in Docker's words.",
        *("inspect", "-f", "{{.State.Status}} {{json .NetworkSettings.Ports}} {{json .Mounts}}", "web"),
        expect='"Name":"site"',
    )
    session.run("A further command in the same container sees its processes.", "exec", "web", "ps", expect="httpd")

    _survive(session, port)

    session.while_it_ran = look(session.traces)
    session.run("Now everything goes. SIGTERM first, SIGKILL only after ten seconds.", "stop", "web", expect="web")
    session.run("", "rm", "web")
    session.run("", "network", "rm", "shop")
    session.run("", "volume", "rm", "site")
    session.run("", "rmi", busybox_image.TAG)
    session.run("Nothing is listed any more.", "ps", "-a")
    say("And the daemon ends.")
    show_command("kill %wharfied")
    session.end_daemon(signal.SIGTERM)
    if session.daemon is not None and session.daemon.returncode != 0:
        raise StepFailed(f"the daemon ended with status {session.daemon.returncode}")
    say("The parent cgroup that we named is ours to remove; the daemon removes the one of its default.")
    show_command(f"rmdir /sys/fs/cgroup/*{session.cgroup}")
    for folder in cgroups(session.traces):
        Path(folder).rmdir()


def _show_drivers(session: Session) -> None:
    """`plugin ls` is a command of our own client; docker knows another kind of plugin by that name."""
    say("Every capability is a driver that one line in daemon.json replaces.")
    show_command("wharfie plugin ls")
    result = subprocess.run(
        [BIN / "wharfie", "plugin", "ls"], capture_output=True, env=session.environment, check=False, text=True
    )
    console.print(escape((result.stdout + result.stderr).rstrip("\n")))
    if result.returncode != 0:
        raise StepFailed(f"wharfie plugin ls ended with status {result.returncode}")


def _survive(session: Session, port: int) -> None:
    assert session.daemon is not None
    say("The daemon is killed. The container belongs to a small process of its own and goes on.")
    show_command(f"kill -KILL {session.daemon.pid}")
    session.end_daemon(signal.SIGKILL)
    session.fetch("Nobody is there but the container.", port)
    say("A new daemon on the same folders finds it running.")
    session.start_daemon()
    session.run("", "ps", expect="Up")
    session.run("Its log has no gap.", "logs", "--tail", "2", "web", expect="response:200")


def prove_nothing_is_left(session: Session) -> None:
    """Errors: StepFailed."""
    say("What is left on this host?")
    left = look(session.traces)
    table = Table(box=None, pad_edge=False)
    for heading in ("kind", "while it ran", "left over"):
        table.add_column(heading)
    for kind in KINDS:
        names = left[kind.name]
        style = "red" if names else "green"
        table.add_row(kind.name, str(len(session.while_it_ran[kind.name])), escape(", ".join(names)) or "none", style=style)
    console.print(table)
    if any(left.values()):
        raise StepFailed("something is left over")
    shutil.rmtree(session.root)
    console.print(f"The scratch folder {session.root}, with the daemon's own files, is removed.")


def clean_up(session: Session) -> None:
    """After a failure: the daemon ends its containers, and what it cannot take away is taken away here."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the next Ctrl-C must not leave things half removed
    try:
        session.end_daemon(signal.SIGTERM)
    except StepFailed:
        session.end_daemon(signal.SIGKILL)
    sweep(session.traces)
    left = {name: names for name, names in look(session.traces).items() if names}
    if left:
        console.print(f"[red]still there:[/] {escape(json.dumps(left))}")
    shutil.rmtree(session.root, ignore_errors=True)


def _free_subnet() -> ipaddress.IPv4Network:
    """A private subnet that no route of this host uses, for all networks of the session. Where the search begins is random:
    a bridge is made with its first container, so another session's choice may not be seen yet."""
    routes = json.loads(subprocess.run(["ip", "-json", "-4", "route"], capture_output=True, check=True).stdout)
    used = [ipaddress.IPv4Network(route["dst"]) for route in routes if route["dst"] != "default"]
    subnets = list(ipaddress.IPv4Network("10.128.0.0/9").subnets(new_prefix=22))
    random.shuffle(subnets)
    for subnet in subnets:
        if not any(subnet.overlaps(other) for other in used):
            return subnet
    raise StepFailed("no subnet of 10.128.0.0/9 is free on this host")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number: int = probe.getsockname()[1]
        return number


def _interrupted(number: int, _: object) -> NoReturn:
    raise KeyboardInterrupt


def main() -> int:
    parser = argparse.ArgumentParser(description="Shows the engine at work, and leaves nothing behind.")
    choice = "docker" if shutil.which("docker") else "wharfie"
    parser.add_argument("--client", choices=("docker", "wharfie"), default=choice, help="the command line that is used")
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        console.print("The demonstration makes namespaces, mounts and network devices: run it as root.")
        return 1
    began = time.monotonic()
    which = "the stock docker CLI" if arguments.client == "docker" else "our own command line, wharfie"
    console.print(f"[bold]Wharfie[/], shown with {which}.")
    signal.signal(signal.SIGTERM, _interrupted)
    session = Session(Path(tempfile.mkdtemp(prefix="wharfie-demo-")), arguments.client)
    try:
        demonstrate(session)
        prove_nothing_is_left(session)
    except (StepFailed, OSError, subprocess.SubprocessError) as error:
        console.print(f"\n[bold red]The demonstration failed:[/] {escape(str(error))}")
        console.print(f"[dim]The end of the daemon's log:[/]\n{escape(session.log_tail())}")
        clean_up(session)
        return 1
    except KeyboardInterrupt:
        console.print("\n[bold]Interrupted; cleaning up.[/]")
        clean_up(session)
        return 130
    console.print(f"\n[bold green]All steps did what they promised[/], in {time.monotonic() - began:.0f} s.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
