"""Storage driver `vfs`: a full copy of the files for each layer and snapshot."""
