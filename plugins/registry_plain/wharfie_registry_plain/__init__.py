"""A registry client that only reads, on the standard library's HTTP."""
