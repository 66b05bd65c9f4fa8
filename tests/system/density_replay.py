"""What noisy applications should give, from density matrices.

The physical instructions that simulated devices were given are written down (`record`) and done
again on complex density matrices (`joint_probabilities`, `final_state`): a second implementation
of the model of `sim.register_device`, which has nothing in common with it but the numbers of
`RegisterPhysics` and of the protocols. It knows waiting times from the ticks written down, and of
measurements nothing but what was reported.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from qnodeos.qdevice.instructions import Opcode, PhysicalInstruction
from qnodeos.qdevice.outcomes import BellState, Outcome
from sim.entangled_state import PerfectProtocol, SinglePhotonProtocol, WernerProtocol
from sim.register_physics import RegisterPhysics

Key = tuple[str, int]
"""Name of a node and physical address of a qubit there."""

SIGMA = (
    np.array([[0, 1], [1, 0]], dtype=complex),
    np.array([[0, -1j], [1j, 0]]),
    np.diag([1, -1]).astype(complex),
)
BELL = {
    BellState.PHI_PLUS: np.array([1, 0, 0, 1]) / math.sqrt(2),
    BellState.PSI_PLUS: np.array([0, 1, 1, 0]) / math.sqrt(2),
    BellState.PSI_MINUS: np.array([0, 1, -1, 0]) / math.sqrt(2),
    BellState.PHI_MINUS: np.array([1, 0, 0, -1]) / math.sqrt(2),
}
NS_PER_MS = 1e6


class Step(NamedTuple):
    """One physical instruction, as a device carried it out."""

    node: str
    begun: int
    done: int
    instruction: PhysicalInstruction
    outcome: Outcome
    herald: BellState | None


class Pairing(NamedTuple):
    """What a link of a node leads to."""

    neighbour: str
    protocol: object
    is_first: bool


@dataclass
class Tape:
    """What the devices of a network were told, and what is needed to do it again."""

    physics: Mapping[str, RegisterPhysics]
    links: Mapping[tuple[str, int], Pairing]
    steps: list[Step] = field(default_factory=list)

    def ordered(self) -> list[Step]:
        """The steps in the order in which they take effect; of one node, as they were done."""
        reads = {Opcode.MSR, Opcode.ESW, Opcode.ENT, Opcode.ENM}
        return sorted(
            self.steps,
            key=lambda step: step.done if step.instruction.opcode in reads else step.begun,
        )

    def readouts(self, node: str | None = None) -> list[Step]:
        """The measurements that were completed, in order; of one node, or of all."""
        return [
            step
            for step in self.ordered()
            if _reads_out(step) and (node is None or step.node == node)
        ]


def _reads_out(step: Step) -> bool:
    success = step.outcome in (Outcome.SUCCESS_ZERO, Outcome.SUCCESS_ONE)
    return success and step.instruction.opcode in (Opcode.MSR, Opcode.ENM)


def record(system) -> Tape:
    """Write down what the devices of a network are told from now on."""
    description = system.description
    links = {}
    for name in description.nodes:
        for number, (neighbour, link) in enumerate(description.neighbours(name).items()):
            order = list(description.nodes)
            is_first = order.index(name) < order.index(neighbour)
            links[name, number] = Pairing(neighbour, link.link.protocol, is_first)
    tape = Tape({name: handles.device.physics for name, handles in system.nodes.items()}, links)
    for name, handles in system.nodes.items():
        _listen(tape, name, handles.device)
    return tape


def _listen(tape: Tape, name: str, device) -> None:
    """Put ourselves between the frames of a device and what it does."""
    start, finish = device._start, device._finish
    running: list[tuple[int, PhysicalInstruction]] = []

    def started(tick, instruction):
        running[:] = [(tick, instruction)]
        start(tick, instruction)

    def finished():
        done = device._due
        finish()
        begun, instruction = running[0]
        tape.steps.append(Step(name, begun, done, instruction, device._outcome, device._herald))

    device._start, device._finish = started, finished


# --- density matrices -----------------------------------------------------------------


class Group(NamedTuple):
    """Qubits in a state of their own: a matrix of shape (2,) * 2n, rows before columns."""

    keys: tuple[Key, ...]
    rho: np.ndarray

    @property
    def weight(self) -> float:
        size = 2 ** len(self.keys)
        return float(np.trace(self.rho.reshape(size, size)).real)


class World:
    """All qubits there are, and since when; states are replaced, never changed."""

    def __init__(self, tape: Tape) -> None:
        self.tape = tape
        self.groups: dict[Key, Group] = {}
        self.origin: dict[Key, int] = {}
        self.decayed: dict[Key, int] = {}
        self.bases: dict[Key, tuple[PhysicalInstruction, ...]] = {}
        self.weight = 1.0

    def copy(self) -> World:
        other = World(self.tape)
        for name in ("groups", "origin", "decayed", "bases"):
            setattr(other, name, dict(getattr(self, name)))
        other.weight = self.weight
        return other

    def set(self, keys: Sequence[Key], rho: np.ndarray) -> None:
        group = Group(tuple(keys), rho)
        for key in keys:
            self.groups[key] = group

    def put(self, keys: Sequence[Key], matrix: np.ndarray, tick: int) -> None:
        """Make a new state of qubits whose age counts from a tick."""
        for key in keys:
            self.forget(key)
        self.set(keys, matrix.astype(complex).reshape((2,) * (2 * len(keys))))
        for key in keys:
            self.origin[key] = self.decayed[key] = tick

    def forget(self, key: Key) -> None:
        group = self.groups.pop(key, None)
        if group is None:
            return
        place, count = group.keys.index(key), len(group.keys)
        rest = tuple(other for other in group.keys if other != key)
        traced = np.trace(group.rho, axis1=place, axis2=place + count)
        if rest:
            self.set(rest, traced)
        else:
            self.weight *= float(traced.real)

    def of(self, key: Key, tick: int) -> Group:
        if key not in self.groups:
            self.put([key], np.eye(2) / 2, tick)
        return self.groups[key]

    def join(self, one: Key, other: Key) -> None:
        first, second = self.groups[one], self.groups[other]
        if first is second:
            return
        n, m = len(first.keys), len(second.keys)
        product = np.multiply.outer(first.rho, second.rho)
        order = [*range(n), *range(2 * n, 2 * n + m), *range(n, 2 * n)]
        order += range(2 * n + m, 2 * n + 2 * m)
        self.set(first.keys + second.keys, product.transpose(order))

    def apply(self, operators: Sequence[np.ndarray], *keys: Key) -> None:
        """Kraus operators on some qubits of one state."""
        group = self.groups[keys[0]]
        count, acted = len(group.keys), len(keys)
        rows = [group.keys.index(key) for key in keys]
        columns = [count + row for row in rows]
        total = np.zeros_like(group.rho)
        for operator in operators:
            shaped = operator.reshape((2,) * (2 * acted))
            inner = range(acted, 2 * acted)
            left = np.tensordot(shaped, group.rho, axes=(inner, rows))
            left = np.moveaxis(left, range(acted), rows)
            both = np.tensordot(shaped.conj(), left, axes=(inner, columns))
            total = total + np.moveaxis(both, range(acted), columns)
        self.set(group.keys, total)

    def age(self, key: Key, tick: int) -> None:
        """Let a qubit decay until a tick."""
        self.of(key, tick)
        before, origin = self.decayed[key], self.origin[key]
        if tick <= before:
            return
        physics = self.tape.physics[key[0]]
        kind = physics.of(key[1])
        ms = physics.tick_ns / NS_PER_MS
        exponent = kind.coherence_exponent
        phase = math.exp(
            ((before - origin) * ms / kind.coherence_time_ms) ** exponent
            - ((tick - origin) * ms / kind.coherence_time_ms) ** exponent
        )
        population = math.exp(-(tick - before) * ms / kind.relaxation_time_ms)
        if phase < 1 or population < 1:
            self.apply(_decay(phase, population), key)
        self.decayed[key] = tick


def _decay(phase: float, population: float) -> list[np.ndarray]:
    """Kraus operators that keep so much of the coherences and of the populations' difference."""
    weights = (
        (1 + population + 2 * phase) / 4,
        (1 - population) / 4,
        (1 - population) / 4,
        (1 + population - 2 * phase) / 4,
    )
    return [
        math.sqrt(max(weight, 0.0)) * matrix
        for weight, matrix in zip(weights, (np.eye(2), *SIGMA), strict=True)
        if weight > 0
    ]


