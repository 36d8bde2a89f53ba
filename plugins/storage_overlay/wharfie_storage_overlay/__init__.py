"""Storage driver `overlay2`: layers and snapshots as folders that overlayfs puts on top of each other."""
