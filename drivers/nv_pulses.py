"""Rotations of single qubits of an NV centre.

Microwave pulses rotate the electron spin about X and Y; there is none for a rotation about Z,
so that one is composed of three. A carbon-13 spin has rotations about all three axes (that about
Z is a wait). Gates are exact up to a global phase, and listed in the order of their execution.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from drivers.angles import GATES_ABOUT_XYZ, Turn, corrections
from qnodeos.qdevice.instructions import ANGLE_STEPS, Axis
from qnodeos.qdevice.outcomes import BellState

QUARTER: Final = ANGLE_STEPS // 4
HALF: Final = ANGLE_STEPS // 2


def electron_turns(turns: Sequence[Turn]) -> tuple[Turn, ...]:
    """Rotations about one axis in pulses about X and Y: Z is turned onto X and back."""
    if not turns or turns[0][0] is not Axis.Z:
        return tuple(turns)
    about_x = ((Axis.X, steps, halvings) for _, steps, halvings in turns)
    return ((Axis.Y, QUARTER, 0), *about_x, (Axis.Y, ANGLE_STEPS - QUARTER, 0))


def _about_z(steps: int) -> tuple[Turn, ...]:
    return electron_turns(((Axis.Z, steps, 0),))


ELECTRON_GATES: Final[Mapping[str, tuple[Turn, ...]]] = {
    "x": ((Axis.X, HALF, 0),),
    "y": ((Axis.Y, HALF, 0),),
    "z": ((Axis.X, HALF, 0), (Axis.Y, HALF, 0)),
    "h": ((Axis.Y, QUARTER, 0), (Axis.X, HALF, 0)),
    "k": ((Axis.Y, HALF, 0), (Axis.X, QUARTER, 0)),
    "s": _about_z(QUARTER),
    "t": _about_z(QUARTER // 2),
}
"""NetQASM's named gates (k is (Y + Z)/sqrt 2) in the fewest pulses about X and Y."""

CARBON_GATES: Final = GATES_ABOUT_XYZ
"""The same for a memory."""

SDK_CORRECTIONS: Final[Mapping[BellState, tuple[Turn, ...]]] = {
    BellState.PHI_PLUS: (),
    BellState.PSI_PLUS: ELECTRON_GATES["x"],
    BellState.PSI_MINUS: ELECTRON_GATES["x"] + _about_z(HALF),
    BellState.PHI_MINUS: _about_z(HALF),
}
"""For the electron: an X and a Z, each as the NetQASM SDK compiles it for NV."""

SHORT_CORRECTIONS: Final = corrections(ELECTRON_GATES)
"""For the electron, in the fewest pulses."""

CARBON_CORRECTIONS: Final = corrections(CARBON_GATES)
"""For a memory, in the fewest rotations."""
