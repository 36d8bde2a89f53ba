"""Refused by its metadata; the process has a trace if it is imported all the same."""

import os

os.environ["HOSTILE_MUST_NOT_LOAD"] = "loaded"
