"""What a calibration measurement needs of a node, or of two: the bench it runs on.

A measurement sees programs of physical instructions, their outcomes and photon times,
and the calibration in use. Whether the bench is a laboratory or its simulation is the
business of whoever builds it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from calibration.file import NodeCalibration
from calibration.ion_bench import IonBench
from qnodeos.qdevice.instructions import PhysicalInstruction

TICK_US: Final = 10
"""Period of the instruction clock (Delle Donne et al., Nature 639, 321 (2025), Methods)."""

NO_PHOTON: Final = -1
"""In `Shots.first_photon_us`: the readout saw none."""


class Wait(NamedTuple):
    """Let some ticks of the instruction clock pass before the next instruction."""

    ticks: int


Program = Sequence[PhysicalInstruction | Wait]


class Shots(NamedTuple):
    """What the repetitions of a program gave.

    Attributes:
        bits: outcome of every MSR in the program, shape (shots, n_readouts).
        first_photon_us: from the start of each readout to its first photon in whole
            microseconds, `NO_PHOTON` if there was none; shape (shots, n_readouts).
        cr_counts: photons in the first charge-resonance (CR) check of every INI, before any
            repumping, shape (shots, n_inits).
    """

    bits: NDArray[np.int8]
    first_photon_us: NDArray[np.int32]
    cr_counts: NDArray[np.int32]


class PairShots(NamedTuple):
    """Entangled pairs, each measured at once.

    Attributes:
        heralds: a `qnodeos.qdevice.outcomes.BellState` each, shape (pairs,).
        bits: outcomes at client and server, shape (pairs, 2).
        attempts: made for each pair, the heralded one included, shape (pairs,).
        attempt_period_ns: from one attempt to the next.
    """

    heralds: NDArray[np.int8]
    bits: NDArray[np.int8]
    attempts: NDArray[np.int64]
    attempt_period_ns: float


@dataclass(frozen=True)
class ArrivalHistogram:
    """When the photons of one node arrive at the heralding station.

    Times count from the edge on the node's own DIO lines that started the attempt.

    Attributes:
        first_ns: start of the first bin.
        bin_ns: width of a bin.
        counts: shape (n_bins,).
        expected_ns: where photons emitted at once would arrive if the AWG's output followed
            the edge without delay: place of the optical pulse in the attempt, plus the
            optical and electrical path to the time tagger.
        shift_ns: how much later than it would be by itself the optical pulse is in the
            attempt, to make photons of both nodes coincide.
    """

    first_ns: float
    bin_ns: float
    counts: NDArray[np.int64]
    expected_ns: float
    shift_ns: float = 0.0


class CalibrationNode(Protocol):
    """One node, set up to be measured."""

    @property
    def name(self) -> str:
        """Of the node."""
        ...

    @property
    def calibration(self) -> NodeCalibration:
        """The values in use."""
        ...

    def snapshot(self) -> dict[str, Any]:
        """Of the QCoDeS station: every setting of every instrument."""
        ...

    def apply(self, calibration: NodeCalibration) -> None:
        """Use other values: builds and uploads what depends on them."""
        ...

    def shots(self, program: Program, shots: int) -> Shots:
        """Run a program many times."""
        ...


Side = Literal["client", "server"]


class CalibrationPair(Protocol):
    """Two nodes on a link."""

    @property
    def client(self) -> CalibrationNode:
        """One node."""
        ...

    @property
    def server(self) -> CalibrationNode:
        """The other."""
        ...

    def pairs(
        self,
        basis_client: Sequence[PhysicalInstruction],
        basis_server: Sequence[PhysicalInstruction],
        pairs: int,
    ) -> PairShots:
        """Entangle, rotate at both nodes and read out, until there are so many pairs."""
        ...


class ArrivalBench(CalibrationPair, Protocol):
    """A pair whose heralding station has a time tagger."""

    def arrival_histogram(self, side: Side, attempts: int) -> ArrivalHistogram:
        """Make attempts with the optical pulses of one side alone."""
        ...


@contextmanager
def restored(*nodes: CalibrationNode | IonBench) -> Iterator[None]:
    """Put the calibrations in use back at the end, also after an error or an interrupt."""
    originals: list[Any] = [node.calibration for node in nodes]
    try:
        yield
    finally:
        for node, original in zip(nodes, originals, strict=True):
            if node.calibration != original:
                node.apply(original)
