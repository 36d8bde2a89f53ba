"""Drivers that fail on their way from construction to `close`."""

import sys

from hostile_drivers.gate import hang
from hostile_drivers.good import Good

from wharfie.spi.driver import Problem


class Constructor(Good):
    name = "constructor"

    def __init__(self, context, settings):
        raise RuntimeError("no luck in the constructor")


class ConstructorExits(Good):
    name = "constructor-exits"

    def __init__(self, context, settings):
        sys.exit("leaving")


class Unfit(Good):
    name = "unfit"

    def check(self):
        return [
            Problem(what="acmefs is not in /proc/filesystems", fix="modprobe acmefs"),
            Problem(what="the kernel is old", fix="upgrade it", fatal=False),
        ]


class CheckFails(Good):
    name = "checkfails"

    def check(self):
        raise KeyError("check")


class CheckLies(Good):
    name = "checklies"

    def check(self):
        return ["no problem"]


class OpenFails(Good):
    name = "openfails"
    attempts = 0

    def open(self):
        type(self).attempts += 1
        if self.attempts == 1:
            raise OSError(28, "No space left on device", "/var/acme")


class OpenHangs(Good):
    name = "openhangs"

    def open(self):
        hang()


class CloseFails(Good):
    name = "closefails"

    def close(self):
        raise SystemExit(9)
