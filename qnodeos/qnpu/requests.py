"""Entanglement requests as a program writes them into arrays, and the results it reads.

The layouts are those of netqasm 2.3.0 (sdk/build_epr.py): 22 arguments per create request,
ten results per pair.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import cos, isclose, pi, sin
from typing import Final, TypeVar

from qnodeos.api.peer import EntanglementType
from qnodeos.errors import EntanglementRequestError
from qnodeos.limits import Limits
from qnodeos.qdevice.instructions import ANGLE_STEPS, Axis
from qnodeos.qdevice.outcomes import BellState

_T = TypeVar("_T")

ARGUMENTS: Final = 22
RESULTS_PER_PAIR: Final = 10
ROTATIONS: Final = 3
"""Rotations before a measurement, at most."""

Rotations = tuple[tuple[Axis, int], ...]
"""Rotations before a measurement, in order of time: (axis, steps of pi/16)."""

_AXES: Final = (
    (Axis.X, Axis.Y, Axis.X),
    (Axis.Y, Axis.Z, Axis.Y),
    (Axis.Z, Axis.X, Axis.Z),
)
"""NetQASM's rotation axes codes: 0 XYX, 1 YZY, 2 ZXZ."""

_TIME_UNIT_US: Final = (1, 1_000, 1_000_000)

BASIS_Z, BASIS_X, BASIS_Y, BASIS_ZPLUSX, BASIS_ZMINUSX = range(5)

BASIS_ROTATIONS: Final[dict[int, Rotations]] = {
    BASIS_Z: (),
    BASIS_X: ((Axis.Y, 24),),
    BASIS_Y: ((Axis.X, 8),),
    BASIS_ZPLUSX: ((Axis.Y, 28),),
    BASIS_ZMINUSX: ((Axis.Y, 4),),
}
"""Rotations that turn a measurement of Z into one of the basis."""

RANDOM_BASES: Final[tuple[tuple[int, ...], ...]] = (
    (),
    (BASIS_X, BASIS_Z),
    (BASIS_X, BASIS_Y, BASIS_Z),
    (BASIS_ZPLUSX, BASIS_ZMINUSX),
)
"""NetQASM's RandomBasis codes: 0 none, 1 XZ, 2 XYZ, 3 CHSH."""

WEIGHT_UNITS: Final = 256
"""Probabilities of random bases are in units of 1/256, one byte each
(draft-dahlberg-ll-quantum-03, the link layer standard that NetQASM's requests follow)."""

Weights = tuple[int, int]
"""Probabilities of the first and, of three, the second basis; (0, 0): all are as likely."""

_MAX_PERCENT: Final = 100


@dataclass(frozen=True, slots=True)
class CreateArguments:
    """The arguments of a create request, decoded and checked.

    Attributes:
        kind: create and keep (K), measure directly (M) or remote state preparation (R).
        max_time_us: time after which the request expires if no pair came, 0 for never.
        local_weights, remote_weights: of the random bases.
        min_fidelity_percent: what the pairs should have at least; 0 for no wish.
        priority: requests with a higher one are served first.
        atomic: all pairs have to be held at once.
        consecutive: no other request of the link may come between the pairs.
    """

    kind: EntanglementType
    pairs: int
    local_random_basis: int
    remote_random_basis: int
    local_rotations: Rotations
    remote_rotations: Rotations
    max_time_us: int
    local_weights: Weights = (0, 0)
    remote_weights: Weights = (0, 0)
    min_fidelity_percent: int = 0
    priority: int = 0
    atomic: bool = False
    consecutive: bool = False


