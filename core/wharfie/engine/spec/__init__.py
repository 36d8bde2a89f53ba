"""From a container's record to the OCI configuration that a runtime executes (OCI runtime-spec, config.md)."""
