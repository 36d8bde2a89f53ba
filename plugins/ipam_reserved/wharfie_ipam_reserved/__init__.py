"""IPAM driver `reserved`: addresses from a file."""
