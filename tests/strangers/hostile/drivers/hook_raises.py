"""A hook plugin whose hooks fail in every way."""

from wharfie.spi.hooks import Adjustment, hookimpl


@hookimpl
def on_event(event):
    raise SystemExit(1)


@hookimpl
def adjust_container(container):
    if container.name == "lies":
        return Adjustment(env=None)
    raise StopIteration


@hookimpl
def admit_image(reference):
    return "yes"