def parse_create_arguments(values: Sequence[int | None], limits: Limits) -> CreateArguments:
    """Decode the argument array of ``create_epr``.

    Raises:
        EntanglementRequestError: an argument is out of range or not supported.
    """
    if len(values) > ARGUMENTS:
        raise EntanglementRequestError(
            f"an argument array has {ARGUMENTS} entries, this one {len(values)}"
        )
    arguments = [value or 0 for value in values] + [0] * (ARGUMENTS - len(values))
    kind = arguments[0]
    if kind not in list(EntanglementType):
        raise EntanglementRequestError(
            f"entanglement type {kind} is not supported; use create-and-keep (0), "
            "measure-directly (1) or remote state preparation (2)"
        )
    pairs = arguments[1] or 1
    if not 1 <= pairs <= limits.pairs_per_request:
        raise EntanglementRequestError(
            f"a request of {pairs} pairs is outside 1..pairs_per_request={limits.pairs_per_request}"
        )
    unit = _choose(_TIME_UNIT_US, arguments[5], "time unit")
    if arguments[6] < 0:
        raise EntanglementRequestError(f"max_time {arguments[6]} is negative")
    for place, basis in ((2, arguments[2]), (3, arguments[3])):
        _choose(RANDOM_BASES, basis, f"random basis (argument {place})")
    if not 0 <= arguments[4] <= _MAX_PERCENT:
        raise EntanglementRequestError(
            f"min_fidelity {arguments[4]} (argument 4) is outside 0..{_MAX_PERCENT} (percent)"
        )
    if not 0 <= arguments[7] <= limits.highest_priority:
        raise EntanglementRequestError(
            f"priority {arguments[7]} (argument 7) is outside 0..highest_priority="
            f"{limits.highest_priority}"
        )
    return CreateArguments(
        kind=EntanglementType(kind),
        pairs=pairs,
        local_random_basis=arguments[2],
        remote_random_basis=arguments[3],
        local_rotations=_rotations(arguments[14:17], arguments[20]),
        remote_rotations=_rotations(arguments[17:20], arguments[21]),
        max_time_us=arguments[6] * unit,
        local_weights=_weights(arguments, 2, 10),
        remote_weights=_weights(arguments, 3, 12),
        min_fidelity_percent=arguments[4],
        priority=arguments[7],
        atomic=_flag(arguments, 8, "atomic"),
        consecutive=_flag(arguments, 9, "consecutive"),
    )


def _choose(choices: Sequence[_T], index: int, what: str) -> _T:
    if not 0 <= index < len(choices):
        raise EntanglementRequestError(f"{what} {index} is outside 0..{len(choices) - 1}")
    return choices[index]


def _flag(arguments: Sequence[int], place: int, what: str) -> bool:
    if arguments[place] not in (0, 1):
        raise EntanglementRequestError(
            f"{what} (argument {place}) is {arguments[place]}; use 0 or 1"
        )
    return bool(arguments[place])


def _weights(arguments: Sequence[int], basis_place: int, place: int) -> Weights:
    weights = arguments[place], arguments[place + 1]
    if are_weights(arguments[basis_place], weights):
        return weights
    raise EntanglementRequestError(
        f"probabilities {weights} (arguments {place} and {place + 1}, units of 1/{WEIGHT_UNITS}) "
        f"do not fit random basis {arguments[basis_place]} (argument {basis_place}): each is in "
        f"0..{WEIGHT_UNITS - 1}, their sum at most {WEIGHT_UNITS}, and there must be as many "
        "bases left as there are numbers"
    )


def are_weights(random_basis: int, weights: Weights) -> bool:
    """Whether two numbers can be the probabilities of a random basis.

    The first belongs to the first basis; the second to the second of three. The last basis
    gets what is left.
    """
    first, second = weights
    given = max(len(RANDOM_BASES[random_basis]) - 1, 0)
    return (
        0 <= first < WEIGHT_UNITS
        and 0 <= second < WEIGHT_UNITS
        and first + second <= WEIGHT_UNITS
        and not any(weights[given:])
    )


def draw_basis(random_basis: int, weights: Weights, random_choice: Callable[[int], int]) -> int:
    """A basis of a random set.

    Args:
        random_basis: NetQASM's code of the set, not 0.
        weights: probabilities in units of 1/256; (0, 0): all bases are equally likely.
        random_choice: returns a random integer below its argument.

    Returns:
        The code of the basis.
    """
    bases = RANDOM_BASES[random_basis]
    if not any(weights):
        return bases[random_choice(len(bases))]
    drawn = random_choice(WEIGHT_UNITS)
    for basis, weight in zip(bases, weights, strict=False):
        if drawn < weight:
            return basis
        drawn -= weight
    return bases[-1]


