"""Log driver `syslog`: container output to a syslog server."""