def _depolarising(probability: float, qubits: int) -> list[np.ndarray]:
    """Kraus operators of rho -> (1 - p) rho + p I / 2**n."""
    basis = [np.eye(2), *SIGMA]
    strings = basis if qubits == 1 else [np.kron(one, other) for one in basis for other in basis]
    share = probability / len(strings)
    weights = [1 - probability + share, *[share] * (len(strings) - 1)]
    return [math.sqrt(weight) * string for weight, string in zip(weights, strings, strict=True)]


def _rotation(instruction: PhysicalInstruction, sign: int = 1) -> np.ndarray:
    half = sign * instruction.steps * math.pi / 16 / 2**instruction.halvings / 2
    matrix: np.ndarray = math.cos(half) * np.eye(2) - 1j * math.sin(half) * SIGMA[instruction.axis]
    return matrix


def pair_state(protocol, bell: BellState) -> np.ndarray:
    """State of both spins after a herald, from the populations of the protocol."""
    ket = BELL[bell]
    if isinstance(protocol, PerfectProtocol):
        return np.outer(ket, ket.conj())
    if isinstance(protocol, WernerProtocol):
        mixed = (1 - protocol.fidelity) / 3 * 4
        return (1 - mixed) * np.outer(ket, ket.conj()) + mixed * np.eye(4) / 4
    assert isinstance(protocol, SinglePhotonProtocol)
    a, b = protocol.alpha_a, protocol.alpha_b
    p_a, p_b = protocol.p_det_a, protocol.p_det_b
    dark = -math.expm1(-2 * protocol.dark_rate_hz * protocol.window_ns * 1e-9)
    populations = np.array(
        [
            a * b * ((1 - dark) * (p_a + p_b - p_a * p_b) + dark * (1 - p_a) * (1 - p_b)),
            a * (1 - b) * ((1 - dark) * p_a + dark * (1 - p_a)),
            (1 - a) * b * ((1 - dark) * p_b + dark * (1 - p_b)),
            (1 - a) * (1 - b) * dark,
        ]
    )
    contrast = (
        math.sqrt(protocol.visibility)
        * math.exp(-(math.radians(protocol.phase_sd_deg) ** 2) / 2)
        * (1 - protocol.double_excitation)
    )
    coherence = math.sqrt(a * (1 - b) * p_a * (1 - a) * b * p_b) * (1 - dark) * contrast
    rho = np.diag(populations).astype(complex)
    rho[1, 2] = (1 if bell is BellState.PSI_PLUS else -1) * coherence
    rho[1, 2] *= np.exp(1j * protocol.phase_offset_rad)
    rho[2, 1] = rho[1, 2].conj()
    normalised: np.ndarray = rho / populations.sum()
    return normalised


