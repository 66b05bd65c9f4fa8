"""Simulated nodes as their drivers find them: opened, set up, and ready to answer frames.

The drivers, the Station files, the SeqC program and the ADbasic program are those of the
hardware. Only the objects at the lowest software seam are simulated: the ADwin's library, the
AWG's data server, the VISA sessions.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from qcodes.instrument import Instrument
from ruamel.yaml import YAML

from calibration.instrument_bench import TAGGER_MARKERS
from drivers.nv_setup import AWG_CORE, NVInstruments, NVSettings
from instruments.errors import InstrumentError
from instruments.station import (
    CONNECTION_FIELDS,
    Connections,
    NodeStation,
    open_station,
    read_entries,
    station_file,
)
from qnodeos.errors import ConfigurationError
from sim.hdawg import HdawgTiming
from sim.lab.arrivals import PhotonArrivals
from sim.lab.device import InstrumentNVDevice
from sim.lab.laboratory import MAX_NODES, Laboratory
from sim.lab.node import LabNode
from sim.lab.timing import SAMPLES_PER_NS, LabTiming
from sim.link import LinkParameters
from sim.nv.physics import NVPhysics
from sim.nv.spin import Microwaves
from sim.serial_line import SerialLine
from sim.timetagger import SimulatedTaggerLibrary
from sim.visa import SimulatedSource

NODES: Final = ("client", "server")
"""Names of the nodes that have Station files."""
SERIALS: Final[Mapping[str, str]] = {"client": "dev8001", "server": "dev8002"}
"""Serial numbers of their AWGs, as in the Station files."""
SHARED: Final = ("heralding", "timetagger")
"""Instruments that both nodes use."""


@dataclass(frozen=True)
class NodeSpec:
    """One node to be simulated.

    Attributes:
        name: of the node, one of `NODES`.
        physics: what the simulator is given: the truth that a calibration is to find.
        settings: what the node is set up with: what is believed to be true.
        awg_timing: latencies of the AWG.
        station_file: a Station file of one's own, to be tried with simulated instruments: where
            they are is replaced (`instruments.station.CONNECTION_FIELDS`), all else is as it
            says. None for the one that comes with the package.
    """

    name: str
    physics: NVPhysics = field(default_factory=NVPhysics)
    settings: NVSettings = field(default_factory=NVSettings)
    awg_timing: HdawgTiming = field(default_factory=HdawgTiming)
    station_file: Path | None = None


class SimulatedMicrowaves:
    """What reaches a spin of its microwave source and of its AWG's outputs.

    Asking the simulated instruments takes long, so they are asked again only after `refresh`.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        self._node: LabNode | None = None
        self._known = Microwaves(frequency_hz=1e9, power_dbm=-120.0, on=False)

    def connect(self, node: LabNode) -> None:
        """The node whose AWG drives the source."""
        self._node = node

    def refresh(self) -> None:
        """Ask the instruments, after a driver has changed their settings."""
        assert self._node is not None
        source = SimulatedSource(self._address)
        gains = self._node.output_gains(AWG_CORE) if source.modulated else (0.0, 0.0)
        self._known = Microwaves(source.frequency_hz, source.power_dbm, source.on, gains)

    def __call__(self) -> Microwaves:
        """What was found at the last `refresh`."""
        return self._known


class SimulatedNode:
    """A node of a laboratory, with its drivers.

    Attributes:
        name: of the node.
        lab_node: the simulation of the node.
        instruments: its drivers.
        device: the QDevice; set once the laboratory has begun.
    """

    device: InstrumentNVDevice

    def __init__(
        self, lab_node: LabNode, instruments: NVInstruments, microwaves: SimulatedMicrowaves
    ) -> None:
        self.name = lab_node.name
        self.lab_node = lab_node
        self.instruments = instruments
        self._microwaves = microwaves

    def apply(self, settings: NVSettings) -> None:
        """Set up anew what differs; see `NVInstruments.apply`."""
        self.instruments.apply(settings)
        self._microwaves.refresh()

    def set_up(self, settings: NVSettings) -> None:
        """Set up for the first time; see `NVInstruments.set_up`."""
        self.instruments.set_up(settings)
        self._microwaves.refresh()


