"""Pairs between nodes of a network that are no neighbours, one after another (simulated).

Each flow is one pair of nodes: a program at either end, which asks for a pair, and for the next
when it has it. Several flows run at once. What is delivered is looked at in the simulator's
states, or, if the ends measure at once, by the correlation of their outcomes in X, Y and Z.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qnodeos.assembly import NetworkDescription, NetworkSystem, build_network, load_profile
from qnodeos.assembly.description import HUB
from qnodeos.cnpu.external import install
from qnodeos.errors import ConfigurationError
from qnodeos.qdevice.outcomes import BellState
from qnodeos.trace.events import Event
from sim.entangled_state import BELL_VECTORS
from sim.network import ProgramSpec
from sim.register_device import RegisterDevice, joint_state

BASES: Final = ("X", "Y", "Z")
"""Measured in turn."""

SIGNS: Final = {"X": 1, "Y": -1, "Z": 1}
"""Of the correlations of Phi+."""

PAIRS_MAX: Final = 100_000
TRACE_CAPACITY: Final = 1 << 12
"""Enough for what happens from one pair to the next; the last event is what counts."""

Flow = tuple[str, str]
"""The node that asks for pairs, and the other end."""


@dataclass(frozen=True)
class PairsSettings:
    """What to run.

    Attributes:
        network: nodes, links and time bins.
        flows: which nodes get pairs, each node in one flow at most.
        pairs: of each flow.
        measured: whether both ends measure at once, rather than keep their halves.
        seed: of all randomness.
    """

    network: NetworkDescription
    flows: tuple[Flow, ...]
    pairs: int
    measured: bool = False
    seed: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.pairs <= PAIRS_MAX:
            raise ConfigurationError(f"pairs={self.pairs} must lie in 1..{PAIRS_MAX}")
        ends = [name for flow in self.flows for name in flow]
        for name in ends:
            if name not in self.network.nodes:
                raise ConfigurationError(
                    f"there is no node {name!r}; the nodes are: {', '.join(self.network.nodes)}"
                )
            if ends.count(name) > 1:
                raise ConfigurationError(
                    f"node {name!r} is an end twice; pairs need two nodes, and a node takes part "
                    "in one flow"
                )


@dataclass
class FlowData:
    """What a flow gave.

    Attributes:
        flow: its ends.
        times_ns: when both ends had been given each pair; shape (pairs,).
        fidelities: to Phi+, of each pair that was kept, at that time.
        outcomes: of both ends, in order, of pairs that were measured.
        ids: sequence numbers that the two ends were told, in order.
    """

    flow: Flow
    times_ns: list[int] = field(default_factory=list)
    fidelities: list[float] = field(default_factory=list)
    outcomes: tuple[list[int], list[int]] = field(default_factory=lambda: ([], []))
    ids: tuple[list[int], list[int]] = field(default_factory=lambda: ([], []))

    def correlations(self) -> dict[str, NDArray[np.float64]]:
        """For each basis, +1 where the two ends measured the same and -1 where not."""
        ours, theirs = (np.array(each) for each in self.outcomes)
        equal = np.where(ours == theirs, 1.0, -1.0)
        return {basis: equal[place :: len(BASES)] for place, basis in enumerate(BASES)}


@dataclass(frozen=True)
class PairsData:
    """What a run gave.

    Attributes:
        flows: what each flow gave, in order.
        leaked: physical qubits that were not free in the end, by node.
        simulated_s: virtual time until the last flow had ended.
    """

    flows: tuple[FlowData, ...]
    leaked: dict[str, list[int]]
    simulated_s: float


def ends_of_chain(network: NetworkDescription) -> tuple[Flow, ...]:
    """The first node and the last."""
    names = list(network.nodes)
    return ((names[0], names[-1]),)


def opposite_leaves(network: NetworkDescription) -> tuple[Flow, ...]:
    """Every leaf of a star with the one opposite; of an odd number one is left out."""
    leaves = [name for name in network.nodes if name != HUB]
    half = len(leaves) // 2
    return tuple(zip(leaves[:half], leaves[half : 2 * half], strict=True))


def run_pairs(
    settings: PairsSettings, on_progress: Callable[[int], None] = lambda done: None
) -> PairsData:
    """Run all flows at once.

    Args:
        settings: what to run.
        on_progress: called with the number of pairs delivered so far.

    Raises:
        ProgramError: a program failed.
    """
    install()
    from qnodeos.experiments.programs import pair_ends

    network = settings.network
    flows = tuple(FlowData(flow) for flow in settings.flows)
    with build_network(
        network, load_profile(network.latencies), settings.seed, trace_capacity=TRACE_CAPACITY
    ) as system:
        watch = _Watch(system, settings, on_progress)
        programs = []
        for flow in flows:
            source, destination = flow.flow
            ours: dict[str, Any] = {
                "node": source,
                "peer": destination,
                "pairs": settings.pairs,
                "bases": BASES if settings.measured else (),
                "on_pair": watch.end(flow, 0),
            }
            theirs: dict[str, Any] = {
                "node": destination,
                "peer": source,
                "pairs": settings.pairs,
                "measured": settings.measured,
                "on_pair": watch.end(flow, 1),
            }
            programs.append(
                ProgramSpec(source, f"{source} to {destination}", pair_ends.create, ours)
            )
            programs.append(
                ProgramSpec(destination, f"{destination} from {source}", pair_ends.receive, theirs)
            )
        results = system.network.run(programs)
        for place, flow in enumerate(flows):
            flow.outcomes = results[2 * place], results[2 * place + 1]
        return PairsData(
            flows,
            _leaked(system),
            max(flow.times_ns[-1] for flow in flows) / 1e9,
        )


class _Watch:
    """Looks at pairs when they have just been delivered."""

    def __init__(
        self,
        system: NetworkSystem,
        settings: PairsSettings,
        on_progress: Callable[[int], None],
    ) -> None:
        self._system = system
        self._settings = settings
        self._on_progress = on_progress
        self._done = 0

    def end(self, flow: FlowData, place: int) -> Callable[[int], None]:
        """What the program at an end of a flow calls: the creator's is 0, the other is 1."""

        def on_pair(number: int) -> None:
            flow.ids[place].append(self._sequence(flow.flow[place]))
            if len(flow.ids[1 - place]) > number:
                self._look(flow)

        return on_pair

    def _look(self, flow: FlowData) -> None:
        """Both ends have their halves now."""
        clock = self._system.network.clock
        flow.times_ns.append(clock.now_ns)
        if not self._settings.measured:
            tick_ns = self._settings.network.tick_ns
            state = joint_state([self._half(name) for name in flow.flow], clock.now_ns // tick_ns)
            flow.fidelities.append(state.fidelity(BELL_VECTORS[BellState.PHI_PLUS]))
        self._done += 1
        self._on_progress(self._done)

    def _sequence(self, name: str) -> int:
        """The number of the pair delivered last at a node."""
        trace = self._system.nodes[name].qnpu_trace
        columns = trace.columns()
        trace.clear()
        return int(columns["detail"][columns["event"] == Event.QNP_BQ_DELIVERED][-1])

    def _half(self, name: str) -> tuple[RegisterDevice, int]:
        """The qubit that the program of a node holds."""
        handles = self._system.nodes[name]
        qmmu = handles.node.kernel.qmmu
        (address,) = [
            physical for pid in handles.node.kernel.processes for physical in qmmu.owned(pid)
        ]
        device = handles.device
        assert isinstance(device, RegisterDevice)
        return device, address


def _leaked(system: NetworkSystem) -> dict[str, list[int]]:
    leaked = {}
    for name, handles in system.nodes.items():
        free = set(handles.node.kernel.qmmu.free_qubits())
        kept = [qubit for qubit in handles.device.capabilities.qubits if qubit not in free]
        if kept:
            leaked[name] = kept
    return leaked