# --- instructions ---------------------------------------------------------------------


def _one_step(world: World, step: Step, partners: Mapping[int, Step]) -> None:
    """Everything but readouts."""
    node, instruction = step.node, step.instruction
    physics = world.tape.physics[node]
    key, second = (node, instruction.qubit), (node, instruction.other)
    kind = physics.of(instruction.qubit)
    opcode, tick = instruction.opcode, step.begun
    if opcode is Opcode.INI:
        error = kind.initialisation_error
        world.put([key], np.diag([1 - error, error]), step.done)
    elif opcode is Opcode.SQG:
        world.age(key, tick)
        world.apply([_rotation(instruction)], key)
        world.apply(_depolarising(kind.gate_depolarising, 1), key)
    elif opcode is Opcode.TQG:
        world.age(key, tick)
        world.age(second, tick)
        world.join(key, second)
        gate = np.zeros((4, 4), dtype=complex)
        gate[:2, :2], gate[2:, 2:] = _rotation(instruction), _rotation(instruction, -1)
        world.apply([gate], key, second)
        world.apply(_depolarising(physics.pair_depolarising, 2), key, second)
    elif opcode is Opcode.MOV:
        world.age(key, tick)
        world.forget(second)
        _rename(world, {key: second})
        world.origin[second] = world.decayed[second] = tick
        world.apply(_depolarising(physics.move_depolarising, 1), second)
    elif opcode is Opcode.SWP:
        world.age(key, tick)
        world.age(second, tick)
        _rename(world, {key: second, second: key})
        for one in (key, second):
            world.origin[one] = world.decayed[one] = tick
            world.apply(_depolarising(physics.swap_depolarising, 1), one)
    elif opcode is Opcode.PMG:
        kept = world.bases.get(key, ()) if instruction.other else ()
        world.bases[key] = (*kept, instruction) if instruction.steps else kept
    elif opcode in (Opcode.ENT, Opcode.ENM):
        _entangle(world, step, partners)
    elif opcode is Opcode.ESW:
        _swap_entanglement(world, step)
    elif opcode is not Opcode.MSR:
        raise NotImplementedError(f"no such step is known: {step}")


