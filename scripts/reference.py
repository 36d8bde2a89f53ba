"""Writes the reference pages of docs/ from the code: contracts, keys of daemon.json, the command line.

`python scripts/reference.py` writes them; tests/docs compares them with fresh output, so a page never lags behind.
"""

from __future__ import annotations

import importlib
import inspect
import textwrap
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from wharfie.cli.app import COMMANDS, app
from wharfie.daemon.config import DaemonConfig
from wharfie.daemon.keys import KEYS, Fate, Key, Kind
from wharfie.spi.driver import Deadline, Driver

DOCS = Path(__file__).parents[1] / "docs"

CONTRACTS: Mapping[str, str] = {
    "storage": "StorageDriver",
    "network": "NetworkDriver",
    "ipam": "IpamDriver",
    "volume": "VolumeDriver",
    "runtime": "RuntimeDriver",
    "registry": "RegistryDriver",
    "log": "LogDriver",
    "authz": "AuthzDriver",
}
_GENERATED = "<!-- Written by scripts/reference.py from the code; changes belong there. -->"
_VALUES: Mapping[Kind, str] = {
    Kind.TEXT: "text",
    Kind.NUMBER: "number",
    Kind.SWITCH: "true or false",
    Kind.TEXTS: "list",
    Kind.PAIRS: "object of texts",
    Kind.OBJECT: "object",
}


def spi_page() -> str:
    """Every contract with its model and words, its methods with their deadlines, and the hooks."""
    base = importlib.import_module("wharfie.spi.driver")
    parts = [
        f"# Reference: driver contracts\n\n{_GENERATED}",
        "How to write a driver: [writing-a-driver.md](writing-a-driver.md). Value objects, with their fields, stand at\n"
        "the top of each module.",
        f"## Every driver (`wharfie.spi.driver`)\n\n{_prose(base.__doc__)}\n\n{''.join(_methods(Driver))}".rstrip(),
    ]
    for module_name, class_name in CONTRACTS.items():
        module = importlib.import_module(f"wharfie.spi.{module_name}")
        contract: type[Driver[Any]] = getattr(module, class_name)
        parts.append(f"## {class_name} (`wharfie.spi.{module_name}`, entry points in `wharfie.{module_name}`)")
        parts.append(f"```text\n{_prose(module.__doc__)}\n```")
        parts += [entry.rstrip() for entry in _methods(contract)]
    log = importlib.import_module("wharfie.spi.log")
    parts.append(f"### `{log.LogSink.__name__}`\n\n{_prose(log.LogSink.__doc__)}")
    parts += [entry.rstrip() for entry in _methods(log.LogSink)]
    hooks = importlib.import_module("wharfie.spi.hooks")
    parts.append(f"## Hooks (`wharfie.spi.hooks`, entry points in `wharfie.plugins`)\n\n{_prose(hooks.__doc__)}")
    parts += [entry.rstrip() for entry in _methods(hooks.HookSpecs)]
    engine = importlib.import_module("wharfie.shim.engine")
    parts.append(f"## Engines of a shim (`wharfie.shim.engine`)\n\n{_prose(engine.__doc__)}")
    parts += [entry.rstrip() for entry in _methods(engine.Engine)]
    errors = importlib.import_module("wharfie.spi.errors")
    parts.append(f"## Errors (`wharfie.spi.errors`)\n\n{_prose(errors.__doc__)}")
    return "\n\n".join(parts) + "\n"


def _methods(contract: type[Any]) -> Iterator[str]:
    """The class's own methods in the order of the source."""
    for name, member in vars(contract).items():
        if name.startswith("_") or not inspect.isfunction(member):
            continue
        yield f"### `{name}{_signature(member)}`\n\n{_facts(member)}{_prose(member.__doc__)}\n\n"


def _signature(method: Callable[..., Any]) -> str:
    text = str(inspect.signature(method)).replace("'", "")
    return text.replace("(self, ", "(").replace("(self)", "()")


def _facts(method: Callable[..., Any]) -> str:
    facts = []
    limit: Deadline | None = getattr(method, "__deadline__", None)
    if limit is not None and limit.total is not None:
        facts.append(f"deadline {limit.total:g} s")
    if limit is not None and limit.idle is not None:
        facts.append(f"at most {limit.idle:g} s without progress")
    if getattr(method, "__isabstractmethod__", False):
        facts.append("required")
    return f"*{', '.join(facts)}*\n\n" if facts else ""


