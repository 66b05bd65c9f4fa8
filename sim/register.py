"""The quantum state of the qubits of one node, and what befalls it (simulated).

`Register` holds the qubits of `sim.register_device`: it lets them decay, carries out operations
with their noise, and reads them out. When things happen is its caller's business.

Every qubit decays by itself, with an age that counts from its creation: the end of an INI, a
herald, the end of a readout, or the move that brought its state there. Decay is applied up to
the start of every operation on the qubit; what happens to it during one is part of the next.

Qubits that met in a gate are one `PauliState`, over all nodes, until they are read out or
initialised. Moving and swapping join nothing. A qubit in which nothing was prepared is maximally
mixed.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final

import numpy as np

from qnodeos.errors import LimitError
from qnodeos.qdevice.instructions import Axis
from qnodeos.qdevice.outcomes import BellState
from sim.pauli import (
    PauliState,
    Qubit,
    controlled_rotation,
    depolarising,
    depolarising_pair,
    rotation,
)
from sim.register_physics import QubitPhysics, RegisterPhysics

_BITS_OF_BELL: Final = {
    BellState.PHI_PLUS: (0, 0),
    BellState.PSI_PLUS: (1, 0),
    BellState.PHI_MINUS: (0, 1),
    BellState.PSI_MINUS: (1, 1),
}
"""Parities of Z and of X that a Bell measurement reads out: 0 for equal, 1 for different."""
_BELL_OF_BITS: Final = {bits: bell for bell, bits in _BITS_OF_BELL.items()}


class Held:
    """A qubit of a register, and how far it has decayed.

    Attributes:
        register: whose it is.
        address: physical address there.
        qubit: the handle of its state.
    """

    __slots__ = ("_decayed_to_ns", "_origin_ns", "_physics", "address", "qubit", "register")

    def __init__(self, register: Register, address: int, qubit: Qubit, origin_ns: int) -> None:
        self.register = register
        self.address = address
        self._physics: QubitPhysics = register.physics.of(address)
        self.take(qubit, origin_ns)

    def take(self, qubit: Qubit, origin_ns: int) -> None:
        """Hold another state, whose age counts from a time."""
        self.qubit = qubit
        self._origin_ns = self._decayed_to_ns = origin_ns
        qubit.holder = self

    def decay(self, time_ns: int) -> None:
        """Let the qubit decay until a time."""
        self.decay_copy(self.qubit, time_ns)
        self._decayed_to_ns = max(self._decayed_to_ns, time_ns)

    def decay_copy(self, qubit: Qubit, time_ns: int) -> None:
        """Do the same to another qubit in the same state, such as one in a copy."""
        if time_ns <= self._decayed_to_ns:
            return
        origin_ns = self._origin_ns
        coherence = self._physics.coherence_factor(
            self._decayed_to_ns - origin_ns, time_ns - origin_ns
        )
        population = self._physics.population_factor(time_ns - self._decayed_to_ns)
        if coherence != 1 or population != 1:
            qubit.apply(np.diag([1.0, coherence, coherence, population]))


class Register:
    """The qubits of one node.

    Args:
        physics: their errors and decay.
        rng: decides about readouts.
        name: of the node, for messages.
        owner: the device, for those who look at a state of several.
    """

    def __init__(
        self, physics: RegisterPhysics, rng: random.Random, name: str, owner: object = None
    ) -> None:
        self.physics = physics
        self.name = name
        self.owner = owner
        self._rng = rng
        self._held: list[Held | None] = [None] * physics.qubits

    # --- what is there --------------------------------------------------------------------

    def at(self, address: int) -> Held | None:
        """What an address holds; None if nothing has been prepared.

        Raises:
            ValueError: no such address.
        """
        if not 0 <= address < len(self._held):
            raise ValueError(f"{self.name} has qubits 0..{len(self._held) - 1}, not {address}")
        return self._held[address]

    def ready(self, address: int, time_ns: int) -> Held:
        """A qubit, decayed up to a time; maximally mixed if nothing has been prepared."""
        held = self._held[address]
        if held is None:
            return self.hold(address, mixed(), time_ns)
        held.decay(time_ns)
        return held

    def hold(self, address: int, qubit: Qubit, origin_ns: int) -> Held:
        """Take over a qubit whose age counts from a time."""
        held = self._held[address] = Held(self, address, qubit, origin_ns)
        return held

    def release(self, address: int) -> None:
        """Forget what a qubit holds."""
        held = self._held[address]
        if held is not None:
            held.qubit.discard()
            self._held[address] = None

    # --- operations -----------------------------------------------------------------------

    def initialise(self, address: int, origin_ns: int) -> None:
        """|0> from a time on, if it works."""
        self.release(address)
        error = self.physics.of(address).initialisation_error
        self.hold(address, PauliState.from_populations(1 - error).qubits[0], origin_ns)

    def rotate(self, address: int, axis: Axis, steps: int, halvings: int, time_ns: int) -> None:
        """Rotate a qubit by ``steps`` * pi/16 / 2**``halvings``."""
        qubit = self.ready(address, time_ns).qubit
        qubit.apply(rotation(axis, steps, halvings))
        _depolarise(qubit, self.physics.of(address).gate_depolarising)

    def rotate_controlled(
        self, first: int, second: int, axis: Axis, steps: int, time_ns: int
    ) -> None:
        """NV's two-qubit gate: rotate the second by +angle if the first is |0>, else by -angle.

        Raises:
            LimitError: the two states together are too large.
        """
        one, other = self.ready(first, time_ns).qubit, self.ready(second, time_ns).qubit
        _join(one, other)
        one.state.apply_pair(one.index, other.index, controlled_rotation(axis, steps))
        self._depolarise_pair(one, other)

    def move(self, source: int, target: int, time_ns: int) -> None:
        """Bring a state to another qubit, whose own is lost; the source is mixed afterwards."""
        held = self.ready(source, time_ns)
        self.release(target)
        self._held[source] = None
        self.hold(target, held.qubit, time_ns)
        _depolarise(held.qubit, self.physics.move_depolarising)

    def swap(self, first: int, second: int, time_ns: int) -> None:
        """Exchange the states of two qubits."""
        one, other = self.ready(first, time_ns), self.ready(second, time_ns)
        qubit = one.qubit
        one.take(other.qubit, time_ns)
        other.take(qubit, time_ns)
        for held in (one, other):
            _depolarise(held.qubit, self.physics.swap_depolarising)

    def begin_bell(self, first: int, second: int, time_ns: int) -> tuple[Held, Held]:
        """The part of a Bell measurement that acts on one qubit each; `read_bell` does the rest.

        Two memories of a star are measured through the communication qubit: a swap before and
        one after, whose noise the communication qubit and the first memory get.
        """
        one, other = self.ready(first, time_ns), self.ready(second, time_ns)
        if self.physics.star and 0 not in (first, second):
            middle = self.ready(0, time_ns)
            for held in (one, middle, middle):
                _depolarise(held.qubit, self.physics.swap_depolarising)
        return one, other

    # --- readouts -------------------------------------------------------------------------

    def read(self, held: Held, done_ns: int) -> int:
        """Read a qubit out and hold the state it is projected to; what is reported."""
        bit = held.qubit.measure(self._rng.random())
        self.hold(held.address, PauliState.from_populations(1 - bit).qubits[0], done_ns)
        return self._reported(bit)

    def read_bell(self, one: Held, other: Held) -> BellState:
        """Read out in which Bell state two qubits are, which are mixed afterwards.

        Their states are joined now and not before, so that all nodes of a chain can do this at
        the same time.

        Raises:
            LimitError: the two states together are too large.
        """
        _join(one.qubit, other.qubit)
        self._depolarise_pair(one.qubit, other.qubit)
        found = one.qubit.state.measure_bell(one.qubit.index, other.qubit.index, self._rng.random())
        self._held[one.address] = self._held[other.address] = None
        parity, phase = _BITS_OF_BELL[found]
        return _BELL_OF_BITS[self._reported(parity), self._reported(phase)]

    def _reported(self, bit: int) -> int:
        """What a readout reports for a bit."""
        physics = self.physics.communication
        correct = physics.readout_fidelity_1 if bit else physics.readout_fidelity_0
        return bit if self._rng.random() < correct else 1 - bit

    def _depolarise_pair(self, one: Qubit, other: Qubit) -> None:
        """The noise of a gate on two qubits of one state."""
        probability = self.physics.pair_depolarising
        if probability:
            one.state.apply_pair(one.index, other.index, depolarising_pair(probability))


def joint_state(halves: Sequence[tuple[Register, int]], time_ns: int) -> PauliState:
    """The state of any qubits of any registers as it is at a time; a copy.

    Qubits that share no state are in a product.

    Args:
        halves: register and physical address of each qubit.
        time_ns: their decay is included up to then.

    Returns:
        The state, its qubits in the order of ``halves``.

    Raises:
        LimitError: more qubits than one state can have.
        ValueError: no qubit, no such address, or one qubit twice.
    """
    if len({(id(register), address) for register, address in halves}) != len(halves) or not halves:
        raise ValueError("a joint state is of one qubit or more, each of them once")
    groups: dict[int, list[int]] = {}
    qubits = [_present(register, address) for register, address in halves]
    for place, (_, qubit) in enumerate(qubits):
        groups.setdefault(id(qubit.state), []).append(place)
    order: list[int] = []
    joined: PauliState | None = None
    for places in groups.values():
        copy = qubits[places[0]][1].state.copy()
        indices = [qubits[place][1].index for place in places]
        for place, index in zip(places, indices, strict=True):
            held = qubits[place][0]
            if held is not None:
                held.decay_copy(copy.qubits[index], time_ns)
        part = copy.reduced(*indices)
        order += places
        if joined is None:
            joined = part
        else:
            joined.absorb(part)
    assert joined is not None  # there is one qubit at least
    return joined.reduced(*(order.index(place) for place in range(len(halves))))


def _present(register: Register, address: int) -> tuple[Held | None, Qubit]:
    held = register.at(address)
    return (None, mixed()) if held is None else (held, held.qubit)


def mixed() -> Qubit:
    """A qubit of which nothing is known."""
    return PauliState.from_populations(0.5).qubits[0]


def _depolarise(qubit: Qubit, probability: float) -> None:
    if probability:
        qubit.apply(depolarising(probability))


def _join(one: Qubit, other: Qubit) -> None:
    """Make two qubits parts of one state."""
    if one.state is other.state:
        return
    try:
        one.state.absorb(other.state)
    except LimitError as error:
        raise LimitError(
            f"a gate would join more qubits, over all nodes, than can be simulated: {error}; "
            "measure or initialise qubits that are no longer needed"
        ) from error
