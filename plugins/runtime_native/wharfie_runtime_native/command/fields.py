"""Which JSON a configuration may have where (OCI runtime-spec 1.2, config.md and config-linux.md), as a table.

Other modules read what they need and check what it means; this one says of each field that somebody got wrong what belongs
there, as in `process.args: expected an array of strings, found a number`. A field that is null counts as left out, and one
that is not in the table is another version's, as the specification wants it.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from wharfie.spi.errors import InvalidArgument


class Text(NamedTuple):
    """A string. The kernel ends one at a NUL, and Linux has no name that is half a character."""


class Number(NamedTuple):
    """An integer of a C type's range."""

    least: int
    most: int


class Switch(NamedTuple):
    """true or false."""


class Items(NamedTuple):
    """An array of one kind."""

    kind: Kind


class Entries(NamedTuple):
    """An object with any keys, whose values are of one kind."""

    kind: Kind


class Fields(NamedTuple):
    """An object with the keys that the specification has, of which `needed` may not be left out."""

    kinds: dict[str, Kind]
    needed: tuple[str, ...] = ()


Kind = Text | Number | Switch | Items | Entries | Fields

_TEXT: Final = Text()
_SWITCH: Final = Switch()
_TEXTS: Final = Items(_TEXT)
_U16: Final = Number(0, 0xFFFF)
_U32: Final = Number(0, 0xFFFFFFFF)
_I32: Final = Number(-0x80000000, 0x7FFFFFFF)
_I64: Final = Number(-(1 << 63), (1 << 63) - 1)
_U64: Final = Number(0, (1 << 64) - 1)

_MAPPINGS: Final = Items(Fields({"containerID": _U32, "hostID": _U32, "size": _U32}))
_HOOKS: Final = Items(Fields({"path": _TEXT, "args": _TEXTS, "env": _TEXTS, "timeout": _I32}))
_RATES: Final = Items(Fields({"major": _I64, "minor": _I64, "rate": _U64}, ("major", "minor", "rate")))

PROCESS: Final = Fields(
    {
        "terminal": _SWITCH,
        "consoleSize": Fields({"height": _U16, "width": _U16}),
        "cwd": _TEXT,
        "env": _TEXTS,
        "args": _TEXTS,
        "rlimits": Items(Fields({"type": _TEXT, "soft": _U64, "hard": _U64})),
        "apparmorProfile": _TEXT,
        "capabilities": Fields(
            dict.fromkeys(("effective", "bounding", "inheritable", "permitted", "ambient"), _TEXTS),
        ),
        "noNewPrivileges": _SWITCH,
        "oomScoreAdj": _I32,
        "scheduler": Fields(
            {
                "policy": _TEXT,
                "nice": _I32,
                "priority": _I32,
                "flags": _TEXTS,
                "runtime": _U64,
                "deadline": _U64,
                "period": _U64,
            }
        ),
        "selinuxLabel": _TEXT,
        "ioPriority": Fields({"class": _TEXT, "priority": _I32}),
        "execCPUAffinity": Fields({"initial": _TEXT, "final": _TEXT}),
        "user": Fields({"uid": _U32, "gid": _U32, "umask": _U32, "additionalGids": Items(_U32)}),
    }
)

RESOURCES: Final = Fields(
    {
        "devices": Items(Fields({"allow": _SWITCH, "type": _TEXT, "major": _I64, "minor": _I64, "access": _TEXT})),
        "memory": Fields(
            {
                **dict.fromkeys(("limit", "reservation", "swap", "kernel", "kernelTCP"), _I64),
                "swappiness": _U64,
                **dict.fromkeys(("disableOOMKiller", "useHierarchy", "checkBeforeUpdate"), _SWITCH),
            }
        ),
        "cpu": Fields(
            {
                **dict.fromkeys(("shares", "burst", "period", "realtimePeriod"), _U64),
                **dict.fromkeys(("quota", "realtimeRuntime", "idle"), _I64),
                **dict.fromkeys(("cpus", "mems"), _TEXT),
            }
        ),
        "pids": Fields({"limit": _I64}),
        "blockIO": Fields(
            {
                "weight": _U16,
                "leafWeight": _U16,
                "weightDevice": Items(
                    Fields({"major": _I64, "minor": _I64, "weight": _U16, "leafWeight": _U16}, ("major", "minor", "weight"))
                ),
                "throttleReadBpsDevice": _RATES,
                "throttleWriteBpsDevice": _RATES,
                "throttleReadIOPSDevice": _RATES,
                "throttleWriteIOPSDevice": _RATES,
            }
        ),
        "hugepageLimits": Items(Fields({"pageSize": _TEXT, "limit": _U64}, ("pageSize", "limit"))),
        "network": Fields(
            {"classID": _U32, "priorities": Items(Fields({"name": _TEXT, "priority": _U32}, ("name", "priority")))}
        ),
        "rdma": Entries(Fields({"hcaHandles": _U32, "hcaObjects": _U32})),
        "unified": Entries(_TEXT),
    }
)

