"""Benches of simulated nodes, for calibrations."""

from __future__ import annotations

from calibration.file import NodeCalibration
from calibration.instrument_bench import (
    InstrumentBench,
    InstrumentPair,
    TickClock,
    node_settings,
)
from drivers.nv_setup import NVSettings
from sim.lab.build import NodeSpec, SimulatedLaboratory
from sim.lab.timing import LabTiming
from sim.link import LinkParameters
from sim.nv.physics import NVPhysics


class SimulatedBench:
    """A simulated laboratory of one or two nodes, with their benches. Close it.

    Args:
        physics: the truth, by name of the node.
        calibrations: what is believed, by name of the node.
        link: physics of the link.
        timing: delays of the laboratory.
        seed: of all randomness.
    """

    def __init__(
        self,
        physics: dict[str, NVPhysics],
        calibrations: dict[str, NodeCalibration],
        link: LinkParameters | None = None,
        timing: LabTiming | None = None,
        seed: int | str = 0,
    ) -> None:
        bases = {name: NVSettings() for name in physics}
        specs = [
            NodeSpec(name, truth, node_settings(calibrations[name], bases[name]))
            for name, truth in physics.items()
        ]
        self.simulation = SimulatedLaboratory(specs, link, timing, seed)
        clock = TickClock()
        self.benches = {
            name: InstrumentBench(
                name,
                node.instruments,
                node.device,
                calibrations[name],
                bases[name],
                node.apply,
                clock,
            )
            for name, node in self.simulation.nodes.items()
        }
        self._clock = clock

    @property
    def pair(self) -> InstrumentPair:
        """The bench of both nodes."""
        return InstrumentPair(self.benches["client"], self.benches["server"], self._clock)

    def close(self) -> None:
        """Close all instruments; more than once does no harm."""
        self.simulation.close()

    def __enter__(self) -> SimulatedBench:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
