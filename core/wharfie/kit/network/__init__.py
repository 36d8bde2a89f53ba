"""The rules of network drivers. A room is a host with the interface `kit0` (192.0.2.1/24) and a neighbour at 192.0.2.2;
sandboxes are network namespaces. The kit looks with the command `ip`.

The rules by what they are about; `world` is what all of them need.
"""

from __future__ import annotations

from wharfie.kit.network.plans import PlanRules
from wharfie.kit.network.ports import PortRules
from wharfie.kit.network.reconciling import ReconcilingRules
from wharfie.kit.network.sandboxes import SandboxRules

__all__ = ["NetworkContract"]


class NetworkContract(PlanRules, SandboxRules, PortRules, ReconcilingRules):
    """`options`: of every network of the tests; "{number}" in a value is the network's number. `bad_option`: one that must
    be refused."""
