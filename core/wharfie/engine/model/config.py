"""`Config`: what runs in a container. Docker Engine API, definitions ContainerConfig and HealthConfig."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, SerializerFunctionWrapHandler, model_serializer

from wharfie.engine.model.base import Model, Sparse


def _one_or_many(value: Any) -> Any:
    """Cmd and Entrypoint may be one string (Docker's strslice)."""
    return [value] if isinstance(value, str) else value


Words = Annotated[list[str] | None, BeforeValidator(_one_or_many)]


class HealthConfig(Sparse):
    """Durations are nanoseconds; 0 inherits the image's value, then the default."""

    test: list[str] | None = None
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


_OMIT_EMPTY = {
    "ExposedPorts": None,
    "Healthcheck": None,
    "MacAddress": "",
    "ArgsEscaped": False,
    "NetworkDisabled": False,
    "StopSignal": "",
    "StopTimeout": None,
    "Shell": None,
}
"""Fields that Docker leaves out of its answers at these values."""


class Config(Model):
    """The portable part of a container's description; an image has one too."""

    hostname: str = ""
    domainname: str = ""
    user: str = ""
    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    exposed_ports: dict[str, dict[str, Any]] | None = None
    tty: bool = False
    open_stdin: bool = False
    stdin_once: bool = False
    env: list[str] | None = None
    cmd: Words = None
    healthcheck: HealthConfig | None = None
    args_escaped: bool = False
    image: str = ""
    volumes: dict[str, dict[str, Any]] | None = None
    working_dir: str = ""
    entrypoint: Words = None
    network_disabled: bool = False
    mac_address: str = ""
    on_build: list[str] | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    stop_signal: str = ""
    stop_timeout: int | None = None
    shell: Words = None

    @model_serializer(mode="wrap")
    def _omit_empty(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        document: dict[str, Any] = handler(self)
        for key, empty in _OMIT_EMPTY.items():
            if document.get(key) == empty:
                document.pop(key, None)
        return document
