"""The Docker Engine HTTP API: turns HTTP into calls of the engine and its answers into Docker's JSON. No rule lives here.

A request goes down through `protocol` (connections, and their hand-over), `front` (versions, headers, errors, the log),
FastAPI's routes in one module for each resource, and the engine; its answer is written by `views` and `streams`.
"""