def _prose(docstring: str | None) -> str:
    """A docstring as Markdown, which it is."""
    return inspect.cleandoc(docstring or "").strip()


def keys_page() -> str:
    """Docker's keys and ours, by what becomes of them."""
    supported = [key for key in KEYS if key.fate is Fate.SUPPORTED]
    parts = [
        f"# Reference: daemon.json and the flags of wharfied\n\n{_GENERATED}",
        "A key of daemon.json is a flag too where the table names one. What is given both ways is refused, and so is a\n"
        "key that is unknown. How to use them: [running.md](running.md).",
        "| key | flag | value | default | meaning |\n| --- | --- | --- | --- | --- |\n"
        + "\n".join(_supported_row(key) for key in supported),
        "`--config-file` names another file than `/etc/wharfie/daemon.json`; `--validate` checks the configuration, the\n"
        "drivers that it names and their settings, and starts nothing. There are `-v`, `--version` and `-h`, `--help`.",
        f"## Without effect\n\nA warning in the log says so.\n\n{_other(Fate.ACCEPTED)}",
        f"## Refused\n\nThe daemon does not start, for it could not keep what the key promises.\n\n{_other(Fate.REFUSED)}",
    ]
    return "\n\n".join(parts) + "\n"


def _supported_row(key: Key) -> str:
    flag = f"`{key.short}`, `{key.option}`" if key.short else f"`{key.option}`" if key.option else ""
    return f"| `{key.name}` | {flag} | {_VALUES[key.kind]} | {_default(key)} | {_cell(key.help or _NOTES[key.name])} |"


_NOTES: Mapping[str, str] = {
    "proxies": "`http-proxy`, `https-proxy` and `no-proxy` in one object",
    "drivers": 'Settings of any driver: `{"<kind>.<name>": {…}}`; each driver\'s README lists them',
    "plugins": 'Settings of hook plugins: `{"<name>": {…}}`; one that has settings is required. SIGHUP applies changes',
    "mirror": "Let others pull the images that are here: `listen` (ADDRESS:PORT), `tlscert`, `tlskey`, `tlscacert`",
    "disabled-plugins": "Drivers (`<kind>.<name>`) and hook plugins that must not be loaded",
    "required-plugins": "Hook plugins whose failure refuses the operation",
    "host-gateway-ip": "Older name of `host-gateway-ips`, one address",
    "registries": "Which registry driver is asked for images of HOST[:PORT]",
}


def _default(key: Key) -> str:
    value = DaemonConfig.model_fields[key.name.replace("-", "_")].default
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | str):
        return f"`{value}`" if value != "" else ""
    if isinstance(value, list):
        return ", ".join(f"`{item}`" for item in value)
    return ""


def _other(fate: Fate) -> str:
    rows = [f"| `{key.name}` | {_cell(key.why)} |" for key in KEYS if key.fate is fate]
    return "| key | why |\n| --- | --- |\n" + "\n".join(rows)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def cli_page() -> str:
    """The help of every command."""
    parts = [
        f"# Reference: the command line `wharfie`\n\n{_GENERATED}",
        "Commands, flags and output are docker's. What the engine offers beyond these commands is reached with the docker\n"
        "command line, which works unmodified.",
    ]
    for name in COMMANDS:
        command = app.get_command(click.Context(app), name)
        assert command is not None
        parts += _help(command, f"wharfie {name}")
    return "\n\n".join(parts) + "\n"


def _help(command: click.Command, path: str) -> Iterator[str]:
    context = click.Context(command, info_name=path, terminal_width=100, max_content_width=100)
    yield f"## `{path}`\n\n{textwrap.indent(command.get_help(context), '    ')}".replace("    \n", "\n")
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            assert child is not None
            yield from _help(child, f"{path} {name}")


PAGES: Mapping[str, Callable[[], str]] = {
    "reference-spi.md": spi_page,
    "reference-daemon.md": keys_page,
    "reference-cli.md": cli_page,
}


def main() -> None:
    for name, page in PAGES.items():
        (DOCS / name).write_text(page())


if __name__ == "__main__":
    main()
