"""Simulated laboratories for tests: short ways to build one, and to run instructions on it.

A laboratory takes most of a second to set up. `Runner` runs one list of steps after the other
on the same one, at ever later ticks.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from drivers.nv_setup import NVInstruments, NVSettings
from instruments.nv_controller import STATES, TICK_EVENTS, ControllerSettings, NVController
from qnodeos.qdevice.capabilities import Capabilities
from qnodeos.qdevice.endpoint import FrameMaster, Response
from qnodeos.qdevice.frames import encode_command, session_word
from qnodeos.qdevice.instructions import Axis, PhysicalInstruction, ini, sqg
from qnodeos.qdevice.outcomes import Outcome
from qnodeos.qdevice.protocols import QDevice
from sequences.nv_seqc import HeraldTiming
from sequences.waveform_table import (
    FIRST_ROTATION,
    FIRST_Y_COPY,
    TableSettings,
)
from sim.entangled_state import PerfectProtocol
from sim.hdawg import Play
from sim.hdawg.timeline import Repeat
from sim.lab.build import NodeSpec, SimulatedLaboratory, SimulatedNode
from sim.lab.device import InstrumentNVDevice
from sim.lab.node import LabNode
from sim.lab.timing import SAMPLES_PER_EVENT, SAMPLES_PER_NS, LabTiming
from sim.link import LinkParameters
from sim.nv.physics import NVPhysics
from sim.pauli import PauliState

NOISELESS = NVPhysics.noiseless()
ATTEMPTS = 40
SAMPLES_PER_TICK = 24_000

PAULIS = (np.array([[0, 1], [1, 0]]), np.array([[0, -1j], [1j, 0]]))
"""X and Y."""

Step = PhysicalInstruction | int


def link_with(probability: float, **changes: Any) -> LinkParameters:
    """Exact Bell states with a chance per attempt."""
    protocol = PerfectProtocol(success_probability=probability)
    return LinkParameters(**{"protocol": protocol, **changes})


def node_settings(attempts: int = ATTEMPTS, alpha: float = 0.2256, **controller: int) -> NVSettings:
    """Settings of a node with short batches; keywords are parameters of the ADbasic program."""
    return NVSettings(
        # The centres here have one line, as they are noiseless.
        table=TableSettings(alphas=(alpha,), hyperfine_hz=0),
        herald=HeraldTiming(),
        controller=replace(ControllerSettings(), **controller),
        attempts_per_batch=attempts,
    )


@contextmanager
def lone_laboratory(
    physics: NVPhysics = NOISELESS,
    settings: NVSettings | None = None,
    seed: int | str = 1,
    plain: bool = False,
) -> Iterator[Runner]:
    """A laboratory with one node."""
    spec = NodeSpec("client", physics, settings or node_settings())
    with SimulatedLaboratory([spec], seed=seed, skipping=not plain) as lab:
        yield Runner(lab, plain)


@contextmanager
def two_laboratories(
    link: LinkParameters | None = None,
    physics: NVPhysics = NOISELESS,
    settings: NVSettings | Sequence[NVSettings] | None = None,
    timing: LabTiming | None = None,
    seed: int | str = 1,
    plain: bool = False,
) -> Iterator[Runner]:
    """A laboratory with two nodes; a sequence of settings has those of either."""
    settings = settings or node_settings()
    both = [settings] * 2 if isinstance(settings, NVSettings) else list(settings)
    names = ("client", "server")
    specs = [NodeSpec(name, physics, each) for name, each in zip(names, both, strict=True)]
    with SimulatedLaboratory(
        specs, link or link_with(1.0), timing, seed=seed, skipping=not plain
    ) as lab:
        yield Runner(lab, plain)


class Answer(NamedTuple):
    """One instruction as the QNPU saw it: ticks at which it was sent and answered."""

    instruction: PhysicalInstruction
    sent: int
    answered: int
    response: Response

    @property
    def outcome(self) -> Outcome:
        """What was answered."""
        return self.response.outcome


class Exchange(NamedTuple):
    """One frame each way."""

    node: int
    tick: int
    command: int
    response: int


class Lockstep:
    """Runs the nodes of a laboratory event by event, none ahead of the other.

    What `Laboratory` and `InstrumentNVDevice` leave out or put in another order is done here
    plainly: every event of every node is executed, and the AWGs never run more than one event.
    """

    def __init__(self, lab: SimulatedLaboratory) -> None:
        self.laboratory = lab.laboratory
        self.event = self.laboratory.zero_event - 1

    def run_to(self, event: int) -> None:
        """Execute all events up to and including one."""
        nodes, station = self.laboratory.nodes, self.laboratory.station
        while self.event < event:
            self.event += 1
            for node in nodes:
                node.run_awg(self.event * SAMPLES_PER_EVENT)
            herald = station.match()
            if herald is not None:
                detector = station.parameters.protocol.heralds.index(herald.bell)
                for node, spin, sample in zip(
                    nodes, herald.spins, herald.alpha_samples, strict=True
                ):
                    node.raise_herald(herald.time_ns, detector)
                    node.centre.spin.adopt(spin, sample)
            for node in nodes:
                node.act(self.event)


class PlainDevice:
    """A node as a QDevice that runs nothing ahead and leaves nothing out.

    Args:
        lockstep: runs the laboratory.
        node: which of its nodes.
    """

    def __init__(self, lockstep: Lockstep, node: SimulatedNode) -> None:
        self.capabilities: Capabilities = node.device.capabilities
        self._lockstep = lockstep
        self._node = node.lab_node

    def exchange(self, tick: int, frame: int) -> int:
        """Swap one frame; every tick."""
        begins = self._lockstep.laboratory.zero_event + tick * TICK_EVENTS
        self._lockstep.run_to(begins - 1)
        response = self._node.response_for(begins)
        self._node.receive(frame)
        return response


class Runner:
    """Runs steps on the devices of a laboratory.

    Args:
        lab: the laboratory.
        plain: execute every event of all nodes in step, and exchange a frame at every tick.

    Attributes:
        tick: the next one.
        exchanges: all frames so far.
    """

    def __init__(self, lab: SimulatedLaboratory, plain: bool = False) -> None:
        self.lab = lab
        self.nodes: list[SimulatedNode] = list(lab.nodes.values())
        self.plain = plain
        lockstep = Lockstep(lab)
        self.devices: list[QDevice] = [
            PlainDevice(lockstep, node) if plain else node.device for node in self.nodes
        ]
        self.masters = [FrameMaster() for _ in self.nodes]
        self.tick = 0
        self.exchanges: list[Exchange] = []
        while any(master.has_news for master in self.masters):
            for index in range(len(self.nodes)):
                self._exchange(index)
            self.tick += 1

    @property
    def device(self) -> InstrumentNVDevice:
        """The first device."""
        return self.nodes[0].device

    @property
    def node(self) -> LabNode:
        """The first node."""
        return self.nodes[0].lab_node

    @property
    def controller(self) -> NVController:
        """The driver of the first node's ADwin program."""
        return self.nodes[0].instruments.controller

    def run(self, *programs: Sequence[Step], order: Sequence[int] = (0, 1)) -> list[list[Answer]]:
        """Run steps, instructions or ticks to wait, one list for each node.

        Args:
            programs: one for each node.
            order: in which the nodes exchange within a tick.
        """
        left = [list(program) for program in programs]
        free_at = [self.tick] * len(left)
        running: list[tuple[PhysicalInstruction, int] | None] = [None] * len(left)
        answers: list[list[Answer]] = [[] for _ in left]
        while True:
            for index in order[: len(left)]:
                while running[index] is None and left[index] and self.tick >= free_at[index]:
                    step = left[index].pop(0)
                    if isinstance(step, int):
                        free_at[index] = self.tick + step
                    else:
                        self.masters[index].submit(step)
                        running[index] = step, self.tick
                response = self._exchange(index)
                current = running[index]
                if response is not None:
                    assert current is not None
                    answers[index].append(Answer(*current, self.tick, response))
                    running[index], free_at[index] = None, self.tick + 1
            done = not any(left) and not any(running)
            if done and self.tick + 1 >= max(free_at):
                self.tick += 1
                return answers
            self.tick = self._next(left, running, free_at)

    def _next(self, left: Sequence[Any], running: Sequence[Any], free_at: Sequence[int]) -> int:
        if self.plain:
            return self.tick + 1
        wanted: list[int | None] = [node.device.next_tick() for node in self.nodes]
        wanted += [at for index, at in enumerate(free_at) if running[index] is None]
        # A time at which a node became free has passed; one it waits for is later.
        later = [tick for tick in wanted if tick is not None and tick > self.tick]
        assert later, f"nothing will ever happen after tick {self.tick}"
        return min(later)

    def _exchange(self, index: int) -> Response | None:
        command = self.masters[index].outgoing()
        response = self.devices[index].exchange(self.tick, command)
        self.exchanges.append(Exchange(index, self.tick, command, response))
        return self.masters[index].incoming(response)

    def outcomes(self, *programs: Sequence[Step]) -> list[list[Outcome]]:
        """Run steps; the outcomes alone."""
        return [[answer.outcome for answer in answers] for answers in self.run(*programs)]

    def tell(self, *programs: PhysicalInstruction) -> list[Answer]:
        """Run one instruction on each node; their answers."""
        return [answers[0] for answers in self.run(*([each] for each in programs))]

    def send(self, instruction: PhysicalInstruction, ticks: int, index: int = 0) -> None:
        """Send an instruction to one node and let some ticks pass, in which it is not answered."""
        self.masters[index].submit(instruction)
        assert not any(self.pass_ticks(ticks))

    def pass_ticks(self, ticks: int) -> list[Response]:
        """Exchange a frame at each of some ticks; the responses."""
        responses = []
        for _ in range(ticks):
            each = [self._exchange(index) for index in range(len(self.nodes))]
            responses += [response for response in each if response is not None]
            self.tick += 1
        return responses

    # --- looking ----------------------------------------------------------------------------

    @property
    def sample(self) -> int:
        """The sample at which the next tick begins."""
        return sample_of_tick(self.lab, self.tick)

    def state(self, index: int = 0) -> NDArray[np.complex128]:
        """Density matrix of a spin where its node is; shape (2, 2)."""
        return self.qubit_state(index).density_matrix()

    def qubit_state(self, index: int = 0) -> PauliState:
        """State of a spin where its node is."""
        node = self.nodes[index].lab_node
        bring_up(node)
        return node.centre.spin.state_at(node.centre.spin.sample)


