"""What the engine and the drivers are told of the configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from wharfie.daemon.config import DaemonConfig
from wharfie.daemon.users import remapped, root_of
from wharfie.engine.settings import AddressPool, DefaultUlimit, EngineSettings
from wharfie.spi.errors import InvalidArgument


def engine_settings(config: DaemonConfig, instance: str) -> EngineSettings:
    """The engine's part."""
    gateways = config.host_gateway_ips or ([config.host_gateway_ip] if config.host_gateway_ip else [])
    return EngineSettings(
        data_root=Path(config.data_root),
        exec_root=Path(config.exec_root),
        instance=instance,
        storage_driver=config.storage_driver,
        default_runtime=config.default_runtime,
        log_driver=config.log_driver,
        log_options=config.log_opts,
        default_network_driver=config.default_network_driver,
        default_volume_driver=config.default_volume_driver,
        registry_driver=config.registry_driver,
        registries=config.registries,
        authorization_plugins=tuple(config.authorization_plugins),
        disabled_plugins=tuple(config.disabled_plugins),
        required_plugins=tuple(config.required_plugins),
        bridge=config.bridge or "docker0",
        bip=config.bip,
        bip6=config.bip6,
        fixed_cidr=config.fixed_cidr,
        fixed_cidr_v6=config.fixed_cidr_v6,
        default_gateway=config.default_gateway,
        default_gateway_v6=config.default_gateway_v6,
        ipv6=config.ipv6,
        icc=config.icc,
        ip_masq=config.ip_masq and config.iptables,  # a firewall rule, too
        ip_forward=config.ip_forward,
        mtu=config.mtu,
        default_bind_address=config.ip,
        userland_proxy=config.userland_proxy,
        default_address_pools=tuple(AddressPool(base=pool.base, size=pool.size) for pool in config.default_address_pools),
        default_network_opts=config.default_network_opts,
        host_gateway_ips=tuple(gateways),
        dns=tuple(config.dns),
        dns_options=tuple(config.dns_opts),
        dns_search=tuple(config.dns_search),
        cgroup_parent=config.cgroup_parent,
        default_shm_size=config.default_shm_size,
        default_ulimits={
            name: DefaultUlimit(name=limit.name, soft=limit.soft, hard=limit.hard)
            for name, limit in config.default_ulimits.items()
        },
        default_cgroupns_mode=config.default_cgroupns_mode,
        default_ipc_mode=config.default_ipc_mode,
        init=config.init,
        init_path=config.init_path,
        no_new_privileges=config.no_new_privileges,
        users=remapped(config.userns_remap),
        seccomp_profile=config.seccomp_profile,
        live_restore=config.live_restore,
        shutdown_timeout=config.shutdown_timeout,
        default_stop_timeout=config.default_stop_timeout,
        max_concurrent_downloads=config.max_concurrent_downloads,
        max_concurrent_uploads=config.max_concurrent_uploads,
        max_download_attempts=config.max_download_attempts,
        insecure_registries=tuple(config.insecure_registries),
        registry_mirrors=tuple(config.registry_mirrors),
        cdi_spec_dirs=tuple(config.cdi_spec_dirs),
        labels=tuple(config.labels),
        experimental=config.experimental,
        debug=config.debug,
        hosts=tuple(config.hosts),
    )


def data_root(config: DaemonConfig) -> str:
    """Where what must last is: with remapped users a folder for their mapping below `data-root`, as dockerd has it, so that
    what is made with one mapping is not used with another. Errors: InvalidArgument (userns-remap)."""
    users = remapped(config.userns_remap)
    return config.data_root if users is None else f"{config.data_root}/{'.'.join(map(str, root_of(users)))}"


def proxy_environment(config: DaemonConfig) -> dict[str, str]:
    """Variables that say the same as the configuration; drivers and everything else find proxies there. The keys within
    `proxies` and those at the top mean the same; what neither has is left as the environment has it."""
    found: dict[str, str] = {}
    for name in ("http_proxy", "https_proxy", "no_proxy"):
        value = getattr(config, name) or getattr(config.proxies, name)
        if value:
            found |= {name: value, name.upper(): value}
    return found


def driver_sections(config: DaemonConfig) -> dict[str, dict[str, Any]]:
    """The drivers' settings by "<kind>.<name>": the key `drivers`, and Docker's own keys for what became drivers here.

    Errors: InvalidArgument when the same setting is given both ways.
    """
    sections = {name: dict(section) for name, section in config.drivers.items()}

    def put(driver: str, option: str, value: Any, key: str) -> None:
        section = sections.setdefault(driver, {})
        if option in section:
            raise InvalidArgument(f"{option} is given both as {key} and in drivers.{driver}; keep one of them")
        section[option] = value

    given = config.model_fields_set
    of_the_bridge = ("iptables", "ip6tables", "ip-forward", "ip-forward-no-drop")
    for key in (*of_the_bridge, "allow-direct-routing", "bridge-accept-fwmark"):
        if key.replace("-", "_") in given:
            put("network.bridge", key, getattr(config, key.replace("-", "_")), key)
    if config.default_address_pools:
        pools = [{"base": pool.base, "size": pool.size} for pool in config.default_address_pools]
        put("ipam.default", "default-address-pools", pools, "default-address-pools")
    for name, runtime in config.runtimes.items():
        put(f"runtime.{name}", "path", runtime.path, "runtimes")
        if runtime.runtime_args:
            put(f"runtime.{name}", "runtime-args", runtime.runtime_args, "runtimes")
    for key in ("insecure-registries", "registry-mirrors"):
        values = getattr(config, key.replace("-", "_"))
        if values:
            put(f"registry.{config.registry_driver}", key, values, key)
    for option in config.storage_opts:
        name, _, value = option.partition("=")
        driver, _, setting = name.partition(".")
        put(f"storage.{driver}", setting, value, "storage-opts")
    return sections
