"""Drivers whose methods do not do what the contract says; the volume's name chooses how."""

import sys

from hostile_drivers.gate import hang
from hostile_drivers.good import Good

from wharfie.spi.call import current_call, progress
from wharfie.spi.errors import Conflict, DriverError, InvalidArgument, NotFound, OutOfSpace, Unavailable


class Hangs(Good):
    name = "hangs"

    def get(self, name):
        hang()
        return super().get(name)

    def remove(self, name):
        hang()


class Speechless(Exception):
    def __str__(self):
        raise RuntimeError("not even a message")


class OwnNotFound(NotFound):
    def __init__(self):
        pass


class Unspeakable(NotFound):
    def __init__(self):
        pass

    @property
    def message(self):
        raise SystemExit(4)


async def coroutine():
    return None


def generator():
    yield from ()


RAISED = {
    "value": ValueError("bad luck"),
    "stop": StopIteration(),
    "interrupt": KeyboardInterrupt(),
    "exit": SystemExit(3),
    "generatorexit": GeneratorExit(),
    "speechless": Speechless(),
    "disk": OSError(28, "No space left on device", "/var/acme"),
    "permission": PermissionError(1, "Operation not permitted", "/var/acme"),
    "io": OSError(5, "Input/output error"),
    "notimplemented": NotImplementedError(),
    "invalid": InvalidArgument("option size is 'x'; it must be a number"),
    "conflict": Conflict("volume is in use"),
    "ownnotfound": OwnNotFound(),
    "unspeakable": Unspeakable(),
    "full": OutOfSpace("the pool acme-1 is full"),
    "unavailable": Unavailable("server 10.0.0.5 is down", retry_after=3),
    "drivererror": DriverError("the server answered 500"),
}
RETURNED = {"string": lambda: "/a/b", "none": lambda: None, "coroutine": coroutine, "generator": generator}


class Raises(Good):
    name = "raises"

    def mount(self, name, mount_id):
        if name in RAISED:
            raise RAISED[name]
        if name in RETURNED:
            return RETURNED[name]()
        if name == "realexit":
            sys.exit(3)
        return super().mount(name, mount_id)

    def unmount(self, name, mount_id):
        """Says in `kept` what it saw of the call."""
        call = current_call()
        progress()
        self.kept[name] = call.id