def pair_state(runner: Runner, sample: int) -> PauliState:
    """The two spins of two nodes at a sample that both have reached."""
    qubits = []
    for simulated in runner.nodes:
        simulated.lab_node.bring_spin_to(sample / SAMPLES_PER_NS)
        qubits.append(simulated.lab_node.centre.spin.bring_to(sample))
    first, second = qubits
    assert first.state is second.state, "the spins do not share a pair"
    return first.state.reduced(first.index, second.index)


def sample_of_tick(lab: SimulatedLaboratory, tick: int) -> int:
    """The sample of the AWGs at which a tick begins."""
    return lab.laboratory.zero_event * SAMPLES_PER_EVENT + tick * SAMPLES_PER_TICK


def bring_up(node: LabNode) -> None:
    """Give the spin what has been played before the event at which its node is."""
    node.bring_spin_to(node.event * 1_000)


def start_session(device: InstrumentNVDevice, tick: int, number: int = 3) -> int:
    """Open a session by hand; the next tick."""
    request = encode_command(session_word(number), 0, 0)
    for at in (tick, tick + 1):
        device.exchange(at, request)
    return tick + 2


def state_name(node: LabNode) -> str:
    """What the program of a node is doing."""
    return STATES[node.state]


def record_plays(node: LabNode) -> list[tuple[int, int]]:
    """From now on, all waveforms that the AWG of a node plays: (start sample, wave index)."""
    plays: list[tuple[int, int]] = []
    take = node._take_play

    def recording(item: Play | Repeat) -> None:
        repeated = (
            [item]
            if isinstance(item, Play)
            else [
                play._replace(
                    start_sample=item.start_sample
                    + number * item.period_samples
                    + play.start_sample
                )
                for number in range(item.count)
                for play in item.plays
            ]
        )
        for play in repeated:
            if play.waveform is not None:
                plays.append((play.start_sample, play.waveform.index))
        take(item)

    node._take_play = recording  # type: ignore[method-assign]
    return plays


