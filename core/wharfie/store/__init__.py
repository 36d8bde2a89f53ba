"""What the daemon keeps: records in SQLite (`metadata`), blobs by their digest (`content`)."""
