"""A hook plugin that behaves."""

from hostile_drivers.good import Good

from wharfie.spi.driver import Problem
from wharfie.spi.hooks import Adjustment, Denial, hookimpl

SEEN = []


@hookimpl
def on_event(event):
    if event.action == "explode":
        raise SystemExit(1)
    SEEN.append(event.action)


@hookimpl
def adjust_container(container):
    return Adjustment(env={"FROM_GOOD": container.name}, annotations={"org.example.good": "1"})


@hookimpl
def admit_image(reference):
    return Denial(reason="it is evil") if "evil" in reference else None


class Dynamic(Good):
    name = "dynamic"


HERE = {}
"""Drivers that only this process knows."""


@hookimpl
def find_driver(kind, name):
    return {"dynamic": Dynamic, **HERE}.get(name) if kind == "volume" else None


@hookimpl
def known_drivers(kind):
    return ["dynamic"] if kind == "volume" else []


@hookimpl
def doctor_checks():
    return [Problem(what="the disk is nearly full", fix="buy another")]
