"""The kit's rules of runtime drivers, kept by runc and by crun."""

from __future__ import annotations

import shutil

import pytest

from wharfie.kit import RuntimeContract


@pytest.mark.skipif(shutil.which("runc") is None, reason="needs runc")
class TestRunc(RuntimeContract):
    driver = "runtime.runc"


@pytest.mark.skipif(shutil.which("crun") is None, reason="needs crun")
class TestCrun(RuntimeContract):
    driver = "runtime.crun"
