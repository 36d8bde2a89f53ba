"""Hangs while it is imported."""

from hostile_drivers.gate import hang

hang()
