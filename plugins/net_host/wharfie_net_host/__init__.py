"""Network drivers `host` (the host's own network) and `null` (a sandbox with nothing but loopback)."""
