"""One half of a pair at an end: how it is measured; of a circuit's: corrected, and told of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from qnodeos.api.peer import CircuitTerms, RequestTerms
from qnodeos.errors import DeviceFailureError
from qnodeos.qdevice.instructions import Axis, Opcode, PhysicalInstruction
from qnodeos.qdevice.outcomes import BellState, Outcome
from qnodeos.qdevice.protocols import QDriver
from qnodeos.qnpu.er_sockets import Pair, UserRequest
from qnodeos.qnpu.requests import BASIS_ROTATIONS, Rotations, Weights, draw_basis, measured_basis

_STEP_EXPONENT: Final = 4
"""Rotations of requests come in steps of pi/2**4."""


@dataclass(frozen=True, slots=True)
class Basis:
    """How a half is measured.

    Attributes:
        rotations: before a measurement of Z.
        code: of the basis; None if it is none that has a code.
    """

    rotations: Rotations
    code: int | None


def creator_basis(user: UserRequest, random_choice: Callable[[int], int]) -> Basis | None:
    """How the creator's half is measured, None if it is kept; drawn anew for every pair."""
    arguments = user.arguments
    assert arguments is not None
    if not arguments.kind.creator_measures:
        return None
    return _basis(
        arguments.local_random_basis,
        arguments.local_weights,
        arguments.local_rotations,
        random_choice,
    )


def receiver_basis(
    terms: CircuitTerms | RequestTerms, random_choice: Callable[[int], int]
) -> Basis | None:
    """How the receiver's half is measured, None if it is kept; drawn anew for every pair."""
    if not terms.kind.receiver_measures:
        return None
    rotations = tuple((Axis(axis), steps) for axis, steps in terms.remote_rotations)
    return _basis(terms.remote_random_basis, terms.remote_weights, rotations, random_choice)


def _basis(
    random_basis: int,
    weights: Weights,
    rotations: Rotations,
    random_choice: Callable[[int], int],
) -> Basis:
    if not random_basis:
        return Basis(rotations, measured_basis(rotations))
    code = draw_basis(random_basis, weights, random_choice)
    return Basis(BASIS_ROTATIONS[code], code)


class Measured:
    """Corrects a half to that of Phi+, measures it if asked to, and keeps what came of it.

    Args:
        driver: makes the instructions.
        bell_state: state of the pair.
        basis: how to measure our half; None to keep it.

    Attributes:
        outcome: of the instruction that failed, or of the measurement.
    """

    def __init__(self, driver: QDriver, bell_state: BellState, basis: Basis | None) -> None:
        self._driver = driver
        self._bell_state = bell_state
        self._instructions: list[PhysicalInstruction] = []
        self.basis = basis
        self.outcome = Outcome.SUCCESS_ZERO

    def instructions(self, qubit: int | None) -> Sequence[PhysicalInstruction]:
        """What the device has to do; nothing if the qubit was lost."""
        if qubit is None:
            self.outcome = Outcome.UNKNOWN_FAILURE
            return ()
        driver, todo = self._driver, self._instructions
        todo.extend(driver.correct(self._bell_state, qubit))
        if self.basis is not None:
            for axis, steps in self.basis.rotations:
                todo.extend(driver.rotate(axis, steps, _STEP_EXPONENT, qubit))
            todo.extend(driver.measure(qubit))
        return tuple(todo)

    def result(self, outcomes: Sequence[Outcome]) -> Measured:
        """Take the outcomes of the instructions, as far as they came; returns itself."""
        for instruction, outcome in zip(self._instructions, outcomes, strict=False):
            if not outcome.is_success or instruction.opcode is Opcode.MSR:
                self.outcome = outcome
            if not outcome.is_success:
                break
        return self

    @property
    def is_success(self) -> bool:
        """Whether all went well."""
        return self.outcome.is_success

    @property
    def bit(self) -> int | None:
        """Result of the measurement, None without one."""
        return None if self.basis is None else int(self.outcome is Outcome.SUCCESS_ONE)

    def error(self) -> DeviceFailureError:
        """What a program is told if it went wrong."""
        return DeviceFailureError(
            f"the device answered {self.outcome.name} when one end of a pair was to be measured"
        )


def pair_of(
    terms: CircuitTerms, sequence: int, physical: int | None, measured: Measured, tick: int
) -> Pair:
    """A pair as it is delivered; all that is not this end's own is the same at both.

    Args:
        terms: of the circuit.
        sequence: the pair's number.
        physical: qubit of the half kept, None if it was measured.
        measured: what was done with the half.
        tick: when the tail had its half.
    """
    return Pair(
        terms.create_id,
        sequence,
        physical,
        measured.bit,
        None if measured.basis is None else measured.basis.code,
        BellState.PHI_PLUS,
        tick,
        is_phi_plus=True,
        since_tick=terms.since_tick,
    )
