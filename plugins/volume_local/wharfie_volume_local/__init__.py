"""Volume driver `local`: named folders on this host."""
