"""Log driver `journald`: container output to the systemd journal."""
