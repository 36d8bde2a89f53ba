"""What this runtime can do, told as OCI runtime-spec features.md wants it (`wharfie-runtime features`, the driver's too).

This is the one table of abilities. What is known in another module by name is taken from there; the rest stands here, and a
module that learns something new says so here too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

OCI_VERSION: Final = "1.2.0"
"""The runtime-spec that this runtime follows; configurations from 1.0.0 on are taken."""
_OLDEST: Final = "1.0.0"

ID_MAPPED_MOUNTS: Final = True
APPARMOR: Final = False
SELINUX: Final = False
INTEL_RDT: Final = False
SYSTEMD_CGROUP: Final = False
"""Whether groups can be made by systemd. They are always made in the file system."""


def features() -> Mapping[str, Any]:
    """The document of features.md; everything in it is plain JSON."""
    # Imported here: the driver wants this once in its life, and seccomp's tables are no small thing.
    from wharfie_runtime_native.capabilities import NAMES
    from wharfie_runtime_native.hooks import KINDS
    from wharfie_runtime_native.mounts import OPTIONS
    from wharfie_runtime_native.namespaces import FLAGS
    from wharfie_runtime_native.seccomp import FLAGS as SECCOMP_FLAGS
    from wharfie_runtime_native.seccomp.program import ACTIONS, ARCHITECTURES, OPERATORS

    return {
        "ociVersionMin": _OLDEST,
        "ociVersionMax": OCI_VERSION,
        "hooks": list(KINDS),
        "mountOptions": sorted(OPTIONS),
        "linux": {
            "namespaces": sorted(FLAGS),
            "capabilities": list(NAMES),
            "cgroup": {"v1": True, "v2": True, "systemd": SYSTEMD_CGROUP, "systemdUser": False, "rdma": False},
            "seccomp": {
                "enabled": True,
                "actions": sorted(ACTIONS),
                "operators": sorted(OPERATORS),
                "archs": sorted(ARCHITECTURES),
                "knownFlags": sorted(SECCOMP_FLAGS),
                "supportedFlags": sorted(SECCOMP_FLAGS),
            },
            "apparmor": {"enabled": APPARMOR},
            "selinux": {"enabled": SELINUX},
            "intelRdt": {"enabled": INTEL_RDT},
            "mountExtensions": {"idmap": {"enabled": ID_MAPPED_MOUNTS}},
        },
    }
