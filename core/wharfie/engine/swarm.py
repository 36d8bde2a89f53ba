"""What an engine that is in no swarm answers where one is needed."""

from __future__ import annotations

NOT_A_MANAGER = (
    'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm '
    "and try again."
)