class SimulatedLaboratory:
    """One or two nodes, set up, with their common clock running.

    Args:
        specs: of the nodes.
        link: physics of the link; its attempts and their period are the nodes' settings.
        timing: delays.
        seed: of all randomness; nodes and link draw from streams of their own.
        skipping: leave out events in which nothing happens.

    Attributes:
        nodes: by name.
        laboratory: the simulation.

    Raises:
        ConfigurationError: there are too many nodes, or no Station file for one.
        InstrumentError: an instrument refuses its settings.
    """

    def __init__(
        self,
        specs: Sequence[NodeSpec],
        link: LinkParameters | None = None,
        timing: LabTiming | None = None,
        seed: int | str = 0,
        skipping: bool = True,
    ) -> None:
        self._cleanup = ExitStack()
        self.nodes: dict[str, SimulatedNode] = {}
        if not 1 <= len(specs) <= MAX_NODES:
            raise ConfigurationError(f"{len(specs)} nodes; a simulated laboratory has 1 or 2")
        timing = timing or LabTiming()
        link = link or LinkParameters.fast()
        self.laboratory = Laboratory(link, timing, str(seed))
        self._tagger = SimulatedTaggerLibrary()
        try:
            for index, spec in enumerate(specs):
                node = self._add(spec, index, timing, f"{seed}/{spec.name}", skipping)
                node.set_up(spec.settings)
            self.laboratory.station.arrivals = PhotonArrivals(
                self._tagger,
                [TAGGER_MARKERS[name] for name in self.nodes],
                link.protocol,
                timing.lifetime_ns,
                f"{seed}/photons",
            )
            self._begin(specs)
        except BaseException:
            self.close()
            raise

    def _add(
        self, spec: NodeSpec, index: int, timing: LabTiming, seed: str, skipping: bool
    ) -> SimulatedNode:
        if spec.name not in NODES or spec.name in self.nodes:
            raise ConfigurationError(
                f"no second node {spec.name!r}; the simulated ones are {', '.join(NODES)}"
            )
        _check_herald(spec, timing)
        microwaves = SimulatedMicrowaves(f"TCPIP::mw-{spec.name}::INSTR")
        node = LabNode(
            name=spec.name,
            serial=SERIALS[spec.name],
            physics=spec.physics,
            microwaves=microwaves,
            station=self.laboratory.station,
            index=index,
            timing=timing,
            awg_timing=spec.awg_timing,
            seed=seed,
            skipping=skipping,
        )
        microwaves.connect(node)
        self.laboratory.add(node)
        simulated: dict[str, object] = {
            "adwin": node.wrapper,
            "awg": node.data_server,
            "heralding": SerialLine(self.laboratory.station.cpld),
            "timetagger": self._tagger,
        }
        shared: dict[str, Instrument] = {}
        if index:
            first = next(iter(self.nodes.values())).instruments.station
            shared = {name: first.instruments[name] for name in SHARED if name in first.instruments}
        station = _open(spec, simulated, shared)
        self._cleanup.callback(station.close)
        self.nodes[spec.name] = SimulatedNode(node, NVInstruments(station), microwaves)
        return self.nodes[spec.name]

    def _begin(self, specs: Sequence[NodeSpec]) -> None:
        self.laboratory.begin()
        for spec in specs:
            node = self.nodes[spec.name]
            node.device = InstrumentNVDevice(
                self.laboratory,
                node.lab_node,
                node.instruments.controller,
                spec.settings.controller.links,
            )
        devices = [node.device for node in self.nodes.values()]
        for device in devices:
            device.connect(*(other for other in devices if other is not device))

    def close(self) -> None:
        """Close all instruments; more than once does no harm."""
        self._cleanup.close()

    def __enter__(self) -> SimulatedLaboratory:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _open(
    spec: NodeSpec, simulated: Mapping[str, object], shared: Mapping[str, Instrument]
) -> NodeStation:
    """Open a node's Station file, its own or the packaged one, with simulated instruments."""
    packaged = station_file(spec.name, simulation=True)
    with tempfile.TemporaryDirectory(prefix="qnodeos-station-") as directory:
        path, names = packaged, set(read_entries(packaged))
        if spec.station_file is not None:
            path = Path(directory) / spec.station_file.name
            names = _write_simulated(spec.station_file, packaged, path)
        used = {name: each for name, each in shared.items() if name in names}
        handed_in = {name: each for name, each in simulated.items() if name in names - used.keys()}
        try:
            return open_station(path, Connections(handed_in, used))
        except InstrumentError as error:
            # The copy is nobody's business.
            named = str(error).replace(str(path), str(spec.station_file or packaged))
            raise type(error)(named) from error


def _write_simulated(own: Path, packaged: Path, copy: Path) -> set[str]:
    """Write a Station file that says of every instrument that it is the simulated one.

    Returns:
        Names of the instruments.

    Raises:
        ConfigurationRefused: it is no Station file.
        ConfigurationError: it has an instrument that is not simulated.
    """
    known, entries = read_entries(packaged), read_entries(own)
    for name, entry in entries.items():
        if name not in known or entry["type"] != known[name]["type"]:
            raise ConfigurationError(
                f"{own}: {name}: no such instrument of this type is simulated; there are "
                f"{', '.join(known)}"
            )
        kept = {k: v for k, v in entry.get("init", {}).items() if k not in CONNECTION_FIELDS}
        where = {k: v for k, v in known[name]["init"].items() if k in CONNECTION_FIELDS}
        entry["init"] = kept | where
    with copy.open("w", encoding="utf-8") as file:
        # Not the safe emitter, which sorts: an ADwin is opened before its lasers.
        YAML().dump({"instruments": entries}, file)
    return set(entries)


def _check_herald(spec: NodeSpec, timing: LabTiming) -> None:
    """Make sure that a herald is on the AWG's lines when it decides whether to go on."""
    awg = spec.awg_timing
    # From the order of the attempt to its output, and from the line back to the sequencer.
    seen_samples = (
        awg.play_latency_samples
        + awg.output_latency_samples
        + awg.dio_latency_samples
        + awg.dio_period_samples
    )
    arrival_ns = (
        timing.photon_flight_ns
        + max(0.0, timing.arrival_offset_ns)
        + timing.herald_ns
        + seen_samples / SAMPLES_PER_NS
    )
    decision_ns = spec.settings.herald.optical_to_decision_ns
    if arrival_ns >= decision_ns:
        raise ConfigurationError(
            f"{spec.name}: with all delays a herald reaches the AWG's sequencer "
            f"{arrival_ns:.0f} ns after the optical pulse was due, and it decides after "
            f"{decision_ns:.0f} ns; lengthen HeraldTiming.optical_to_decision_ns or "
            "shorten the ways of LabTiming"
        )
