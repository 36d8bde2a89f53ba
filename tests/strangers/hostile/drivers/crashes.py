"""Drivers that no thread survives; the volume's name chooses how. They may only run in a process of their own."""

import ctypes
import os
import signal
import sys
import time

from hostile_drivers.good import Good

from wharfie.spi.call import current_call, progress
from wharfie.spi.driver import DriverEvent, Usage
from wharfie.spi.volume import Volume, VolumeCapability


def segfault():
    ctypes.string_at(0)


def hold_the_interpreter():
    # usleep(3) by a function that keeps the interpreter's lock: no other thread of this process runs.
    ctypes.PyDLL(None).usleep(60_000_000)


WAYS = {
    "exit": lambda: os._exit(3),
    "segfault": segfault,
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "hang": lambda: time.sleep(60),
    "hold": hold_the_interpreter,
    "closes": lambda: os.closerange(0, 64),
    "sysexit": lambda: sys.exit(4),
}


class Crashes(Good):
    name = "crashes"

    def capabilities(self):
        return frozenset({VolumeCapability.USAGE})

    def create(self, name, options, labels):
        if name in WAYS:
            print("last words of", name, flush=True)
            WAYS[name]()
        self.context.emit(DriverEvent())
        return super().create(name, options, labels)

    def get(self, name):
        """Slow ones tell whether anybody still waits."""
        if name == "slow":
            time.sleep(0.3)
        if name == "moving":
            for _ in range(200):
                time.sleep(0.01)
                progress()
        if name == "cancelled":
            while not current_call().cancelled.is_set():
                time.sleep(0.01)
            (self.context.state / "cancelled").touch()
        return Volume(
            name=name, mountpoint=None, created=current_call().id, status={"path": os.environ.get("PYTHONPATH", "")}
        )

    def usage(self, name):
        return Usage(size=len(self.kept), inodes=os.getpid())

    def reconcile(self, mounts):
        for name in mounts:
            self.kept[name] = name
        return ()


class CrashOpen(Good):
    name = "crash-open"

    def open(self):
        print("I cannot open", flush=True)
        os._exit(5)
