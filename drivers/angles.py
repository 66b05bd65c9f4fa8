"""NetQASM's rotation angles in the units of a device.

NetQASM says ``numerator * pi / 2**exponent``. A physical instruction says five bits of an angle,
``steps * pi/16 / 2**halvings``; how small the unit may get is `Capabilities.angle_halvings`. A
finer angle is a sum of several instructions about the same axis.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from qnodeos.errors import UnsupportedInstructionError
from qnodeos.qdevice import instructions
from qnodeos.qdevice.instructions import ANGLE_STEPS, MAX_HALVINGS, Axis, PhysicalInstruction
from qnodeos.qdevice.outcomes import BellState

MAX_EXPONENT: Final = 255
"""Largest exponent of a rotation angle: NetQASM stores it in one byte."""

Turn = tuple[Axis, int, int]
"""Rotation axis, and the angle in units of pi/16 / 2**halvings: steps and halvings."""

_HALF: Final = ANGLE_STEPS // 2
_QUARTER: Final = ANGLE_STEPS // 4

GATES_ABOUT_XYZ: Final[Mapping[str, tuple[Turn, ...]]] = {
    "x": ((Axis.X, _HALF, 0),),
    "y": ((Axis.Y, _HALF, 0),),
    "z": ((Axis.Z, _HALF, 0),),
    "h": ((Axis.Y, _QUARTER, 0), (Axis.X, _HALF, 0)),
    "k": ((Axis.X, _QUARTER, 0), (Axis.Z, _HALF, 0)),
    "s": ((Axis.Z, _QUARTER, 0),),
    "t": ((Axis.Z, _QUARTER // 2, 0),),
}
"""NetQASM's named gates (k is (Y + Z)/sqrt 2) in the fewest rotations about X, Y and Z."""

_CORRECTING_GATES: Final = {
    BellState.PSI_PLUS: "x",
    BellState.PSI_MINUS: "y",
    BellState.PHI_MINUS: "z",
}

_STEP_BITS: Final = ANGLE_STEPS.bit_length() - 1
_UNIT_EXPONENT: Final = _STEP_BITS - 1
"""The unit of an angle without halvings is pi / 2**_UNIT_EXPONENT."""


def turns(axis: Axis, numerator: int, exponent: int, angle_halvings: int) -> tuple[Turn, ...]:
    """A rotation by ``numerator * pi / 2**exponent`` in rotations that a device has.

    The angle is exact modulo 2 pi, with one exception: a device that can do the finest angles
    there are (`MAX_HALVINGS`) does the nearest of them, which is wrong by pi/2**20 or 3
    microradians at most.

    Args:
        axis: rotation axis.
        numerator: any integer.
        exponent: 0..`MAX_EXPONENT`.
        angle_halvings: how small the unit of the device is.

    Returns:
        The rotations, up to four; none for a multiple of 2 pi.

    Raises:
        UnsupportedInstructionError: the angle is no multiple of the unit, or the exponent is
            out of range.
    """
    asked = f"rotation by {numerator} * pi / 2**{exponent} about {axis.name}"
    if not 0 <= exponent <= MAX_EXPONENT:
        raise UnsupportedInstructionError(f"{asked}: the exponent must lie in 0..{MAX_EXPONENT}")
    turn = ANGLE_STEPS << angle_halvings
    units, remainder = divmod(numerator * turn // 2, 1 << exponent)
    if remainder and angle_halvings == MAX_HALVINGS:
        units += 2 * remainder >> exponent
    elif remainder:
        unit = f"pi/{1 << (_UNIT_EXPONENT + angle_halvings)}"
        raise UnsupportedInstructionError(
            f"{asked} is no multiple of {unit}; the nearest this hardware can do are "
            f"{units % turn} * {unit} and {(units + 1) % turn} * {unit}"
        )
    return _split(axis, units % turn, angle_halvings)


def played(found: Sequence[Turn], qubit: int) -> tuple[PhysicalInstruction, ...]:
    """Rotations of a qubit as instructions."""
    return tuple(instructions.sqg(axis, steps, qubit, halvings) for axis, steps, halvings in found)


def corrections(gates: Mapping[str, tuple[Turn, ...]]) -> Mapping[BellState, tuple[Turn, ...]]:
    """What turns each Bell state into Phi+: one of the gates x, y and z, at one end."""
    found = {state: gates[gate] for state, gate in _CORRECTING_GATES.items()}
    return {BellState.PHI_PLUS: (), **found}


def _split(axis: Axis, units: int, halvings: int) -> tuple[Turn, ...]:
    """Angles of five bits each that add up to one, the finest first."""
    found = []
    while units:
        zeros = min((units & -units).bit_length() - 1, halvings)
        units, halvings = units >> zeros, halvings - zeros
        found.append((axis, units % ANGLE_STEPS, halvings))
        units -= units % ANGLE_STEPS
    return tuple(found)
