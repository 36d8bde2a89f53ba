"""Containers: made, started, watched, ended and removed. `containers.Containers` is the front."""
