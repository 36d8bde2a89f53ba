"""Volume driver `loop`: volumes with a hard size limit."""
