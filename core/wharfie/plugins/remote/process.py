"""The daemon's side of one driver process: its start, calls into it, what it says unasked, and its end.

A thread for each process reads the socket and the process's output. Callers are the supervisor's workers; each waits for
its own reply, so as many calls are in flight as there are workers.
"""

from __future__ import annotations

import itertools
import logging
import os
import queue
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from wharfie.plugins.inventory import Entry
from wharfie.plugins.remote import border
from wharfie.plugins.remote.border import Ready, Start, decode_error, decode_event, not_what_it_says, signatures
from wharfie.plugins.remote.codec import Cargo, Mismatch
from wharfie.plugins.remote.frames import Broken, Channel, Message, pack
from wharfie.plugins.remote.reader import RemoteReader
from wharfie.plugins.states import Refusal, State
from wharfie.spi.call import Call, current_call
from wharfie.spi.driver import Context, Driver
from wharfie.spi.errors import Cancelled, Unavailable

_LOG = logging.getLogger(__name__)
_LAST_WORDS = 5
"""Lines of its output that a dead process is quoted with."""
_PATIENCE = 2.0
"""Seconds that a process gets to leave by itself when its connection has ended."""

OWN_PATH = "WHARFIE_PYTHONPATH"
"""The daemon's own PYTHONPATH, for the programs that the driver starts."""

_Reply = tuple[Message, list[int]]


