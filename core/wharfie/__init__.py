"""Wharfie, a Docker-compatible container engine whose every capability is a plugin.

This file stays empty of imports: `wharfie.spi.log` is loaded by the shim's bare interpreter.
"""
