"""A small synchronous client of the Docker Engine API, over unix sockets and TCP.

    from wharfie.client import Client
    client = Client()                                  # DOCKER_HOST, or the default socket
    for container in client.get("/containers/json", {"all": True}):
        print(container["Id"], container["Names"])

It speaks HTTP/1.1 itself, in `http`: a hijacked stream needs the bare socket and the bytes that came with the head, and
the standard library's client takes 20 ms to import, a quarter of what a short command may take in all.
"""

from wharfie.client.client import Client, Hijacked
from wharfie.client.errors import ApiError, ClientError, Unreachable

__all__ = ["ApiError", "Client", "ClientError", "Hijacked", "Unreachable"]