CONFIG: Final = Fields(
    {
        "ociVersion": _TEXT,
        "root": Fields({"path": _TEXT, "readonly": _SWITCH}),
        "mounts": Items(
            Fields(
                {
                    "destination": _TEXT,
                    "source": _TEXT,
                    "type": _TEXT,
                    "options": _TEXTS,
                    "uidMappings": _MAPPINGS,
                    "gidMappings": _MAPPINGS,
                }
            )
        ),
        "process": PROCESS,
        "hostname": _TEXT,
        "domainname": _TEXT,
        "hooks": Entries(_HOOKS),
        "annotations": Entries(_TEXT),
        "linux": Fields(
            {
                "namespaces": Items(Fields({"type": _TEXT, "path": _TEXT})),
                "uidMappings": _MAPPINGS,
                "gidMappings": _MAPPINGS,
                "timeOffsets": Entries(Fields({"secs": _I64, "nanosecs": _U32})),
                "devices": Items(
                    Fields(
                        {
                            "type": _TEXT,
                            "path": _TEXT,
                            "major": _I64,
                            "minor": _I64,
                            "fileMode": _U32,
                            "uid": _U32,
                            "gid": _U32,
                        }
                    )
                ),
                "cgroupsPath": _TEXT,
                "resources": RESOURCES,
                "rootfsPropagation": _TEXT,
                "maskedPaths": _TEXTS,
                "readonlyPaths": _TEXTS,
                "mountLabel": _TEXT,
                "sysctl": Entries(_TEXT),
                "seccomp": Fields(
                    {
                        "defaultAction": _TEXT,
                        "defaultErrnoRet": _U32,
                        "architectures": _TEXTS,
                        "flags": _TEXTS,
                        "listenerPath": _TEXT,
                        "listenerMetadata": _TEXT,
                        "syscalls": Items(
                            Fields(
                                {
                                    "names": _TEXTS,
                                    "action": _TEXT,
                                    "errnoRet": _U32,
                                    "args": Items(Fields({"index": _U32, "value": _U64, "valueTwo": _U64, "op": _TEXT})),
                                }
                            )
                        ),
                    }
                ),
                "personality": Fields({"domain": _TEXT, "flags": _TEXTS}),
                "intelRdt": Fields({}),
            }
        ),
    }
)

_FOUND: Final = {
    bool: "true or false",
    int: "a number",
    float: "a number",
    str: "a string",
    list: "an array",
    dict: "an object",
}
_ONE: Final = {Text: "a string", Switch: "true or false", Items: "an array", Entries: "an object", Fields: "an object"}
_MANY: Final = {Text: "strings", Number: "numbers", Items: "arrays", Entries: "objects", Fields: "objects"}


def check(value: Any, kind: Kind, field: str) -> None:
    """`field`: what the value is called; "" for the whole document. Fields that are null are taken out of it.

    Errors: InvalidArgument.
    """
    match kind, value:
        case (Fields(kinds, needed), dict()):
            for key in needed:
                if value.get(key) is None:
                    raise InvalidArgument(f"{field}.{key}: there is none, and it is needed")
            _without_nulls(value)
            for key, part in kinds.items():
                if key in value:
                    check(value[key], part, f"{field}.{key}" if field else key)
        case (Entries(part), dict()):
            _without_nulls(value)
            for key, entry in value.items():
                _check_text(key, f"a key of {field}")
                check(entry, part, f'{field}["{key}"]' if "." in key else f"{field}.{key}")
        case (Items(part), list()):
            for index, item in enumerate(value):
                check(item, part, f"{field}[{index}]")
        case (Text(), str()):
            _check_text(value, field)
        case (Number(least, most), int()) if not isinstance(value, bool) and least <= value <= most:
            pass
        case (Switch(), bool()):
            pass
        case _:
            found = "null" if value is None else _FOUND[type(value)]
            if isinstance(kind, Number) and found == "a number":
                found = str(value) if len(str(value)) < 30 else "one that is not"
            raise InvalidArgument(f"{field or 'config.json'}: expected {_wanted(kind)}, found {found}")


def _without_nulls(value: dict[str, Any]) -> None:
    for key in [key for key, entry in value.items() if entry is None]:
        del value[key]


def _wanted(kind: Kind) -> str:
    if isinstance(kind, Number):
        return f"an integer from {kind.least} to {kind.most}"
    if isinstance(kind, Items):
        return f"an array of {_MANY[type(kind.kind)]}"
    return _ONE[type(kind)]


def _check_text(text: str, field: str) -> None:
    if "\0" in text:
        raise InvalidArgument(f"{field}: a string here cannot have a NUL character in it")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidArgument(f"{field}: the string is no valid Unicode") from None