class DriverProcess:
    """One process with one driver in it. `on_end` is called once, in the reading thread, when it has ended."""

    def __init__(
        self,
        entry: Entry,
        contract: type[Driver[Any]],
        context: Context,
        settings: Mapping[str, Any],
        workers: int,
        on_end: Callable[[DriverProcess], None],
    ) -> None:
        self._entry = entry
        self._contract = contract
        self._context = context
        self._settings = settings
        self._workers = workers
        self._on_end = on_end
        self._signatures = signatures(contract)
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._waiting: dict[int, queue.SimpleQueue[_Reply | None]] = {}
        self._moving: dict[int, Call] = {}
        self._readers: list[RemoteReader] = []
        self._started: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self._words: deque[str] = deque(maxlen=_LAST_WORDS)
        self._channel: Channel | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._wanted_end = False
        self._killed_for = ""
        self.ended = ""
        """How it ended; empty while it lives."""

    @property
    def pid(self) -> int:
        """0 before the start."""
        return self._process.pid if self._process is not None else 0

    def start(self) -> Ready:
        """Start the process and have the driver imported and made. Waits; the caller has the deadline, and `kill`.

        Errors: Refusal, the driver's own or because the process ended.
        """
        ours, theirs = socket.socketpair()
        channel = Channel(ours)
        with theirs, self._lock:
            if self._wanted_end:
                channel.close()
                raise Unavailable("the daemon is ending")
            self._process = subprocess.Popen(
                # -P: the daemon's working folder is no place to import from.
                [sys.executable, "-P", "-m", "wharfie.plugins.host", f"{self._entry.kind}.{self._entry.name}"],
                stdin=theirs.fileno(),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=_environment(),
                start_new_session=True,  # a signal to the daemon's terminal is for the daemon
            )
            self._channel = channel
        name = f"process of {self._entry.kind}.{self._entry.name}"
        threading.Thread(target=self._read, args=(channel, self._process), name=name, daemon=True).start()
        start = Start(
            kind=self._entry.kind,
            name=self._entry.name,
            state=self._context.state,
            run=self._context.run,
            instance=self._context.instance,
            host=self._context.host,
            settings=self._settings,
            workers=self._workers,
            level=self._context.log.getEffectiveLevel(),
            finder=self._entry.finder,
        )
        try:
            channel.send(pack({"start": border.START.encode(start, Cargo())}))
        except Broken:
            pass  # it ended at once; the reading thread says how
        answer = self._started.get()
        if answer is None:
            raise self._stillborn()
        if "refused" in answer:
            refused = border.REFUSED.decode(answer["refused"], Cargo())
            raise Refusal(State(refused.state), refused.cause, refused.remedy)
        ready: Ready = border.READY.decode(answer["ready"], Cargo())
        return ready

    def call(self, method: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Call the driver's method in its process and wait.

        Errors: what the method raised there, as `border.decode_error` gives it; Unavailable when the process ends first;
        Mismatch (an argument is not what the contract says).
        """
        signature = self._signatures[method]
        cargo = Cargo()
        reply, descriptors = self._ask(method, signature.encode(args, kwargs, cargo), cargo.descriptors)
        try:
            return signature.result.decode(reply, Cargo(descriptors, adopt=self._adopt))
        except Mismatch as error:
            raise not_what_it_says(method, error) from None
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def schema(self) -> Mapping[str, Any] | None:
        """JSON Schema of the driver's settings. Errors: as `call`."""
        found: Mapping[str, Any] | None = self._ask(border.SCHEMA, {}, ())[0]
        return found

    def kill(self, reason: str = "") -> None:
        """End it now, whatever it does. From any thread; may be repeated."""
        with self._lock:
            self._killed_for = self._killed_for or reason
            if self._process is not None and not self.ended:
                self._process.kill()

    def end(self) -> None:
        """End the connection: the process leaves by itself; if not, it is killed. Waits a moment. May be repeated."""
        with self._lock:
            self._wanted_end = True
            channel, process = self._channel, self._process
        if channel is None or process is None:
            return
        channel.shut()
        try:
            process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self.kill()

    # Calls

    def _ask(self, method: str, arguments: Mapping[str, Any], descriptors: Sequence[int]) -> tuple[Any, list[int]]:
        number = next(self._numbers)
        call = current_call()
        message: Message = {"call": number, "method": method, "arguments": arguments, "trace": call.id if call else ""}
        packed = pack(message | {"descriptors": len(descriptors)} if descriptors else message)
        waiting: queue.SimpleQueue[_Reply | None] = queue.SimpleQueue()
        with self._lock:
            channel = self._channel
            if self.ended or channel is None:
                raise self._gone(method)
            self._waiting[number] = waiting
            if call is not None:
                self._moving[number] = call
        try:
            if call is not None:
                call.on_cancel = lambda: self._cancel(number)
                if call.cancelled.is_set():
                    raise Cancelled("the caller of this operation is gone")
            channel.send(packed, descriptors)
            answer = waiting.get()
        except Broken:
            answer = None
        finally:
            if call is not None:
                call.on_cancel = None
            with self._lock:
                self._waiting.pop(number, None)
                self._moving.pop(number, None)
        if answer is None:
            raise self._gone(method)
        reply, received = answer
        if "error" in reply:
            raise decode_error(reply["error"])
        return reply.get("result"), received

    def _cancel(self, number: int) -> None:
        """In the event loop's thread: never waits, as the process reads its socket all the time unless it hangs whole."""
        channel = self._channel
        if channel is not None:
            threading.Thread(target=_quietly, args=(channel, {"cancel": number}), daemon=True).start()

    def _adopt(self, number: int, descriptor: int) -> RemoteReader:
        def read(limit: int) -> Any:
            return border.ENTRIES.decode(self._ask(border.READ, {"reader": number, "limit": limit}, ())[0], Cargo())

        def close() -> None:
            self._ask(border.CLOSE_READER, {"reader": number}, ())

        reader = RemoteReader(os.dup(descriptor), read, close)
        with self._lock:
            self._readers = [one for one in self._readers if not one.closed] + [reader]
            if self.ended:
                reader.source_ended()
        return reader

    def _gone(self, method: str) -> Unavailable:
        return Unavailable(f"its process {self.ended or 'has no connection'}, so {method} failed; it is started again")

    def _stillborn(self) -> Refusal:
        return Refusal(
            State.BROKEN,
            f"{self._entry.title}: its process {self.ended} while the driver was imported or made",
            f"Ask the authors of {self._entry.distribution}, or install another version of it",
        )

    # What it says

    def _read(self, channel: Channel, process: subprocess.Popen[bytes]) -> None:
        """The reading thread: from the first byte to the end."""
        assert process.stdout is not None
        output = process.stdout.fileno()
        os.set_blocking(output, False)
        poll = select.poll()
        poll.register(channel.fileno(), select.POLLIN)
        poll.register(output, select.POLLIN)
        # A child of the driver may hold its end of the socket: only this says for sure that the process has ended.
        end = os.pidfd_open(process.pid)
        poll.register(end, select.POLLIN)
        try:
            while (ready := {descriptor for descriptor, _ in poll.poll()}) != {end}:
                if output in ready and not self._hear(output):
                    poll.unregister(output)
                if channel.fileno() in ready:
                    for message, descriptors in channel.receive():
                        self._take(message, descriptors)
        except Broken:
            pass
        except Exception:  # noqa: BLE001  # whatever the other side sent, its end must be seen
            _LOG.exception("%s: its process sent what cannot be understood", self._entry.title)
        os.close(end)
        self._over(channel, process, output)

    def _take(self, message: Message, descriptors: list[int]) -> None:
        if "reply" in message:
            with self._lock:
                waiting = self._waiting.get(message["reply"])
            if waiting is not None:
                waiting.put((message, descriptors))
                return
        elif "progress" in message:
            with self._lock:
                call = self._moving.get(message["progress"])
            if call is not None:
                call.moved = time.monotonic()
        elif "event" in message:
            self._context.emit(decode_event(message))
        elif "log" in message:
            self._context.log.log(int(message["log"]), "%s", message["text"])
        elif "ready" in message or "refused" in message:
            self._started.put(message)
        for descriptor in descriptors:
            os.close(descriptor)

    def _hear(self, output: int) -> bool:
        """What the driver prints: kept as its last words, and logged. False at the end."""
        try:
            data = os.read(output, 64 * 1024)
        except BlockingIOError:
            return True
        for line in data.decode(errors="replace").splitlines():
            if line.strip():
                self._words.append(line.rstrip())
                self._context.log.info("%s", line.rstrip())
        return bool(data)

    def _over(self, channel: Channel, process: subprocess.Popen[bytes], output: int) -> None:
        """The connection has ended, and so has the process, or it does now."""
        try:
            process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._hear(output)
        with self._lock:
            self.ended = self._epitaph(process.returncode)
            waiting = list(self._waiting.values())
            for reader in self._readers:
                reader.source_ended()
            channel.close()
        assert process.stdout is not None
        process.stdout.close()
        for one in waiting:
            one.put(None)
        self._started.put(None)
        self._on_end(self)

    def _epitaph(self, status: int) -> str:
        if status < 0:
            how = f"was killed by {_signal_name(-status)}" + (f" ({self._killed_for})" if self._killed_for else "")
        else:
            how = f"ended with status {status}"
        words = " / ".join(self._words)[-400:]
        return f"(pid {self.pid}) {how}" + (f', its last words: "{words}"' if words and not self._killed_for else "")


def _environment() -> dict[str, str]:
    """It imports from where the daemon does. The variable is for it alone: `wharfie.plugins.host` takes it away again."""
    path = os.pathsep.join(folder for folder in sys.path if folder)
    return os.environ | {"PYTHONPATH": path, OWN_PATH: os.environ.get("PYTHONPATH", "")}


def _quietly(channel: Channel, message: Message) -> None:
    try:
        channel.send(pack(message))
    except Broken:
        return  # its end answers every call


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