PARITY_AND_PHASE = {
    BellState.PHI_PLUS: (0, 0),
    BellState.PSI_PLUS: (1, 0),
    BellState.PHI_MINUS: (0, 1),
    BellState.PSI_MINUS: (1, 1),
}


def _swap_entanglement(world: World, step: Step) -> None:
    """Two qubits are found in the Bell state that was reported, or in another by mistake."""
    node, instruction = step.node, step.instruction
    physics = world.tape.physics[node]
    first, second = (node, instruction.qubit), (node, instruction.other)
    for key in (first, second):
        world.age(key, step.begun)
    if physics.star and 0 not in (instruction.qubit, instruction.other):
        world.age((node, 0), step.begun)
        for key in (first, (node, 0), (node, 0)):
            world.apply(_depolarising(physics.swap_depolarising, 1), key)
    world.join(first, second)
    world.apply(_depolarising(physics.pair_depolarising, 2), first, second)
    reported = PARITY_AND_PHASE[BELL_OF_OUTCOME[step.outcome]]
    right = (physics.communication.readout_fidelity_0, physics.communication.readout_fidelity_1)
    operators = []
    for bell, bits in PARITY_AND_PHASE.items():
        probability = 1.0
        for bit, seen in zip(bits, reported, strict=True):
            probability *= right[bit] if bit == seen else 1 - right[bit]
        operators.append(math.sqrt(probability) * np.outer(BELL[bell], BELL[bell].conj()))
    world.apply(operators, first, second)
    for key in (first, second):
        world.forget(key)


def _rename(world: World, names: Mapping[Key, Key]) -> None:
    """Let states change places."""
    groups = {id(world.groups[key]): world.groups[key] for key in names}
    for key in names:
        del world.groups[key]
    for group in groups.values():
        world.set([names.get(key, key) for key in group.keys], group.rho)


def _entangle(world: World, step: Step, partners: Mapping[int, Step]) -> None:
    """A pair comes into being with the first of the two steps that made it."""
    partner = partners.get(id(step))
    key = (step.node, step.instruction.qubit)
    if partner is None:
        world.put([key], np.eye(2) / 2, step.done)
        return
    pairing = world.tape.links[step.node, step.instruction.argument]
    herald = step.herald or BELL_OF_OUTCOME[step.outcome]
    if step is not min(step, partner, key=lambda one: (herald_tick(world.tape, one), one.node)):
        return
    other = (partner.node, partner.instruction.qubit)
    keys = [key, other] if pairing.is_first else [other, key]
    tick = herald_tick(world.tape, step)
    world.put(keys, pair_state(pairing.protocol, herald), tick)
    for one in (step, partner):
        if one.instruction.opcode is Opcode.ENM:
            _turn_into_basis(world, one)


def _turn_into_basis(world: World, step: Step) -> None:
    key = (step.node, step.instruction.qubit)
    kind = world.tape.physics[step.node].communication
    tick = herald_tick(world.tape, step)
    for turn in world.bases.get(key, ()):
        world.age(key, tick)
        world.apply([_rotation(turn)], key)
        world.apply(_depolarising(kind.gate_depolarising, 1), key)
        tick += kind.gate_ticks


BELL_OF_OUTCOME = {
    Outcome.SUCCESS_ZERO: BellState.PHI_PLUS,
    Outcome.SUCCESS_PSI_PLUS: BellState.PSI_PLUS,
    Outcome.SUCCESS_PSI_MINUS: BellState.PSI_MINUS,
    Outcome.SUCCESS_PHI_MINUS: BellState.PHI_MINUS,
}


def herald_tick(tape: Tape, step: Step) -> int:
    """When a pair was heralded; an ENM goes on to read it out."""
    if step.instruction.opcode is Opcode.ENT:
        return step.done
    kind = tape.physics[step.node].communication
    return step.done - kind.measure_ticks - kind.gate_ticks * _turns_before(tape, step)


