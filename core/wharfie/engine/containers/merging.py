"""A configuration completed by another one: a request's by the image's, a commit's by the container's (Docker's rules)."""

from __future__ import annotations

from wharfie.engine.model.config import Config, HealthConfig


def complete(config: Config, base: Config) -> Config:
    """`config` with what it leaves open taken from `base`. Changes and returns `config`."""
    config.user = config.user or base.user
    config.working_dir = config.working_dir or base.working_dir
    config.stop_signal = config.stop_signal or base.stop_signal
    config.shell = config.shell or base.shell
    own = {entry.partition("=")[0] for entry in config.env or ()}
    inherited = [entry for entry in base.env or () if entry.partition("=")[0] not in own]
    if inherited:
        config.env = [*(config.env or []), *inherited]
    config.labels = {**base.labels, **config.labels}
    if base.exposed_ports or config.exposed_ports:
        config.exposed_ports = {**(base.exposed_ports or {}), **(config.exposed_ports or {})}
    if base.volumes or config.volumes:
        config.volumes = {**(base.volumes or {}), **(config.volumes or {})}
    if not config.entrypoint:
        if not config.cmd:
            config.cmd = base.cmd
        if config.entrypoint is None:
            config.entrypoint = base.entrypoint
    config.healthcheck = _healthcheck(config.healthcheck, base.healthcheck)
    return config


def _healthcheck(own: HealthConfig | None, base: HealthConfig | None) -> HealthConfig | None:
    if own is None or base is None:
        return own or base
    merged = own.model_copy()
    merged.test = own.test or base.test
    for name in ("interval", "timeout", "start_period", "start_interval", "retries"):
        setattr(merged, name, getattr(own, name) or getattr(base, name))
    return merged
