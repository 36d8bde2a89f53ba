"""Log drivers that keep output in files of the container's own folder: `json-file`, `local`, and `none`."""
