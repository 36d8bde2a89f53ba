"""What the engine keeps: records and requests, under the names that the Docker Engine API gives their fields."""
