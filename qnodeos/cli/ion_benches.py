"""What `qnodeos calibrate --node ion` measures on: a simulated trapped-ion node, or a real one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Final

from calibration.file import Calibrated, calibration_path, load_calibration
from calibration.ion_bench import IonBench
from calibration.ion_file import IonCalibration
from calibration.ion_instrument_bench import InstrumentIonBench
from calibration.measurement import CalibrationResult
from calibration.registry import ION_ORDER
from drivers.errors import instrument_errors
from drivers.ion_setup import IonInstruments, IonSettings
from drivers.pacer import TickPacer
from drivers.spi import SpiQDevice, open_spi
from drivers.trapped_ion import ION_CAPABILITIES
from instruments.station import open_station
from qnodeos.cli.benches import SIMULATED_TRUTH, spi_address
from sequences.ion import IonOperation
from sequences.thermal_rabi import carrier_factors, thermal
from sim.ion.build import SimulatedIonNode
from sim.ion.physics import IonPhysics

ION: Final = "ion"
"""Name of the node."""

# How far a drawn truth may be from the assumed one.
_PI_SPREAD: Final = 0.07
_CARRIER_SPREAD_HZ: Final = 5e3
_RATE_SPREAD: Final = 0.2
_PREPARATION_FACTOR: Final = 3.0

_GATE_SEQUENCES: Final[tuple[tuple[tuple[IonOperation, ...], int], ...]] = (
    ((), 0),
    ((IonOperation.X_PI,), 1),
    ((IonOperation.Y_PI,), 1),
    ((IonOperation.X_HALF, IonOperation.X_HALF), 1),
    ((IonOperation.X_HALF, IonOperation.X_MINUS_HALF), 0),
    ((IonOperation.Y_HALF, IonOperation.X_PI, IonOperation.Y_HALF), 1),
)
"""Operations whose ideal outcome is certain, and the outcome."""


@dataclass(frozen=True)
class IonBenches:
    """What is measured on, and, if it is simulated, the truth.

    Attributes:
        nodes: the node by its name.
        physics: what the simulator was given; None on hardware.
        pacer: of the ticks of a real node; None in simulation, where no tick comes late.
        pair: none: a trapped-ion node has no link.
    """

    nodes: dict[str, IonBench]
    physics: IonPhysics | None = None
    pacer: TickPacer | None = None
    pair: None = None

    def truth(self, result: CalibrationResult, nodes: Sequence[str]) -> dict[str, Any]:
        """What the simulator was given for the values that were found; empty on hardware."""
        if self.physics is None:
            return {}
        physics = self.physics
        detection_us = self.nodes[nodes[0]].calibration.detection_us
        truth: dict[str, float] = {
            "carrier_hz": physics.carrier_hz,
            "pi_ns": _pi_ns(physics),
            "background_cps": physics.dark_cps,
            "signal_cps": physics.bright_cps,
            "preparation_error": physics.preparation_error,
        }
        if "threshold" in result.values:
            threshold = int(result.values["threshold"].value)
            dark_of_s, bright_of_d = physics.readout_errors(detection_us, threshold)
            truth |= {
                "threshold": float(physics.optimal_threshold(detection_us)),
                "dark_of_s": dark_of_s,
                "bright_of_d": bright_of_d,
                "dark_fraction_0": physics.preparation_error,
            }
        return {name: value for name, value in truth.items() if name in result.values}


def ion_gate_errors(bench: IonBench, shots: int) -> float:
    """Share of wrong readouts after sequences of gates whose ideal result is certain."""
    wrong = 0
    for gates, bit in _GATE_SEQUENCES:
        counts = bench.counts((IonOperation.INITIALISE, *gates), shots)
        dark = counts <= bench.calibration.threshold.value
        wrong += int((dark != bool(bit)).sum())
    return wrong / (shots * len(_GATE_SEQUENCES))


@contextmanager
def open_ion_benches(
    name: str, *, seed: int, drawn: bool, calibrations: Path, station: Path | None, spi: str | None
) -> Iterator[IonBenches]:
    """Open what a measurement needs, and close it at the end.

    Args:
        name: of the measurement, or "all".
        seed: of the simulation.
        drawn: whether the simulated truth differs from what is assumed.
        calibrations: directory of calibration files.
        station: Station file of a real node; None to simulate.
        spi: "BUS.DEVICE" of the SPI interface to a real node.

    Raises:
        ConfigurationError: files or addresses are wrong.
        DeviceError: an instrument cannot be used.
    """
    path = calibration_path(calibrations, ION)
    kept = load_calibration(path, ION, IonCalibration) if path.exists() else None
    believed = kept or IonCalibration(node=ION)
    base = IonSettings()
    with ExitStack() as stack, instrument_errors():
        if station is not None:
            yield _real(stack, station, spi, believed, base)
            return
        physics = _truth(seed, drawn)
        if kept is None:
            believed = _prepared(name, believed, physics)
        node = stack.enter_context(SimulatedIonNode(physics, believed.to_settings(base), seed))
        bench = InstrumentIonBench(node.instruments, node.device, believed, base)
        yield IonBenches({ION: bench}, physics)


def _pi_ns(physics: IonPhysics) -> float:
    """The pi time that belongs to the mean Rabi frequency."""
    weights = thermal(physics.mean_phonons)
    return physics.pi_time_ns / float(weights @ carrier_factors(weights.size, physics.eta))


def _prepared(name: str, believed: IonCalibration, physics: IonPhysics) -> IonCalibration:
    """What a new calibration assumes, and what the measurement rests on as if measured before."""
    if name not in ION_ORDER:
        return believed
    detection_us = believed.detection_us
    threshold = physics.optimal_threshold(detection_us)
    dark_of_s, bright_of_d = physics.readout_errors(detection_us, threshold)
    trap_hz = believed.carrier_hz.value - believed.sideband_hz.value
    known = {
        "ion-detection": {
            "threshold": float(threshold),
            "dark_of_s": dark_of_s,
            "bright_of_d": bright_of_d,
            "background_cps": physics.dark_cps,
            "signal_cps": physics.bright_cps,
        },
        "ion-frequency": {
            "carrier_hz": physics.carrier_hz,
            "sideband_hz": physics.carrier_hz - trap_hz,
        },
        "ion-rabi": {"pi_ns": _pi_ns(physics)},
    }
    return believed.replaced(
        **{
            field: Calibrated(value=value, source=SIMULATED_TRUTH)
            for one in ION_ORDER[: ION_ORDER.index(name)]
            for field, value in known[one].items()
        }
    )


def _truth(seed: int, drawn: bool) -> IonPhysics:
    """The ion that is simulated; drawn ones differ from what a new calibration assumes."""
    physics = IonPhysics()
    if not drawn:
        return physics
    rng = Random(f"{seed}/truth/{ION}")
    rates = (1 - _RATE_SPREAD, 1 + _RATE_SPREAD)
    return physics.model_copy(
        update={
            "pi_time_ns": physics.pi_time_ns * rng.uniform(1 - _PI_SPREAD, 1 + _PI_SPREAD),
            "carrier_hz": physics.carrier_hz + rng.uniform(-_CARRIER_SPREAD_HZ, _CARRIER_SPREAD_HZ),
            "bright_cps": physics.bright_cps * rng.uniform(*rates),
            "dark_cps": physics.dark_cps * rng.uniform(*rates),
            "preparation_error": physics.preparation_error * rng.uniform(1, _PREPARATION_FACTOR),
        }
    )


def _real(
    stack: ExitStack, station: Path, spi: str | None, believed: IonCalibration, base: IonSettings
) -> IonBenches:
    """A real node. Not verified on hardware."""
    bus, device = spi_address(spi)
    opened = open_station(station)
    stack.callback(opened.close)
    link = open_spi(bus, device)
    stack.callback(link.close)
    instruments = IonInstruments(opened)
    stack.callback(instruments.close)
    instruments.set_up(believed.to_settings(base))
    pacer = TickPacer(ION_CAPABILITIES.tick_ns)
    qdevice = SpiQDevice(link, ION_CAPABILITIES, pacer)
    return IonBenches({ION: InstrumentIonBench(instruments, qdevice, believed, base)}, pacer=pacer)
