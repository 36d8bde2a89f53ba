"""The rules of runtime drivers. Containers are made of a static busybox (Debian: busybox-static); without one they are not
tried.

The rules by what they are about; `world` is what all of them need.
"""

from __future__ import annotations

from wharfie.kit.runtime.life import LifeRules
from wharfie.kit.runtime.limits import LimitRules
from wharfie.kit.runtime.processes import ProcessRules
from wharfie.kit.runtime.streams import StreamRules
from wharfie.kit.runtime.survival import SurvivalRules

__all__ = ["RuntimeContract"]


class RuntimeContract(LifeRules, StreamRules, ProcessRules, LimitRules, SurvivalRules):
    """Every container's control group is in `PARENT`."""
