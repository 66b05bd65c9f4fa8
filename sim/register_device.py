"""A node with several qubits that answers frames from physics and durations (simulated).

Theory of operation
-------------------
`RegisterDevice.exchange` reports what is due, prepares its frame, then reads the frame of the
QNPU. A new instruction is carried out at once on the quantum state, and its outcome is kept until
the tick it is due; `state_of` therefore shows the state at the end of the running instruction.
That is exact, because operations of different nodes commute. Only readouts and Bell measurements
wait until they are due, and are done in the order of time, then of the names of their devices
(`Qubit.settle`), so that results do not depend on which node exchanges its frame first.

Every qubit decays by itself, with an age that counts from the end of its INI, from its herald,
from the end of its last readout, or from the move that brought its state there. The decay is
applied up to the start of every operation on the qubit; what happens to it during one is part of
the next. There are no decoupling blocks and no charge checks: `sim.nv_device` has those.

Qubits that met in a gate are one state of `PauliState.MAX_QUBITS` qubits at most, over all nodes,
until they are read out or initialised. Moving and swapping join nothing.

What the instructions do to qubits they leave behind: ENT and ENM destroy what the qubit held, and
a failure leaves it maximally mixed, as MOV leaves its source and ESW both its qubits. A qubit that
was never initialised is maximally mixed.

In a star (`RegisterPhysics.star`, an NV centre), TQG takes the communication qubit as the first,
MOV and SWP as one of their two qubits, and MSR as the only one; anything else is
UNSUPPORTED_REQUEST. An ESW of two memories is done through the communication qubit: a swap before
and one after, whose noise the communication qubit and the first memory get.

After an ESW of the near halves of two pairs, both in Phi+, the two far halves are in the Bell
state that the outcome names. At one of the two ends, whichever: X for Psi+, Z for Phi-, Y (that
is X and Z) for Psi- makes it Phi+ (`QDriver.correct`).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from qnodeos.errors import LimitError
from qnodeos.qdevice.capabilities import Capabilities
from qnodeos.qdevice.endpoint import FrameSlave
from qnodeos.qdevice.instructions import ANGLE_STEPS, Axis, Opcode, PhysicalInstruction
from qnodeos.qdevice.outcomes import OUTCOME_OF_HERALD, BellState, Outcome
from sim.charge import ChargeCheck
from sim.link import Batch, EntanglementLink
from sim.pauli import (
    Complex,
    PauliState,
    Qubit,
    Readout,
    controlled_rotation,
    depolarising,
    depolarising_pair,
    rotation,
)
from sim.register_physics import RegisterPhysics

MAX_PMG_ROTATIONS: Final = 8
"""Bound on the rotations a chain of PMG may store for a qubit."""
_ROTATIONS: Final = len(Axis) * ANGLE_STEPS
_LOCAL: Final = frozenset({Opcode.INI, Opcode.SQG, Opcode.MSR})
_PAIR: Final = frozenset({Opcode.TQG, Opcode.MOV, Opcode.SWP, Opcode.ESW})
_ENTANGLING: Final = frozenset({Opcode.ENT, Opcode.ENM, Opcode.PMG})
_BITS_OF_BELL: Final = {
    BellState.PHI_PLUS: (0, 0),
    BellState.PSI_PLUS: (1, 0),
    BellState.PHI_MINUS: (0, 1),
    BellState.PSI_MINUS: (1, 1),
}
"""Parities of Z and of X that a Bell measurement reads out: 0 for equal, 1 for different."""
_BELL_OF_BITS: Final = {bits: bell for bell, bits in _BITS_OF_BELL.items()}


class Held:
    """A qubit in a device, and how far it has decayed.

    Attributes:
        device: the device.
        address: physical address there.
        qubit: the handle of its state.
        origin_ns: when its state was created there.
        decayed_to_ns: until when its decay has been applied.
    """

    __slots__ = ("address", "decayed_to_ns", "device", "origin_ns", "qubit")

    def __init__(self, device: RegisterDevice, address: int, qubit: Qubit, origin_ns: int) -> None:
        self.device = device
        self.address = address
        self.take(qubit, origin_ns)

    def take(self, qubit: Qubit, origin_ns: int) -> None:
        """Hold another state from a time on."""
        self.qubit = qubit
        self.origin_ns = self.decayed_to_ns = origin_ns
        qubit.holder = self

    def decay(self, qubit: Qubit, time_ns: int) -> None:
        """Let the qubit, or a copy of it, decay until a time."""
        if time_ns <= self.decayed_to_ns:
            return
        physics = self.device.physics.of(self.address)
        coherence = physics.coherence_factor(
            self.decayed_to_ns - self.origin_ns, time_ns - self.origin_ns
        )
        population = physics.population_factor(time_ns - self.decayed_to_ns)
        if coherence != 1 or population != 1:
            qubit.apply(np.diag([1.0, coherence, coherence, population]))


class RegisterDevice:
    """One simulated node with several qubits: a `SimulatedQDevice`.

    Args:
        physics: the qubits, their errors and durations.
        links: the links to its neighbours; ENT names one by its place here.
        rng: decides about readouts of this device; give each device its own.
        name: for messages and reports. Give each device its own: readouts at the same tick are
            done in the order of the names.

    Attributes:
        on_wake: called with the tick of the next news when that changes outside `exchange`,
            which happens when a neighbour's request starts a batch.

    Raises:
        ValueError: physics and a link disagree about the length of a tick.
    """

    def __init__(
        self,
        physics: RegisterPhysics,
        links: Sequence[EntanglementLink],
        rng: random.Random,
        name: str = "register",
    ) -> None:
        for place, link in enumerate(links):
            if link.tick_ns != physics.tick_ns:
                raise ValueError(
                    f"{name}: a tick is {physics.tick_ns} ns on the device and {link.tick_ns} ns "
                    f"on its link {place}; make them equal"
                )
        self.name = name
        self.physics = physics
        self.on_wake: Callable[[int], None] | None = None
        communication = tuple(range(physics.communication_qubits))
        kind = "NV centre with carbon memories" if physics.star else "generic register"
        self._capabilities = Capabilities(
            name=f"{kind} (simulated, behavioural)",
            communication_qubits=communication,
            memory_qubits=tuple(range(len(communication), physics.qubits)),
            instructions=_LOCAL
            | (_PAIR if physics.qubits > 1 else frozenset())
            | (_ENTANGLING if links else frozenset()),
            tick_ns=physics.tick_ns,
            links=len(links),
            angle_halvings=physics.angle_halvings,
        )
        self._rng = rng
        self._ends = [link.attach(self._on_batch) for link in links]
        self._slave = FrameSlave()
        self._last_tick = -1

        self._due: int | None = None
        self._outcome = Outcome.UNKNOWN_FAILURE
        self._herald: BellState | None = None
        self._reading: Qubit | None = None
        self._request = PhysicalInstruction(Opcode.ENT)
        self._is_alone = False

        self._register: list[Held | None] = [None] * physics.qubits
        self._bases: dict[int, list[int]] = {}
        handlers: dict[Opcode, Callable[[int, PhysicalInstruction], None]] = {
            Opcode.INI: self._initialise,
            Opcode.SQG: self._rotate,
            Opcode.MSR: self._measure,
            Opcode.TQG: self._rotate_controlled,
            Opcode.MOV: self._move,
            Opcode.SWP: self._swap,
            Opcode.ESW: self._swap_entanglement,
            Opcode.ENT: self._entangle,
            Opcode.ENM: self._entangle,
            Opcode.PMG: self._set_basis,
        }
        self._handlers = {opcode: handlers[opcode] for opcode in self._capabilities.instructions}

    # --- the QDevice ------------------------------------------------------------------

    @property
    def capabilities(self) -> Capabilities:
        """What this device can do."""
        return self._capabilities

    def exchange(self, tick: int, frame: int) -> int:
        """Swap one 32-bit frame. Ticks of successive calls increase.

        Raises:
            LimitError: a gate joined more qubits than one state can have.
            ValueError: the tick is not later than that of the call before.
        """
        if tick <= self._last_tick:
            raise ValueError(f"{self.name}: exchange at tick {tick} after {self._last_tick}")
        self._last_tick = tick
        slave = self._slave
        if self._due is not None and self._due <= tick:
            self._finish()
        answer = slave.outgoing(tick)
        instruction = slave.incoming(frame)
        if instruction is not None:
            self._start(tick, instruction)
        return answer

    def next_tick(self) -> int | None:
        """First tick at which `exchange` has news without new input, None if never."""
        if self._due is not None:
            return self._due
        return self._last_tick + 1 if self._slave.has_news else None

    @property
    def waits_for_neighbour(self) -> bool:
        """Whether a request of a neighbour, if it came now, could change `next_tick`."""
        return self._is_alone

    # --- for experiments and inspection -------------------------------------------------

    @property
    def charge_checks(self) -> list[ChargeCheck]:
        """None: this device has no charge state."""
        return []

    def verify_charge(self, tick: int) -> bool:
        """Always passes, at any tick: this device has no charge state."""
        return True

    def qubit(self, address: int = 0, tick: int | None = None) -> Qubit:
        """A look at a qubit and all it shares a state with, which changes nothing.

        Args:
            address: physical address.
            tick: include this qubit's decay up to then; None: as the last operation left it.

        Returns:
            The handle of this qubit in a copy of the whole state.

        Raises:
            ValueError: no such address.
        """
        held = self._at(address)
        if held is None:
            return _mixed()
        copy = held.qubit.state.copy().qubits[held.qubit.index]
        if tick is not None:
            held.decay(copy, tick * self.physics.tick_ns)
        return copy

    def state_of(self, address: int = 0, tick: int | None = None) -> Complex:
        """Density matrix of one qubit, shape (2, 2); arguments as for `qubit`."""
        return self.qubit(address, tick).reduced().density_matrix()

    def entangled_with(self, address: int) -> list[tuple[RegisterDevice, int]]:
        """The qubits of all nodes that share a state with a qubit, itself first.

        Those that met it in gates are among them even if the gates left no entanglement.

        Raises:
            ValueError: no such address.
        """
        held = self._at(address)
        if held is None:
            return [(self, address)]
        holders = [qubit.holder for qubit in held.qubit.state.qubits]
        others = [
            (holder.device, holder.address)
            for holder in holders
            if isinstance(holder, Held) and holder is not held
        ]
        return [(self, address), *sorted(others, key=lambda half: (half[0].name, half[1]))]

    def held(self, address: int) -> Held | None:
        """What a physical address holds, None if nothing was prepared; for `joint_state`."""
        return self._at(address)

    # --- instructions -------------------------------------------------------------------

    def _start(self, tick: int, instruction: PhysicalInstruction) -> None:
        opcode, _, qubit, other = instruction
        handler = self._handlers.get(opcode)
        qubits = len(self._register)
        if handler is None:
            self._refuse(tick)
        elif qubit >= qubits or (opcode in _PAIR and (other >= qubits or other == qubit)):
            self._complete_at(tick + 1, Outcome.INVALID_QUBIT)
        elif self._can(instruction):
            handler(tick, instruction)
        else:
            self._refuse(tick)

    def _can(self, instruction: PhysicalInstruction) -> bool:
        """Whether these qubits have that operation, and the angle or link exists."""
        opcode, argument, qubit, other = instruction
        physics = self.physics
        communicates = qubit < physics.communication_qubits
        if opcode is Opcode.SQG:
            return argument < _ROTATIONS and other <= physics.angle_halvings
        if opcode is Opcode.TQG:
            return argument < _ROTATIONS and (communicates or not physics.star)
        if opcode in (Opcode.MOV, Opcode.SWP):
            return not physics.star or 0 in (qubit, other)
        if opcode in (Opcode.ENT, Opcode.ENM):
            return communicates and argument < len(self._ends)
        if opcode in (Opcode.MSR, Opcode.PMG):
            return communicates
        return True

    def _initialise(self, tick: int, instruction: PhysicalInstruction) -> None:
        address = instruction.qubit
        physics = self.physics.of(address)
        self._release(address)
        done = tick + physics.initialise_ticks
        state = PauliState.from_populations(1 - physics.initialisation_error)
        self._hold(address, state.qubits[0], done)
        self._complete_at(done, Outcome.SUCCESS_ZERO)

    def _rotate(self, tick: int, instruction: PhysicalInstruction) -> None:
        address = instruction.qubit
        self._turn(tick, address, instruction.argument, instruction.halvings)
        done = tick + self.physics.of(address).gate_ticks
        self._complete_at(done, Outcome.SUCCESS_ZERO)

    def _rotate_controlled(self, tick: int, instruction: PhysicalInstruction) -> None:
        first, second = self._pair(tick, instruction)
        _join(first.qubit, second.qubit)
        state = first.qubit.state
        gate = controlled_rotation(instruction.axis, instruction.steps)
        state.apply_pair(first.qubit.index, second.qubit.index, gate)
        self._depolarise_pair(first, second)
        self._complete_at(tick + self.physics.pair_gate_ticks, Outcome.SUCCESS_ZERO)

    def _move(self, tick: int, instruction: PhysicalInstruction) -> None:
        source, _ = self._pair(tick, instruction)
        self._release(instruction.other)
        self._register[instruction.qubit] = None
        self._hold(instruction.other, source.qubit, tick)
        _depolarise(source.qubit, self.physics.move_depolarising)
        self._complete_at(tick + self.physics.move_ticks, Outcome.SUCCESS_ZERO)

    def _swap(self, tick: int, instruction: PhysicalInstruction) -> None:
        first, second = self._pair(tick, instruction)
        time_ns = tick * self.physics.tick_ns
        qubit = first.qubit
        first.take(second.qubit, time_ns)
        second.take(qubit, time_ns)
        for held in (first, second):
            _depolarise(held.qubit, self.physics.swap_depolarising)
        self._complete_at(tick + self.physics.swap_ticks, Outcome.SUCCESS_ZERO)

    def _swap_entanglement(self, tick: int, instruction: PhysicalInstruction) -> None:
        physics = self.physics
        first, second = self._pair(tick, instruction)
        done = tick + physics.entanglement_swap_ticks
        if physics.star and 0 not in (first.address, second.address):
            _depolarise(first.qubit, physics.swap_depolarising)
            for _ in range(2):
                _depolarise(self._ready(tick, 0).qubit, physics.swap_depolarising)
            done += 2 * physics.swap_ticks
        _join(first.qubit, second.qubit)
        self._depolarise_pair(first, second)

        def read_out() -> None:
            self._outcome = OUTCOME_OF_HERALD[self._find_bell(first, second)]

        self._read_at(done, first.qubit, read_out)

    def _measure(self, tick: int, instruction: PhysicalInstruction) -> None:
        self._read_out_from(tick, self._ready(tick, instruction.qubit))

    def _set_basis(self, tick: int, instruction: PhysicalInstruction) -> None:
        argument, append = instruction.argument, instruction.other
        basis = self._bases.get(instruction.qubit, []) if append else []
        if argument >= _ROTATIONS or append > 1 or len(basis) >= MAX_PMG_ROTATIONS:
            self._refuse(tick)
            return
        self._bases[instruction.qubit] = [*basis, argument] if instruction.steps else basis
        self._complete_at(tick + 1, Outcome.SUCCESS_ZERO)

    def _entangle(self, tick: int, instruction: PhysicalInstruction) -> None:
        self._release(instruction.qubit)
        self._request = instruction
        answer = self._ends[instruction.argument].request(tick, tick)
        if isinstance(answer, Batch):
            self._take(answer)
        else:
            self._is_alone = True
            self._complete_at(answer, Outcome.ENTANGLEMENT_SYNC_FAILURE)

    # --- the links ----------------------------------------------------------------------

    def _on_batch(self, batch: Batch) -> None:
        self._take(batch)
        if self.on_wake is not None and self._due is not None:
            self.on_wake(self._due)

    def _take(self, batch: Batch) -> None:
        self._is_alone = False
        if batch.qubit is None or batch.bell is None:
            self._complete_at(batch.tick, Outcome.ENTANGLEMENT_FAILURE)
            return
        address, tick = self._request.qubit, batch.tick
        held = self._hold(address, batch.qubit, tick)
        if self._request.opcode is Opcode.ENT:
            self._complete_at(tick, OUTCOME_OF_HERALD[batch.bell])
            return
        for argument in self._bases.get(address, []):
            self._turn(tick, address, argument, halvings=0)
            tick += self.physics.communication.gate_ticks
        held.decay(held.qubit, tick * self.physics.tick_ns)
        self._read_out_from(tick, held, batch.bell)

    # --- physics ------------------------------------------------------------------------

    def _at(self, address: int) -> Held | None:
        if not 0 <= address < len(self._register):
            raise ValueError(f"{self.name} has qubits 0..{len(self._register) - 1}, not {address}")
        return self._register[address]

    def _hold(self, address: int, qubit: Qubit, tick: int) -> Held:
        """Take over a qubit whose age counts from a tick."""
        held = Held(self, address, qubit, tick * self.physics.tick_ns)
        self._register[address] = held
        return held

    def _release(self, address: int) -> None:
        held = self._register[address]
        if held is not None:
            held.qubit.discard()
            self._register[address] = None

    def _ready(self, tick: int, address: int) -> Held:
        """A qubit, decayed up to a tick; maximally mixed if nothing has been prepared."""
        held = self._register[address]
        if held is None:
            return self._hold(address, _mixed(), tick)
        time_ns = tick * self.physics.tick_ns
        held.decay(held.qubit, time_ns)
        held.decayed_to_ns = max(held.decayed_to_ns, time_ns)
        return held

    def _pair(self, tick: int, instruction: PhysicalInstruction) -> tuple[Held, Held]:
        return self._ready(tick, instruction.qubit), self._ready(tick, instruction.other)

    def _turn(self, tick: int, address: int, argument: int, halvings: int) -> None:
        qubit = self._ready(tick, address).qubit
        axis, steps = Axis(argument // ANGLE_STEPS), argument % ANGLE_STEPS
        qubit.apply(rotation(axis, steps, halvings))
        _depolarise(qubit, self.physics.of(address).gate_depolarising)

    def _depolarise_pair(self, first: Held, second: Held) -> None:
        """The noise of a gate on two qubits of one state."""
        probability = self.physics.pair_depolarising
        if probability:
            noise = depolarising_pair(probability)
            first.qubit.state.apply_pair(first.qubit.index, second.qubit.index, noise)

    def _read_out_from(self, tick: int, held: Held, herald: BellState | None = None) -> None:
        """Begin a readout at a tick."""
        done = tick + self.physics.communication.measure_ticks

        def read_out() -> None:
            bit = held.qubit.measure(self._rng.random())
            self._hold(held.address, PauliState.from_populations(1 - bit).qubits[0], done)
            reported = self._reported(bit)
            self._outcome = Outcome.SUCCESS_ONE if reported else Outcome.SUCCESS_ZERO

        self._read_at(done, held.qubit, read_out, herald)

    def _find_bell(self, first: Held, second: Held) -> BellState:
        """Read out in which Bell state two qubits are, which are mixed afterwards."""
        state = first.qubit.state
        found = state.measure_bell(first.qubit.index, second.qubit.index, self._rng.random())
        self._register[first.address] = self._register[second.address] = None
        parity, phase = _BITS_OF_BELL[found]
        return _BELL_OF_BITS[self._reported(parity), self._reported(phase)]

    def _reported(self, bit: int) -> int:
        """What a readout reports for a bit."""
        physics = self.physics.communication
        correct = physics.readout_fidelity_1 if bit else physics.readout_fidelity_0
        return bit if self._rng.random() < correct else 1 - bit

    def _read_at(
        self,
        done: int,
        qubit: Qubit,
        read_out: Callable[[], None],
        herald: BellState | None = None,
    ) -> None:
        """Have a measurement done when it is due, or before if a partner's comes later."""

        def carry_out() -> None:
            self._reading = None
            read_out()

        qubit.readout = Readout(done, carry_out, self.name)
        self._reading = qubit
        self._complete_at(done, Outcome.UNKNOWN_FAILURE, herald)

    # --- outcomes -----------------------------------------------------------------------

    def _refuse(self, tick: int) -> None:
        self._complete_at(tick + 1, Outcome.UNSUPPORTED_REQUEST)

    def _complete_at(self, tick: int, outcome: Outcome, herald: BellState | None = None) -> None:
        self._due = tick
        self._outcome = outcome
        self._herald = herald

    def _finish(self) -> None:
        if self._reading is not None:
            self._reading.settle()
        self._due = None
        self._is_alone = False
        self._slave.complete(self._outcome, self._herald)


