"""Networks of kernels for the tests of the network layer: devices that keep ideal pairs.

Every device has a link to each of its neighbours. The state of every pair is kept exactly, as
amplitudes of two qubits, through gates, measurements, moves and swaps, so that a test can ask
what two programs really hold. A device that touches a qubit in a way that shows two owners, or
one that was forgotten, fails the test at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Final, NamedTuple

import numpy as np

from qnodeos.api.peer import EntanglementType
from qnodeos.limits import Limits
from qnodeos.qdevice.capabilities import Capabilities
from qnodeos.qdevice.instructions import Opcode, PhysicalInstruction
from qnodeos.qdevice.outcomes import OUTCOME_OF_HERALD, BellState, Outcome
from qnodeos.qnpu.process import NETWORK_PID
from qnodeos.qnpu.routes import make_routes
from qnodeos.qnpu.schedule import NetworkSchedule
from tests.unit.kernel_device import BELL, SUCCESS, Answer, FakeDevice, rotation
from tests.unit.kernel_harness import Lab, Node, make_node
from tests.unit.kernel_programs import create_epr, init_app, open_socket, recv_epr, submit

BIN_TICKS: Final = 40
BELL_STATES: Final = tuple(BellState)
QUICK: Final = Limits(
    offer_timeout_ticks=2_000,
    circuit_attempts=5,
    circuit_turn_ticks=1_000,
    circuit_retry_ticks=50,
    pair_cutoff_ticks=400,
)
"""Limits that are soon exceeded."""


class Qubit(NamedTuple):
    """A physical qubit of a node."""

    node: int
    address: int


class World:
    """The states of all qubits that are entangled, or were.

    Attributes:
        pairs: for each qubit, its partner and the amplitudes (own, partner's), shape (2, 2).
        singles: amplitudes of qubits whose partner was measured, shape (2,).
        widows: qubits whose partner was made anew: their state is random.
    """

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self.pairs: dict[Qubit, tuple[Qubit, np.ndarray]] = {}
        self.singles: dict[Qubit, np.ndarray] = {}
        self.widows: set[Qubit] = set()

    def join(self, first: Qubit, second: Qubit, amplitudes: np.ndarray) -> None:
        """Two qubits are in a state of their own."""
        self.pairs[first] = second, amplitudes
        self.pairs[second] = first, amplitudes.T
        self.widows -= {first, second}

    def forget(self, qubit: Qubit) -> None:
        """A qubit is made anew; what its partner has means nothing any more."""
        self.singles.pop(qubit, None)
        self.widows.discard(qubit)
        if qubit in self.pairs:
            partner, _ = self.pairs.pop(qubit)
            del self.pairs[partner]
            self.widows.add(partner)

    def entangle(self, first: Qubit, second: Qubit, state: BellState) -> None:
        """A link has made a pair."""
        self.forget(first)
        self.forget(second)
        self.join(first, second, BELL[state].reshape(2, 2))

    def rotate(self, qubit: Qubit, unitary: np.ndarray) -> None:
        """A gate on one qubit."""
        if qubit in self.pairs:
            partner, amplitudes = self.pairs[qubit]
            self.join(qubit, partner, unitary @ amplitudes)
        elif qubit in self.singles:
            self.singles[qubit] = unitary @ self.singles[qubit]

    def measure(self, qubit: Qubit) -> int:
        """A measurement of Z."""
        if qubit in self.pairs:
            partner, amplitudes = self.pairs[qubit]
            weights = [float(np.linalg.norm(row) ** 2) for row in amplitudes]
            [bit] = self._rng.choices((0, 1), weights)
            self.forget(qubit)
            self.widows.discard(partner)
            self.singles[partner] = amplitudes[bit] / np.sqrt(weights[bit])
            return bit
        own = self.singles.pop(qubit, np.array([1, 0]))
        return self._rng.choices((0, 1), [float(abs(each) ** 2) for each in own])[0]

    def move(self, old: Qubit, new: Qubit) -> None:
        """The state of one qubit goes to another."""
        self.forget(new)
        if old in self.pairs:
            partner, amplitudes = self.pairs.pop(old)
            self.join(new, partner, amplitudes)
        elif old in self.singles:
            self.singles[new] = self.singles.pop(old)
        elif old in self.widows:
            self.widows.remove(old)
            self.widows.add(new)

    def swap(self, first: Qubit, second: Qubit) -> BellState:
        """A Bell measurement of two qubits, each half of a pair.

        The other half may be gone already, if its node has heard before us that they are not
        needed any more.
        """
        for qubit in (first, second):
            is_half = qubit in self.pairs or qubit in self.widows
            assert is_half, f"{qubit} was swapped without being entangled"
        if self.widows & {first, second}:
            self.forget(first)
            self.forget(second)
            return self._rng.choice(BELL_STATES)
        outer, left = self.pairs[first]
        other, right = self.pairs[second]
        assert outer != second, f"{first} and {second} are one pair"
        results = [left.T @ BELL[state].reshape(2, 2).conj() @ right for state in BELL_STATES]
        weights = [float(np.linalg.norm(result) ** 2) for result in results]
        [state] = self._rng.choices(BELL_STATES, weights)
        self.forget(first)
        self.forget(second)
        self.join(outer, other, results[state] / np.sqrt(weights[state]))
        return state

    def fidelity(self, first: Qubit, second: Qubit) -> float:
        """To Phi+; 0 if they are no pair."""
        partner, amplitudes = self.pairs.get(first, (None, np.zeros((2, 2))))
        if partner != second:
            return 0.0
        return float(abs(np.vdot(BELL[BellState.PHI_PLUS], amplitudes.ravel())) ** 2)


@dataclass
class Chances:
    """What goes wrong, and how often; all from one generator.

    Attributes:
        heralds: how often a batch of attempts makes a pair.
        swaps: how often a swap succeeds.
        gates: how often any other instruction does.
    """

    rng: Random
    heralds: float = 0.7
    swaps: float = 1.0
    gates: float = 1.0

    def happens(self, probability: float) -> bool:
        """Whether something of that probability happens."""
        return probability >= 1 or self.rng.random() < probability


class WorldDevice(FakeDevice):
    """A device in the world; its links are numbered in the order of its neighbours."""

    def __init__(self, node: int, world: World, chances: Chances, neighbours: Sequence[int]):
        super().__init__()
        self.node = node
        self.neighbours = neighbours
        self.others: Mapping[int, WorldDevice] = {}
        self._world = world
        self._chances = chances

    def send(self, tick: int, instruction: PhysicalInstruction) -> None:
        assert self.busy is None
        self.log.append((tick, instruction))
        self.busy, self.since_tick = instruction, tick
        if instruction.opcode is Opcode.ENT:
            self._attempt(tick, instruction)
            return
        self.due_tick = tick + 1
        self.answer = self._do(instruction)

    def _do(self, instruction: PhysicalInstruction) -> Answer:
        world, chances = self._world, self._chances
        qubit = Qubit(self.node, instruction.qubit)
        other = Qubit(self.node, instruction.other)
        works = chances.happens(
            chances.swaps if instruction.opcode is Opcode.ESW else chances.gates
        )
        if not works:
            return Answer(Outcome.HARDWARE_FAILURE)
        match instruction.opcode:
            case Opcode.INI:
                world.forget(qubit)
            case Opcode.SQG:
                world.rotate(qubit, rotation([(instruction.axis, instruction.steps)]))
            case Opcode.MSR:
                bit = world.measure(qubit)
                return Answer(Outcome.SUCCESS_ONE if bit else Outcome.SUCCESS_ZERO)
            case Opcode.MOV:
                world.move(qubit, other)
            case Opcode.ESW:
                state = world.swap(qubit, other)
                return Answer(OUTCOME_OF_HERALD[state])
            case opcode:
                raise AssertionError(f"no test needs {opcode}")
        return SUCCESS

    def _attempt(self, tick: int, instruction: PhysicalInstruction) -> None:
        other = self.others[self.neighbours[instruction.argument]]
        theirs = other.busy
        meets = (
            theirs is not None
            and theirs.opcode is Opcode.ENT
            and other.neighbours[theirs.argument] == self.node
            and other.answer.outcome is Outcome.ENTANGLEMENT_SYNC_FAILURE
            and other.due_tick is not None
            and tick < other.due_tick
        )
        if not meets or theirs is None:
            self.due_tick = tick + 8
            self.answer = Answer(Outcome.ENTANGLEMENT_SYNC_FAILURE)
            return
        self.due_tick = other.due_tick = tick + 2
        self.answer = other.answer = Answer(Outcome.ENTANGLEMENT_FAILURE)
        if self._chances.happens(self._chances.heralds):
            state = self._chances.rng.choice(BELL_STATES)
            self._world.entangle(
                Qubit(self.node, instruction.qubit), Qubit(other.node, theirs.qubit), state
            )
            self.answer = other.answer = Answer(OUTCOME_OF_HERALD[state])


def capabilities(communication: int, memories: int = 0) -> Capabilities:
    """Of a device that can do everything."""
    qubits = tuple(range(communication + memories))
    return Capabilities(
        name="world",
        communication_qubits=qubits[:communication],
        memory_qubits=qubits[communication:],
        instructions=frozenset(Opcode),
        tick_ns=10_000,
        links=8,
    )


def colour(links: Iterable[tuple[int, int]]) -> list[set[tuple[int, int]]]:
    """Time bins: no node has two links in one of them."""
    bins: list[set[tuple[int, int]]] = []
    for link in links:
        for used in bins:
            if all(not set(link) & set(other) for other in used):
                used.add(link)
                break
        else:
            bins.append({link})
    return bins


@dataclass
class Network:
    """Nodes that are joined by links, and what their programs ask of them."""

    lab: Lab
    world: World
    chances: Chances
    links: list[tuple[int, int]]
    nodes: dict[int, Node] = field(default_factory=dict)

    def swaps(self) -> int:
        """How many swaps succeeded."""
        return sum(node.kernel.network_layer.attempts.swaps for node in self.nodes.values())

    def half(self, node: int, virtual: int = 0, client: int = 1) -> Qubit:
        """The physical qubit behind a virtual one of the program of a client."""
        kernel = self.nodes[node].kernel
        [process] = [each for each in kernel.processes.values() if each.owner[0] == client]
        physical = kernel.qmmu.physical(process.pid, virtual)
        assert physical is not None, f"virtual qubit {virtual} at node {node} is not mapped"
        return Qubit(node, physical)

    def lose(self, first: int, second: int) -> None:
        """The connection between two neighbours ends, and the messages on it."""
        self.lab.messages = [
            message for message in self.lab.messages if {message[1], message[2]} != {first, second}
        ]
        for node, peer in ((first, second), (second, first)):
            self.nodes[node].inbox.append(partial(self.nodes[node].kernel.peer_lost, peer))

    def connect(self, first: int, second: int) -> None:
        """It is there again."""
        for node, peer in ((first, second), (second, first)):
            self.nodes[node].inbox.append(partial(self.nodes[node].kernel.peer_connected, peer))

    def check_idle(self) -> None:
        """No circuit is left, and nobody but programs owns a qubit."""
        for number, node in self.nodes.items():
            layer = node.kernel.network_layer
            assert not layer.circuits, f"node {number} still has {layer.circuits} circuits"
            attempts = layer.attempts
            assert not attempts._halves
            assert not attempts._blocked
            assert not attempts._turns.served
            assert not attempts._turns.is_waiting
            assert not layer._openings._created
            assert layer.deadline_tick is None
            owned = set(node.kernel.qmmu.owned(NETWORK_PID))
            kept = set(node.kernel.entanglement._keepers)
            assert owned == kept, f"node {number} has lost sight of qubits {owned - kept}"


def network(
    links: Sequence[tuple[int, int]],
    *,
    qubits: Callable[[int], Capabilities] | Capabilities | None = None,
    seed: int = 1,
    delay: Callable[[Random], int] = lambda rng: 3,
    heralds: float = 0.7,
    swaps: float = 1.0,
    gates: float = 1.0,
    limits: Limits | None = None,
    fidelities: Mapping[tuple[int, int], float] | None = None,
) -> Network:
    """Nodes 1, 2, ..., joined by links.

    Args:
        links: pairs of nodes, each once, the lower number first.
        qubits: the devices; three communication qubits if not given.
        seed: of all randomness.
        delay: ticks the next message takes.
        heralds: how often a batch of attempts makes a pair.
        swaps: how often a swap succeeds.
        gates: how often any other instruction does.
        limits: of all nodes.
        fidelities: estimates of the links, for the routes; all are perfect if not given.
    """
    rng = Random(seed)
    world, chances = World(rng), Chances(rng, heralds, swaps, gates)
    numbers = sorted({number for link in links for number in link})
    bins = colour(links)
    nodes: dict[int, Node] = {}
    devices: dict[int, WorldDevice] = {}
    routes = make_routes(fidelities or dict.fromkeys(links, 1.0))
    for number in numbers:
        neighbours = sorted(
            first + second - number for first, second in links if number in (first, second)
        )
        pattern = tuple(
            next((a + b - number for a, b in used if number in (a, b)), None) for used in bins
        )
        given = qubits(number) if callable(qubits) else qubits
        node = make_node(
            number,
            {peer: link for link, peer in enumerate(neighbours)},
            capabilities=given or capabilities(3),
            limits=limits,
            random_choice=rng.randrange,
            schedule=NetworkSchedule(
                bin_ticks=BIN_TICKS, guard_ticks=3, batch_ticks=10, pattern=pattern
            ),
        )
        devices[number] = WorldDevice(number, world, chances, neighbours)
        node.device = devices[number]
        node.kernel.install_routes(routes[number])
        nodes[number] = node
    for device in devices.values():
        device.others = devices
    lab = Lab(*nodes.values(), delay=lambda: delay(rng))
    lab.nodes = nodes
    return Network(lab, world, chances, list(links), nodes)


def chain(nodes: int, **options: object) -> Network:
    """Nodes 1, 2, ... in a row."""
    return network([(number, number + 1) for number in range(1, nodes)], **options)  # type: ignore[arg-type]


def star(leaves: int, **options: object) -> Network:
    """Node 1 in the middle, nodes 2, 3, ... around it."""
    return network([(1, number) for number in range(2, leaves + 2)], **options)  # type: ignore[arg-type]


def open_program(net: Network, node: int, remote: int, client: int = 1, socket: int = 0) -> None:
    """Register a program, and open its ER socket to the same number at another node."""
    net.nodes[node].post(init_app(0), client)
    net.nodes[node].post(open_socket(0, socket, remote, socket), client)


def ask(
    net: Network,
    head: int,
    tail: int,
    client: int = 1,
    socket: int = 0,
    *,
    pairs: int = 1,
    virtuals: Sequence[int] | None = None,
    arguments: dict[int, int] | None = None,
) -> tuple[int, int]:
    """A create request of one program and the receive request for it of another.

    If they are of the same client and open already, the programs are used again.
    """
    for node, remote in ((head, tail), (tail, head)):
        if not any(
            process.owner == (client, 0) for process in net.nodes[node].kernel.processes.values()
        ):
            open_program(net, node, remote, client, socket)
    measured = (arguments or {}).get(0) == EntanglementType.MEASURE
    create = create_epr(
        remote=tail, socket=socket, pairs=pairs, virtuals=virtuals, arguments=arguments
    )
    receive = recv_epr(
        remote=head, socket=socket, pairs=pairs, virtuals=virtuals, measured=measured
    )
    return (
        net.nodes[head].post(submit(0, create), client),
        net.nodes[tail].post(submit(0, receive), client),
    )


def settled(net: Network) -> None:
    """Nothing is left of any circuit, and then of any program."""
    net.check_idle()
    net.lab.check_clean()
