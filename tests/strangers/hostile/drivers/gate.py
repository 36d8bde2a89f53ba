"""What hangs, hangs here, until the test opens it."""

import threading

GATE = threading.Event()


def hang():
    GATE.wait(60)
