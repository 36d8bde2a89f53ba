"""Modules of the hostile distributions."""
