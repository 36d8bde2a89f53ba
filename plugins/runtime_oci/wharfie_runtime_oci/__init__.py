"""Runtimes that are OCI binaries: the house's shim beside each container, and the binary's command line inside the shim.

`driver` and `settings` and `hooks` are the daemon's half; `engine` is the shim's, with `bundle` (config.json as the binary
takes it), `binary` (one run of it), `console` (its terminals), `words` (its errors), `sweep` (what a killed run leaves)
and `flavours` (how binaries differ).
This file stays empty of imports: the shim's half runs in a bare interpreter.
"""
