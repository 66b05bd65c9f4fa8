"""What `qnodeos calibrate` measures on: simulated nodes, or a real one by its Station file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Final

from calibration.bench import CalibrationNode
from calibration.file import Calibrated, NodeCalibration, calibration_path, load_calibration
from calibration.instrument_bench import InstrumentBench, InstrumentPair, node_settings
from calibration.measurement import CalibrationResult
from calibration.registry import MEASUREMENTS, NODE_ORDER
from drivers.errors import instrument_errors
from drivers.nv import NV_CAPABILITIES
from drivers.nv_setup import NVInstruments, NVSettings
from drivers.pacer import TickPacer
from drivers.spi import SpiQDevice, open_spi
from instruments.station import open_station
from qnodeos.errors import ConfigurationError
from sequences.program import GRANULE_SAMPLES
from sequences.pulses import PulseCalibration
from sim.entangled_state import SinglePhotonProtocol
from sim.lab.bench import SimulatedBench
from sim.link import LinkParameters
from sim.nv.physics import NVPhysics

PAIR: Final = ("client", "server")

SIMULATED_TRUTH: Final = "the simulated truth"

# How far a drawn truth may be from the assumed one.
_RABI_SPREAD: Final = 0.07
_RESONANCE_SPREAD_HZ: Final = 1.5e6
_RATE_SPREAD: Final = 0.2


@dataclass(frozen=True)
class Benches:
    """What is measured on, and, if it is simulated, the truth.

    Attributes:
        nodes: by name.
        pair: both nodes of a link, if there are two.
        physics: what the simulator was given, by name of the node; empty on hardware.
        link: what the simulated link is.
        pacer: of the ticks of a real node; None in simulation, where no tick comes late.
    """

    nodes: dict[str, CalibrationNode]
    pair: InstrumentPair | None = None
    physics: dict[str, NVPhysics] = field(default_factory=dict)
    link: LinkParameters | None = None
    pacer: TickPacer | None = None

    def truth(self, result: CalibrationResult, nodes: Sequence[str]) -> dict[str, Any]:
        """What the simulator was given for the values that were found; empty on hardware."""
        if not self.physics:
            return {}
        physics = self.physics[nodes[0]]
        truth: dict[str, Any] = {}
        if "f0" in result.values:
            duration = result.values.get("readout_us")
            used = self.nodes[nodes[0]].calibration.readout_us.value
            f0, f1 = physics.readout_fidelities(duration.value if duration else used)
            truth |= {"f0": f0, "f1": f1}
        rabi_hz = physics.full_scale_rabi_hz * (1 + physics.amplitude_error)
        pulses = PulseCalibration.for_full_scale_rabi(rabi_hz)
        truth |= {
            "pi_amplitude": pulses.pi_amplitude,
            "pi_half_amplitude": pulses.pi_half_amplitude,
            "mw_frequency_hz": physics.resonance_hz,
            "t_coh_ms": physics.coherence_time_ms,
            "dark_rate_hz": physics.dark_rate_hz,
            # The rate at which a bright spin stops to be silent or bright.
            "bright_rate_hz": physics.bright_rate_hz * (1 + physics.flips_per_photon)
            + physics.ionisation_rate_hz,
        }
        if result.details.get("shifted_copies", GRANULE_SAMPLES) < GRANULE_SAMPLES:
            # The coherence is then lost to the phase that the missing copies let slip.
            del truth["t_coh_ms"]
        protocol = None if self.link is None else self.link.protocol
        if isinstance(protocol, SinglePhotonProtocol) and "contrast" in result.values:
            truth["detection"] = protocol.p_det_a
            truth["alpha"] = protocol.for_fidelity(result.details["target"]).alpha_a
            return {
                **{name: truth[name] for name in ("alpha", "detection")},
                "alphas": [
                    {
                        "alpha": point["alpha"],
                        "fidelity": protocol.with_alpha(point["alpha"]).fidelity,
                        "success_probability": protocol.with_alpha(
                            point["alpha"]
                        ).success_probability,
                    }
                    for point in result.details["alphas"]
                ],
            }
        return {name: value for name, value in truth.items() if name in result.values}


@contextmanager
def open_benches(
    name: str,
    node: str,
    *,
    seed: int,
    drawn: bool,
    calibrations: Path,
    station: Path | None,
    spi: str | None,
) -> Iterator[Benches]:
    """Open what a measurement needs, and close it at the end.

    Args:
        name: of the measurement, or "all".
        node: to calibrate.
        seed: of the simulation.
        drawn: whether the simulated truth differs from what is assumed.
        calibrations: directory of calibration files.
        station: Station file of a real node; None to simulate.
        spi: "BUS.DEVICE" of the SPI interface to a real node.

    Raises:
        ConfigurationError: files or addresses are wrong.
        DeviceError: an instrument cannot be used.
    """
    on_pair = name == "all" or MEASUREMENTS[name].on_pair
    with ExitStack() as stack, instrument_errors():
        if station is not None:
            if on_pair and name != "all":
                raise ConfigurationError(
                    f"{name} needs two nodes, and a Station file describes one; two real nodes "
                    "can be joined in Python, with calibration.instrument_bench.InstrumentPair"
                )
            yield _real(stack, station, spi, node, calibrations)
            return
        names = PAIR if on_pair else (node,)
        physics = {one: _truth(one, seed, drawn) for one in names}
        believed = {
            one: _prepared(name, _calibration(calibrations, one), physics[one]) for one in names
        }
        link = LinkParameters.fast()
        bench = stack.enter_context(SimulatedBench(physics, believed, link, seed=seed))
        yield Benches(dict(bench.benches), bench.pair if on_pair else None, physics, link)


def _calibration(directory: Path, node: str) -> NodeCalibration:
    path = calibration_path(directory, node)
    return load_calibration(path, node) if path.exists() else NodeCalibration(node=node)


def _prepared(name: str, believed: NodeCalibration, physics: NVPhysics) -> NodeCalibration:
    """What a new calibration assumes, and what the measurement rests on as if measured before."""
    if believed.revision or name not in NODE_ORDER:
        return believed
    before = NODE_ORDER[: NODE_ORDER.index(name)]
    pulses = PulseCalibration.for_full_scale_rabi(physics.full_scale_rabi_hz)
    known = {
        "resonance": {"mw_frequency_hz": physics.resonance_hz},
        "rabi": {
            "pi_amplitude": pulses.pi_amplitude,
            "pi_half_amplitude": pulses.pi_half_amplitude,
        },
    }
    return believed.replaced(
        **{
            field: Calibrated(value=value, source=SIMULATED_TRUTH)
            for one in before
            for field, value in known.get(one, {}).items()
        }
    )


def _truth(node: str, seed: int, drawn: bool) -> NVPhysics:
    """The centre that is simulated; drawn ones differ from what a new calibration assumes."""
    physics = NVPhysics()
    if not drawn:
        return physics
    rng = Random(f"{seed}/truth/{node}")
    return physics.model_copy(
        update={
            "full_scale_rabi_hz": physics.full_scale_rabi_hz
            * rng.uniform(1 - _RABI_SPREAD, 1 + _RABI_SPREAD),
            "resonance_hz": physics.resonance_hz
            + rng.uniform(-_RESONANCE_SPREAD_HZ, _RESONANCE_SPREAD_HZ),
            "bright_rate_hz": physics.bright_rate_hz
            * rng.uniform(1 - _RATE_SPREAD, 1 + _RATE_SPREAD),
            "dark_rate_hz": physics.dark_rate_hz * rng.uniform(1 - _RATE_SPREAD, 1 + _RATE_SPREAD),
            "cr_rate_hz": physics.cr_rate_hz * rng.uniform(1 - _RATE_SPREAD, 1 + _RATE_SPREAD),
        }
    )


def _real(
    stack: ExitStack, station: Path, spi: str | None, node: str, calibrations: Path
) -> Benches:
    """A real node. Not verified on hardware."""
    bus, device = spi_address(spi)
    calibration = _calibration(calibrations, node)
    opened = open_station(station)
    stack.callback(opened.close)
    link = open_spi(bus, device)
    stack.callback(link.close)
    instruments = NVInstruments(opened)
    stack.callback(instruments.close)
    base = NVSettings()
    instruments.set_up(node_settings(calibration, base))
    pacer = TickPacer(NV_CAPABILITIES.tick_ns)
    bench = InstrumentBench(
        node,
        instruments,
        SpiQDevice(link, NV_CAPABILITIES, pacer),
        calibration,
        base,
        instruments.apply,
    )
    return Benches({node: bench}, pacer=pacer)


def spi_address(spi: str | None) -> tuple[int, int]:
    """Numbers of bus and device.

    Raises:
        ConfigurationError: the text is not of the form "BUS.DEVICE".
    """
    bus, _, device = (spi or "").partition(".")
    if not (bus.isdecimal() and device.isdecimal()):
        raise ConfigurationError(
            f"--spi {spi or ''}: give the SPI interface to the node as BUS.DEVICE, such as 0.0"
        )
    return int(bus), int(device)