def _turns_before(tape: Tape, step: Step) -> int:
    turns = 0
    for one in tape.steps:
        if one is step:
            break
        is_basis = one.instruction.opcode is Opcode.PMG
        if is_basis and (one.node, one.instruction.qubit) == (step.node, step.instruction.qubit):
            turns = (turns if one.instruction.other else 0) + bool(one.instruction.steps)
    return turns


def _partners(tape: Tape, steps: Sequence[Step]) -> dict[int, Step]:
    """For every step that made half a pair, the step that made the other half."""
    made: dict[tuple[frozenset[str], int], Step] = {}
    found: dict[int, Step] = {}
    for step in steps:
        if step.instruction.opcode not in (Opcode.ENT, Opcode.ENM):
            continue
        is_pair = step.herald is not None or step.outcome in BELL_OF_OUTCOME
        if not is_pair:
            continue
        neighbour = tape.links[step.node, step.instruction.argument].neighbour
        at = frozenset((step.node, neighbour)), herald_tick(tape, step)
        other = made.setdefault(at, step)
        if other is not step:
            found[id(step)], found[id(other)] = other, step
    return found


def _read(world: World, step: Step, reported: int) -> None:
    """Keep what goes with a reported bit; the qubit stays, in the state it was projected to."""
    node, qubit = step.node, step.instruction.qubit
    key, physics = (node, qubit), world.tape.physics[node].communication
    if step.instruction.opcode is Opcode.MSR:
        world.age(key, step.begun)
    else:
        world.age(key, step.done - physics.measure_ticks)
    right = physics.readout_fidelity_0, physics.readout_fidelity_1
    operators = []
    for bit in (0, 1):
        probability = right[bit] if bit == reported else 1 - right[bit]
        projector = np.zeros((2, 2))
        projector[bit, bit] = math.sqrt(probability)
        operators.append(projector)
    world.apply(operators, key)
    world.origin[key] = world.decayed[key] = step.done


def _total(world: World) -> float:
    """Probability of all that has been reported."""
    total = world.weight
    for group in {id(group): group for group in world.groups.values()}.values():
        total *= group.weight
    return total


def _worlds(tape: Tape, free: Sequence[Step]) -> dict[tuple[int, ...], World]:
    """What there is at the end, for all bits of the free readouts."""
    steps = tape.ordered()
    partners = _partners(tape, steps)
    places = {id(step): place for place, step in enumerate(free)}
    worlds: list[tuple[dict[int, int], World]] = [({}, World(tape))]
    for step in steps:
        following = []
        for bits, world in worlds:
            _one_step(world, step, partners)
            if not _reads_out(step):
                following.append((bits, world))
                continue
            place = places.get(id(step))
            if place is None:
                _read(world, step, int(step.outcome is Outcome.SUCCESS_ONE))
                following.append((bits, world))
                continue
            for bit in (0, 1):
                branch = world.copy()
                _read(branch, step, bit)
                following.append(({**bits, place: bit}, branch))
        worlds = following
    return {tuple(bits[place] for place in sorted(bits)): world for bits, world in worlds}


def joint_probabilities(tape: Tape, free: Sequence[Step]) -> dict[tuple[int, ...], float]:
    """Probabilities of the bits of some readouts, given what all others reported.

    Args:
        tape: one run.
        free: readouts of the run that no instruction depends on.

    Returns:
        the probability of each combination of bits, in the order of ``free``.
    """
    weights = {bits: _total(world) for bits, world in _worlds(tape, free).items()}
    total = sum(weights.values())
    return {bits: weight / total for bits, weight in weights.items()}


def probability_of_all(tape: Tape) -> float:
    """Probability of everything that was reported."""
    (world,) = _worlds(tape, ()).values()
    return _total(world)


def final_state(tape: Tape, keys: Sequence[Key], tick: int) -> np.ndarray:
    """State of some qubits after all steps, decayed until a tick; shape (2**n, 2**n)."""
    (world,) = _worlds(tape, ()).values()
    for key in keys:
        world.age(key, tick)
    for one in keys[1:]:
        world.join(keys[0], one)
    for other in world.groups[keys[0]].keys:
        if other not in keys:
            world.forget(other)
    group = world.groups[keys[0]]
    count = len(keys)
    order = [group.keys.index(key) for key in keys]
    rho = group.rho.transpose([*order, *[count + place for place in order]])
    size = 2**count
    return rho.reshape(size, size) / group.weight
