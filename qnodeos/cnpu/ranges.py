"""Numbers that do not fit into NetQASM's bytes are refused.

The SDK writes the low bits of whatever it is given: 2**32 + 1 becomes 1, register 20 becomes 4,
application 65536 becomes 0. A program that does so does something else than it says, so here
it is told. Numerators of angles are the exception where what is cut off is whole turns.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from netqasm.lang.instr import core
from netqasm.lang.operand import Address, ArrayEntry, ArraySlice, Immediate, Register
from netqasm.lang.subroutine import Subroutine
from netqasm.sdk import EPRSocket

from qnodeos.errors import CallerError

MAX_APP_ID: Final = 0xFFFF
MAX_QUBITS: Final = 0xFF
MAX_BYTE: Final = 0xFF
_REGISTERS_PER_BANK: Final = 16
_INT32: Final = range(-(1 << 31), 1 << 31)
_BYTE: Final = range(MAX_BYTE + 1)
_OF_BYTES: Final = (
    core.RotationInstruction,
    core.ControlledRotationInstruction,
    core.MeasBasisInstruction,
    core.MeasBasisYZYInstruction,
    core.MeasBasisZXZInstruction,
    core.BreakpointInstruction,
)
"""Instructions whose immediates are bytes; those of all others have 32 bits."""
_ROTATIONS: Final = (core.RotationInstruction, core.ControlledRotationInstruction)
_MAX_TURNING: Final = 7
"""Up to this exponent d, 256 * pi / 2**d is a number of whole turns."""


def check_connection(app_id: int, max_qubits: int, sockets: Iterable[EPRSocket]) -> None:
    """Whether what a connection tells the QNPU at its start can be told.

    Args:
        app_id: of the application.
        max_qubits: it wants to hold at once.
        sockets: its EPR sockets.

    Raises:
        CallerError: a number does not fit.
    """
    if not 0 <= app_id <= MAX_APP_ID:
        raise CallerError(f"application id {app_id} is outside 0..{MAX_APP_ID}")
    if not 1 <= max_qubits <= MAX_QUBITS:
        raise CallerError(f"max_qubits is {max_qubits}; it must lie in 1..{MAX_QUBITS}")
    for socket in sockets:
        for number in (socket.epr_socket_id, socket.remote_epr_socket_id):
            if not _lies_in(_INT32, number):
                raise CallerError(f"EPR socket id {number} is no 32-bit integer")


def check_subroutine(subroutine: Subroutine) -> None:
    """Whether the bytes of a subroutine will say what its instructions say.

    Raises:
        CallerError: a number does not fit into its place; says which, and where.
    """
    for line, instruction in enumerate(subroutine.instructions):
        immediates = _BYTE if isinstance(instruction, _OF_BYTES) else _INT32
        operands = instruction.operands
        if isinstance(instruction, _ROTATIONS) and 0 <= operands[-1].value <= _MAX_TURNING:
            del operands[-2]
        for operand in operands:
            wrong = _misfit(operand, immediates)
            if wrong is not None:
                raise CallerError(f"instruction {line} ({instruction}): {wrong}")


def _misfit(operand: Any, immediates: range) -> str | None:
    """What is wrong with an operand; None if nothing is."""
    kind = type(operand)
    if kind is Register:
        if not 0 <= operand.index < _REGISTERS_PER_BANK:
            last = _REGISTERS_PER_BANK - 1
            return f"there is no register {operand}; banks have registers 0..{last}"
    elif kind is Immediate:
        if not _lies_in(immediates, operand.value):
            return f"{operand.value} is outside {immediates[0]}..{immediates[-1]}"
    elif kind is Address:
        if not _lies_in(_INT32, operand.address):
            return f"address {operand.address} is no 32-bit integer"
    elif kind is ArrayEntry:
        return _misfit(operand.address, _INT32) or _misfit(operand.index, _INT32)
    elif kind is ArraySlice:
        return (
            _misfit(operand.address, _INT32)
            or _misfit(operand.start, _INT32)
            or _misfit(operand.stop, _INT32)
        )
    return None


def _lies_in(numbers: range, value: int) -> bool:
    # `in` looks at one number after the other if the value is a subclass of int, as enums are.
    return numbers[0] <= value <= numbers[-1]
