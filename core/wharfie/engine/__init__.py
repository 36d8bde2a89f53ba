"""The rules: what containers, images, networks and volumes are, and in which order drivers are asked. No HTTP, no SQL."""
