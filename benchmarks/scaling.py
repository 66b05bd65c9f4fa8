"""Far more programs than the paper's: decisions of the kernel, whole systems, memory.

`decisions` has the kernel alone, `pairs` two nodes with all their programs in virtual time,
`footprint` the memory.
"""

from __future__ import annotations

from benchmarks import decisions, footprint, pairs
from benchmarks.measure import Effort, Outcome


def run(effort: Effort) -> Outcome:
    """Measure."""
    kernel, system = decisions.run(effort), pairs.run(effort)
    return Outcome([*kernel.figures, *system.figures], system.gc, notes=footprint.notes(effort))