def joint_state(halves: Sequence[tuple[RegisterDevice, int]], tick: int) -> PauliState:
    """The state of any qubits of any devices as it is at a tick; a copy.

    Qubits that share no state are in a product.

    Args:
        halves: device and physical address of each qubit.
        tick: their decay is included up to then.

    Returns:
        The state, its qubits in the order of ``halves``.

    Raises:
        LimitError: more qubits than one state can have.
        ValueError: no qubit, no such address, or one qubit twice.
    """
    if len({(id(device), address) for device, address in halves}) != len(halves) or not halves:
        raise ValueError("a joint state is of one qubit or more, each of them once")
    places: dict[int, list[int]] = {}
    for place, (device, address) in enumerate(halves):
        held = device.held(address)
        key = -1 - place if held is None else id(held.qubit.state)
        places.setdefault(key, []).append(place)
    joined: PauliState | None = None
    order: list[int] = []
    for group in places.values():
        part = _part([halves[place] for place in group], tick)
        order += group
        if joined is None:
            joined = part
        else:
            joined.absorb(part)
    assert joined is not None
    return joined.reduced(*(order.index(place) for place in range(len(halves))))


def _part(halves: Sequence[tuple[RegisterDevice, int]], tick: int) -> PauliState:
    """The state of qubits that share one, as it is at a tick; a copy."""
    stored = [device.held(address) for device, address in halves]
    held = [one for one in stored if one is not None]
    if not held:
        return _mixed().state
    copy = held[0].qubit.state.copy()
    for one in held:
        one.decay(copy.qubits[one.qubit.index], tick * one.device.physics.tick_ns)
    return copy.reduced(*(one.qubit.index for one in held))


def _mixed() -> Qubit:
    return PauliState.from_populations(0.5).qubits[0]


def _depolarise(qubit: Qubit, probability: float) -> None:
    if probability:
        qubit.apply(depolarising(probability))


def _join(first: Qubit, second: Qubit) -> None:
    """Make two qubits parts of one state."""
    if first.state is second.state:
        return
    try:
        first.state.absorb(second.state)
    except LimitError as error:
        raise LimitError(
            f"a gate would join more qubits, over all nodes, than can be simulated: {error}; "
            "measure or initialise qubits that are no longer needed"
        ) from error
