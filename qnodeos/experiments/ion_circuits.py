"""The seven sequences of the trapped-ion demonstration, as rotations and as instructions."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from qnodeos.qdevice import instructions
from qnodeos.qdevice.instructions import Axis, PhysicalInstruction

Rotation = tuple[str, int]
"""An axis, and an angle in units of pi/16."""

SEQUENCES: Final[Mapping[str, tuple[Rotation, ...]]] = MappingProxyType(
    {
        "I": (),
        "Rx(pi)": (("X", 16),),
        "Ry(pi)": (("Y", 16),),
        "Rx(pi/2)": (("X", 8),),
        "Ry(pi/2)": (("Y", 8),),
        "Rx(pi/2) Rx(pi/2)": (("X", 8), ("X", 8)),
        "Rx(pi/2) Rx(-pi/2)": (("X", 8), ("X", 24)),
    }
)
"""By name, in the order in which they are executed (assumed: the paper does not give them)."""


def physical_programs() -> list[tuple[PhysicalInstruction, ...]]:
    """The instructions of every sequence, from initialisation to measurement."""
    return [
        (
            instructions.ini(),
            *(instructions.sqg(Axis[axis], steps) for axis, steps in rotations),
            instructions.msr(),
        )
        for rotations in SEQUENCES.values()
    ]
