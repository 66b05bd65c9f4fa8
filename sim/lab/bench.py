"""Benches of simulated nodes, for calibrations."""

from __future__ import annotations

from calibration.bench import Side
from calibration.file import NodeCalibration
from calibration.instrument_bench import (
    ArrivalSetup,
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
        try:
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
        except BaseException:
            self.simulation.close()
            raise
        self._clock = clock
        self._timing = timing or LabTiming()

    @property
    def pair(self) -> InstrumentPair:
        """The bench of both nodes, with a time tagger and shutters at the heralding station.

        The ways of the photons are known to it; the delays of the AWGs are not.
        """
        client, server = self.benches["client"], self.benches["server"]
        flights = [
            self._timing.photon_flight_ns + offset_ns
            for offset_ns in (0.0, self._timing.arrival_offset_ns)
        ]
        nodes = self.simulation.nodes
        flight_ns: dict[Side, float] = {
            "client": flights[nodes["client"].lab_node.index],
            "server": flights[nodes["server"].lab_node.index],
        }
        tagger = client.instruments.station.timetagger
        setup = ArrivalSetup(tagger, self._block, flight_ns)
        return InstrumentPair(client, server, self._clock, setup)

    def _block(self, side: Side | None) -> None:
        nodes = self.simulation.nodes
        blocked = [] if side is None else [nodes[side].lab_node.index]
        self.simulation.laboratory.station.blocked = blocked

    def close(self) -> None:
        """Close all instruments; more than once does no harm."""
        self.simulation.close()

    def __enter__(self) -> SimulatedBench:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