def _rotations(angles: Sequence[int], axes_code: int) -> Rotations:
    axes = _choose(_AXES, axes_code, "rotation axes")
    return tuple(
        (axis, angle % ANGLE_STEPS)
        for axis, angle in zip(axes, angles, strict=True)
        if angle % ANGLE_STEPS
    )


def measured_basis(rotations: Rotations) -> int | None:
    """Basis code (Z, X or Y) that a measurement after these rotations amounts to.

    Returns None if it is none of the three. The sign of the axis does not matter: it
    inverts outcomes, but not which Bell states invert them.
    """
    axis = [0.0, 0.0, 1.0]
    for rotation_axis, steps in reversed(rotations):
        angle = -steps * 2 * pi / ANGLE_STEPS
        first, second = (int(rotation_axis) + 1) % 3, (int(rotation_axis) + 2) % 3
        axis[first], axis[second] = (
            cos(angle) * axis[first] - sin(angle) * axis[second],
            sin(angle) * axis[first] + cos(angle) * axis[second],
        )
    for basis, component in ((BASIS_X, axis[0]), (BASIS_Y, axis[1]), (BASIS_Z, axis[2])):
        if isclose(abs(component), 1.0, abs_tol=1e-9):
            return basis
    return None


_FLIPPED_BASES: Final[dict[BellState, frozenset[int]]] = {
    BellState.PHI_PLUS: frozenset(),
    BellState.PSI_PLUS: frozenset({BASIS_Z, BASIS_Y, BASIS_ZPLUSX, BASIS_ZMINUSX}),
    BellState.PSI_MINUS: frozenset({BASIS_Z, BASIS_X, BASIS_ZPLUSX, BASIS_ZMINUSX}),
    BellState.PHI_MINUS: frozenset({BASIS_X, BASIS_Y}),
}
_SWAPPED_BASES: Final = {BASIS_ZPLUSX: BASIS_ZMINUSX, BASIS_ZMINUSX: BASIS_ZPLUSX}
_SWAPPING_STATES: Final = frozenset({BellState.PSI_PLUS, BellState.PHI_MINUS})


def as_phi_plus(bell_state: BellState, basis: int, outcome: int) -> tuple[int, int]:
    """What the receiver's measurement says of a Phi+, had that been heralded.

    Each Bell state is Phi+ with a Pauli operator on one end: X for Psi+, Y for Psi-, Z for
    Phi-. Turning it through the measurement inverts the outcome where it anticommutes with
    the measured operator, and exchanges Z + X and Z - X where it does so with one of the two
    terms only.

    Args:
        bell_state: the state heralded.
        basis: code of the basis measured.
        outcome: 0 or 1.

    Returns:
        The outcome, and the basis it belongs to.
    """
    if basis in _FLIPPED_BASES[bell_state]:
        outcome ^= 1
    if bell_state in _SWAPPING_STATES:
        basis = _SWAPPED_BASES.get(basis, basis)
    return outcome, basis


def can_be_phi_plus(rotations: Rotations, random_basis: int) -> bool:
    """Whether a receiver that measures so can make the statistics those of Phi+.

    Both ends ask this of the receiver's basis, so that they tell their programs the same
    Bell state. A basis that the program fixed must stay, so it has to be a Pauli basis.
    """
    return bool(random_basis) or measured_basis(rotations) is not None


@dataclass(frozen=True, slots=True)
class PairResult:
    """What a program is told of one pair."""

    create_id: int
    sequence: int
    purpose: int
    remote_node: int
    is_receiver: bool
    duration_us: int
    bell_state: BellState

    def keep(self, virtual: int) -> list[int]:
        """The ten results of a kept pair."""
        return [
            0, self.create_id, virtual, int(self.is_receiver), self.sequence, self.purpose,
            self.remote_node, self.duration_us, 0, int(self.bell_state),
        ]  # fmt: skip

    def measured(self, outcome: int, basis: int) -> list[int]:
        """The ten results of a pair measured directly."""
        return [
            1, self.create_id, outcome, basis, int(self.is_receiver), self.sequence,
            self.purpose, self.remote_node, self.duration_us, int(self.bell_state),
        ]  # fmt: skip