def decoupled(plays: Sequence[tuple[int, int]], until: int) -> NDArray[np.complex128]:
    """What the pi pulses from the last other play to a sample do together, shape (2, 2)."""
    slot = TableSettings().plan.slot_samples
    began = max(sample for sample, entry in plays if entry >= FIRST_ROTATION)
    done = np.eye(2, dtype=np.complex128)
    for sample, entry in sorted(plays):
        if began < sample <= until - slot and entry < FIRST_ROTATION:
            done = PAULIS[int(entry >= FIRST_Y_COPY)] @ done
    return done


def altered_program(folder: Path, old: str, new: str) -> Path:
    """The ADbasic program with one line changed; the path at which to load it.

    Args:
        folder: where the copy of all sources goes.
        old: a piece of one line of the program, found once.
        new: what stands there instead.
    """
    sources = Path(__file__).parents[2] / "instruments" / "adbasic"
    changed = 0
    for source in sources.iterdir():
        text = source.read_text("latin-1")
        if source.suffix in {".bas", ".inc"} and old in text:
            changed += text.count(old)
            text = text.replace(old, new)
        (folder / source.name).write_text(text, "latin-1")
    assert changed == 1, f"{old!r} is found {changed} times"
    return folder / "qdevice_nv.TC1"


def use_program(monkeypatch: Any, binary: Path) -> None:
    """Have laboratories built from now on load another ADbasic program."""

    def instruments(station: Any) -> NVInstruments:
        return NVInstruments(station, binary)

    monkeypatch.setattr("sim.lab.build.NVInstruments", instruments)


