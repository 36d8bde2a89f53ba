"""Drivers that take what belongs to the whole process."""

import os
import sys
import threading

from hostile_drivers.good import Good

from wharfie.spi.volume import VolumeDriver


class Exhausts(Good):
    """Takes every descriptor that there is, and keeps them."""

    name = "exhausts"

    def create(self, name, options, labels):
        self.taken = []
        while True:
            self.taken.append(os.open("/dev/null", os.O_RDONLY))


class ClosesStdin(Good):
    name = "closes-stdin"

    def create(self, name, options, labels):
        os.close(0)
        sys.stdin = None
        return super().create(name, options, labels)


class Leaks(Good):
    """Forgets a descriptor and a thread in each call."""

    name = "leaks"

    def create(self, name, options, labels):
        os.open("/dev/null", os.O_RDONLY)
        threading.Thread(target=threading.Event().wait, name=f"forgotten by {name}", daemon=True).start()
        return super().create(name, options, labels)


def refuse(self, *args, **kwargs):
    raise RuntimeError("never")


class RaisesEverywhere(Good):
    name = "raises-everywhere"


for method in dir(VolumeDriver):
    if (
        not method.startswith("_")
        and callable(getattr(VolumeDriver, method))
        and method not in ("check", "open", "capabilities")
    ):
        setattr(RaisesEverywhere, method, refuse)
