"""The process that relays connections to published ports where the kernel's translation does not reach, and the daemon's
half that talks to it. Standard library, `shim` (its loop) and `spi` only.

One process for a daemon, started with the first published port. It outlives the daemon and ends when it holds nothing.
"""
