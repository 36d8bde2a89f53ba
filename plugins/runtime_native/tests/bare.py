"""What a shim is to the engine: a bare, single-threaded interpreter. Takes commands as JSON lines, answers likewise.

Started as `python -S -I bare.py FOLDER…`, the folders being where `wharfie` and the plugin are imported from.
"""

import json
import os
import select
import socket
import sys

sys.path[:0] = sys.argv[1:]

from pathlib import Path  # noqa: E402

from wharfie_runtime_native.engine import NativeEngine  # noqa: E402

from wharfie.shim.engine import Streams  # noqa: E402
from wharfie.spi.errors import WharfieError  # noqa: E402

engine = None
outputs = {}  # pid → descriptors to read from


def streams(terminal, given=""):
    if terminal:
        ours, theirs = socket.socketpair()
        return Streams(console=theirs.fileno(), size=(33, 99)), [ours, theirs]
    stdin_read, stdin_write = os.pipe()
    os.write(stdin_write, given.encode())
    os.close(stdin_write)
    pairs = [os.pipe(), os.pipe()]
    return Streams(stdin=stdin_read, stdout=pairs[0][1], stderr=pairs[1][1]), [pairs, stdin_read]


def keep(pid, terminal, ends):
    if terminal:
        ours, theirs = ends
        _, fds, _, _ = socket.recv_fds(ours, 100, 1)
        ours.close(), theirs.close()
        outputs[pid] = [fds[0]]
    else:
        pairs, stdin = ends
        os.close(stdin)
        for pair in pairs:
            os.close(pair[1])
        outputs[pid] = [pair[0] for pair in pairs]


def create(id, spec, rootfs, options, terminal=False, given=""):
    global engine
    new(id, spec, rootfs, options)
    made, ends = streams(terminal, given)
    pid = engine.create(Path(rootfs), made)
    keep(pid, terminal, ends)
    return pid


def execute(process, terminal=False, given=""):
    made, ends = streams(terminal, given)
    pid = engine.exec(process, made)
    keep(pid, terminal, ends)
    return pid


def wait(pid, timeout=20):
    """Exit code and what each stream had to say."""
    texts = dict.fromkeys(outputs[pid], b"")
    open_fds = set(texts)
    while open_fds:
        ready, _, _ = select.select(open_fds, [], [], timeout)
        if not ready:
            raise TimeoutError(f"no end of output: {texts}")
        for fd in ready:
            try:
                data = os.read(fd, 65536)
            except OSError:
                data = b""
            texts[fd] += data
            if not data:
                open_fds.discard(fd)
                os.close(fd)
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    return [code, *(text.decode("utf-8", "replace") for text in texts.values())]


def wait_readable(fd, timeout=10):
    return bool(select.select([fd], [], [], timeout)[0])


def new(id, spec, rootfs, options):
    """An engine that has not seen `create`, as in a shim that cleans up."""
    global engine
    engine = None
    fresh = NativeEngine(id, str(Path(rootfs).parent), spec, options)
    fresh.pids()  # refuses a group that there cannot be
    engine = fresh


def descriptors():
    return sorted(path.name for path in Path("/proc/self/fd").iterdir())


def namespace(name):
    return [str(Path(f"/proc/self/ns/{kind}").readlink()) for kind in (name, f"{name}_for_children")]


commands = {
    "create": create,
    "execute": execute,
    "wait": wait,
    "wait_readable": wait_readable,
    "new": new,
    "descriptors": descriptors,
    "namespace": namespace,
    "modules": lambda: sorted(sys.modules),
}

for line in sys.stdin:
    name, arguments = json.loads(line)
    try:
        if name == "delete" and engine is None:  # its making was refused
            answer = {"value": None}
        else:
            command = commands.get(name) or getattr(engine, name)
            answer = {"value": command(**arguments)}
    except WharfieError as error:
        answer = {"error": type(error).__name__, "message": error.message}
    except Exception as error:
        answer = {"error": "bare", "message": repr(error)}
    print(json.dumps(answer), flush=True)
