"""Docker's legacy plugins (JSON over HTTP on a socket), unmodified, as drivers."""