def fidelity(rho: NDArray[np.complex128], vector: NDArray[np.complex128]) -> float:
    """Of a state with a pure one."""
    return float(np.real(vector.conj() @ rho @ vector))


def rotated(*gates: PhysicalInstruction) -> NDArray[np.complex128]:
    """|0> after ideal rotations about X and Y."""
    vector = np.array([1, 0], dtype=np.complex128)
    for gate in gates:
        half = gate.steps * math.pi / 32
        turn = math.cos(half) * np.eye(2) - 1j * math.sin(half) * PAULIS[gate.axis]
        vector = turn @ vector
    return vector


def random_gates(rng: random.Random, count: int) -> list[PhysicalInstruction]:
    """Rotations about X and Y by any angles."""
    return [sqg(rng.choice((Axis.X, Axis.Y)), rng.randrange(32)) for _ in range(count)]


def state_after(runner: Runner, gates: list[PhysicalInstruction]) -> NDArray[np.complex128]:
    """The first spin after INI and gates, with the decoupling since then undone; shape (2, 2)."""
    node = runner.node
    plays = record_plays(node)
    try:
        [answers] = runner.run([ini(), *gates, 5])
        assert {answer.outcome for answer in answers} == {Outcome.SUCCESS_ZERO}
        node.bring_spin_to(runner.sample / SAMPLES_PER_NS)
        rho = node.centre.spin.state_at(runner.sample).density_matrix()
        flips = decoupled(plays, runner.sample)
    finally:
        # The method of the class again.
        del node._take_play
    return np.asarray(flips.conj().T @ rho @ flips)


def fidelity_after(runner: Runner, gates: list[PhysicalInstruction]) -> float:
    """Of the first spin, after INI and gates, with what ideal gates make."""
    return fidelity(state_after(runner, gates), rotated(*gates))
