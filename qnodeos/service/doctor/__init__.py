"""Is this machine, and a node file on it, fit for a QNPU? If not, how to mend it.

findings    what a check returns
system      the machine as the checks see it; tests give their own
machine     checks of the machine
node        checks of a node file on this machine
"""

from __future__ import annotations

from qnodeos.service.doctor.findings import Finding, Level
from qnodeos.service.doctor.machine import check_machine
from qnodeos.service.doctor.node import check_node
from qnodeos.service.doctor.system import System, ThisSystem

__all__ = ["Finding", "Level", "System", "ThisSystem", "check_machine", "check_node"]
