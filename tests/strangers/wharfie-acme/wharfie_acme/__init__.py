"""Drivers for Wharfie: `volume` and `network`."""
