"""How long instructions take at instrument level: the table of the behavioural device.

`measure_durations` runs instructions on a simulated laboratory and finds what `NVTiming` has to
say for the behavioural device to answer in the same ticks. The defaults of `NVTiming` came from
here; `qnodeos timing` prints them anew.

Under decoupling an instruction is played at the end of an XY8 block, if it came early enough.
So a gate starts the decoupling, and a second one is sent after waits that sweep all phases of a
block (a tick is no part of a block, and 300 waits come within half a microsecond of each): the
times at which it is done give the length of a block, and the latest arrival that still caught
the next boundary gives the lead.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Final

from calibration.errors import CalibrationError
from calibration.instrument_bench import PATIENCE_TICKS, Line, TickClock
from drivers.nv_setup import NVSettings
from instruments.nv_controller import TICK_EVENTS
from qnodeos.qdevice import instructions
from qnodeos.qdevice.instructions import Axis, PhysicalInstruction
from qnodeos.qdevice.outcomes import HERALDS, Outcome
from sim.entangled_state import PerfectProtocol
from sim.lab.build import NodeSpec, SimulatedLaboratory, SimulatedNode
from sim.lab.device import TICK_NS
from sim.lab.timing import NS_PER_EVENT, SAMPLES_PER_EVENT
from sim.link import LinkParameters
from sim.nv.physics import NVPhysics
from sim.nv_timing import NVTiming

SWEEP_TICKS: Final = 300
HERALDED_PAIRS: Final = 60
_QUARTER: Final = instructions.sqg(Axis.X, 8)
_LONG_WAIT_TICKS: Final = 2000


class _Probe:
    """Runs instructions on one node and looks at when its program has done them."""

    def __init__(self, laboratory: SimulatedLaboratory, node: SimulatedNode) -> None:
        self.clock = TickClock()
        self.line = Line(node.device, self.clock)
        self._zero = laboratory.laboratory.zero_event
        self._node = node.lab_node
        # A frame of the session's opening, so that times count from an idle line.
        for _ in range(3):
            self.line.exchange()
            self.clock.tick += 1

    def run(self, instruction: PhysicalInstruction) -> tuple[int, int]:
        """Microseconds from tick 0 at which it is accepted and at which it is done."""
        accepted = self.clock.tick * TICK_EVENTS
        self.line.run(instruction)
        return accepted, self._node.idle_since - self._zero

    def ticks(self, instruction: PhysicalInstruction) -> int:
        """Ticks from its frame to the one that brings the outcome."""
        sent = self.clock.tick
        self.line.run(instruction)
        return self.clock.tick - 1 - sent

    def ionise(self) -> None:
        """Let the centre lose its charge now."""
        self._node.centre.ionise(self._node.event * NS_PER_EVENT)


def measure_durations(seed: int = 0) -> NVTiming:
    """The durations of a node at instrument level with its default settings.

    Args:
        seed: of the laboratory.
    """
    physics = NVPhysics.noiseless()
    with SimulatedLaboratory([NodeSpec("client", physics)], seed=seed) as laboratory:
        probe = _Probe(laboratory, laboratory.nodes["client"])
        initialise = probe.ticks(instructions.ini())
        gate = probe.ticks(_QUARTER)
        probe.run(instructions.msr())
        probe.run(instructions.ini())
        accepted, done = probe.run(instructions.msr())
        probe.ionise()
        repump = probe.ticks(instructions.ini()) - initialise
        block_ns, lead_ns = _decoupling(probe)
    return NVTiming(
        tick_ns=TICK_NS,
        initialise_ticks=initialise,
        gate_ticks=gate,
        dd_block_ns=block_ns,
        dd_lead_ns=lead_ns,
        herald_lag_ns=_herald_lag_ns(block_ns, seed),
        measure_ns=(done - accepted) * NS_PER_EVENT,
        repump_ticks=repump,
    )


def _decoupling(probe: _Probe) -> tuple[int, int]:
    """Length of a block, and how long before its end an instruction must have come."""
    rough_us = 8 * NVSettings().table.spacing_samples / SAMPLES_PER_EVENT
    started, _, done = _second_gate(probe, _LONG_WAIT_TICKS)
    block_us = (done - started) / round((done - started) / rough_us)
    caught_us = 0.0
    for wait in range(SWEEP_TICKS):
        started, accepted, done = _second_gate(probe, wait)
        blocks = round((done - started) / block_us)
        phase_us = accepted - started - (blocks - 1) * block_us
        caught_us = max(caught_us, phase_us)
    return round(block_us * NS_PER_EVENT), round((block_us - caught_us) * NS_PER_EVENT)


def _second_gate(probe: _Probe, wait_ticks: int) -> tuple[int, int, int]:
    """When decoupling began, and when a gate came and was done; microseconds.

    Both gates are done in the microsecond after they were played.
    """
    probe.run(instructions.ini())
    _, started = probe.run(_QUARTER)
    probe.clock.tick += wait_ticks
    accepted, done = probe.run(_QUARTER)
    probe.run(instructions.msr())
    return started, accepted, done


def _herald_lag_ns(block_ns: int, seed: int) -> int:
    """From the beginning of a heralded qubit's decoupling to the tick of its outcome, mean."""
    link = LinkParameters(protocol=PerfectProtocol(success_probability=0.1))
    specs = [NodeSpec(name, NVPhysics.noiseless()) for name in ("client", "server")]
    lags = []
    with SimulatedLaboratory(specs, link, seed=seed) as laboratory:
        probes = [_Probe(laboratory, node) for node in laboratory.nodes.values()]
        client, server = probes
        for _ in range(HERALDED_PAIRS):
            server.clock.tick = client.clock.tick
            _entangle(probes)
            heralded_us = (client.clock.tick - 1) * TICK_EVENTS
            _, done = client.run(_QUARTER)
            blocks = round((done - heralded_us) * NS_PER_EVENT / block_ns)
            lags.append(heralded_us * NS_PER_EVENT + blocks * block_ns - done * NS_PER_EVENT)
            for probe in probes:
                probe.run(instructions.msr())
    return round(statistics.fmean(lags))


def _entangle(probes: Sequence[_Probe]) -> None:
    """Have both nodes share a pair; their clocks stop after the later of the two answers.

    Raises:
        CalibrationError: a node does not answer, or with something else than a herald.
    """
    outcomes: list[Outcome | None] = [None] * len(probes)
    for probe in probes:
        probe.line.submit(instructions.ent())
    for _ in range(PATIENCE_TICKS):
        for side, probe in enumerate(probes):
            if outcomes[side] is None and (response := probe.line.exchange()) is not None:
                outcomes[side] = response.outcome
            probe.clock.tick += 1
        if None not in outcomes:
            break
    if not all(outcome in HERALDS for outcome in outcomes):
        raise CalibrationError(
            f"ENT was answered {_names(outcomes)} within {PATIENCE_TICKS} ticks, instead of a "
            "herald by both nodes; look at the link and the ADbasic programs of the simulation"
        )


def _names(outcomes: Sequence[Outcome | None]) -> str:
    return " and ".join("nothing" if each is None else each.name for each in outcomes)
