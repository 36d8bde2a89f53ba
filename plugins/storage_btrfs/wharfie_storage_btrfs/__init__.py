"""Storage driver `btrfs`: a subvolume for each layer and snapshot, made as a snapshot of its parent's."""
