"""Nodes made of closed formulas, fast enough to be calibrated hundreds of times.

They know nothing of instruments: each shot is drawn from probabilities that follow from
the calibration in use and from `Truth`. What the formulas leave out is for the tests on
simulated instruments.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from calibration.bench import (
    NO_PHOTON,
    TICK_US,
    ArrivalHistogram,
    PairShots,
    Program,
    Shots,
    Side,
    Wait,
)
from calibration.file import NodeCalibration
from qnodeos.qdevice.instructions import Axis, Opcode, PhysicalInstruction
from qnodeos.qdevice.outcomes import BellState
from sequences.hyperfine import Turns, lines_hz, refocused, turns
from sequences.pulses import Axis as Channel
from sequences.pulses import PulseCalibration, envelope_area_s, rotation_by_steps

BLOCK_MS = 8 * NodeCalibration(node="any").spacing_samples / 2.4e6


@dataclass(frozen=True)
class Truth:
    """What a calibration should find."""

    resonance_hz: float = 2.0e9
    full_scale_rabi_hz: float = 29e6
    hyperfine_hz: float = 0.0
    initialisation_error: float = 0.01
    bright_rate_hz: float = 31.5e3
    stuck_fraction: float = 0.05
    dark_rate_hz: float = 21.8
    t_coh_ms: float = 13.0
    slip_hz: float = 0.0
    good_photons: float = 40.0
    bad_photons: float = 0.05
    bad_fraction: float = 0.06
    ionising_fraction: float = 0.0

    @property
    def pulses(self) -> PulseCalibration:
        return PulseCalibration.for_full_scale_rabi(self.full_scale_rabi_hz)

    def fidelities(self, duration_us: float) -> tuple[float, float]:
        """F0 and F1."""
        rate, dark = self.bright_rate_hz * 1e-6, self.dark_rate_hz * 1e-6
        silent = self.stuck_fraction + (1 - self.stuck_fraction) * math.exp(-rate * duration_us)
        no_dark = math.exp(-dark * duration_us)
        return 1 - no_dark * silent, no_dark


@dataclass
class FakeNode:
    truth: Truth = Truth()
    seed: int = 1
    name: str = "alice"
    calibration: NodeCalibration = field(init=False)
    applied: int = 0
    fail_after: int | None = None
    """Interrupt the so manieth call of `shots`."""

    def __post_init__(self) -> None:
        self.calibration = NodeCalibration(node=self.name)
        self.rng = np.random.default_rng(self.seed)
        self.calls = 0

    def snapshot(self) -> dict[str, Any]:
        return {"instruments": {"microwave": {"frequency": self.truth.resonance_hz}}}

    def apply(self, calibration: NodeCalibration) -> None:
        self.calibration = calibration
        self.applied += 1

    def shots(self, program: Program, shots: int) -> Shots:
        self.calls += 1
        if self.fail_after is not None and self.calls > self.fail_after:
            raise KeyboardInterrupt
        ones = _ones(tuple(program), self.calibration, self.truth)
        inits = sum(item.opcode == Opcode.INI for item in program if not isinstance(item, Wait))
        photon = np.stack([self._readout(p, shots) for p in ones], axis=1)
        bits = (photon == NO_PHOTON).astype(np.int8)
        return Shots(bits, photon, np.stack([self._checks(shots)] * inits, axis=1))

    def _readout(self, p_one: float, shots: int) -> np.ndarray:
        truth = self.truth
        bright = self.rng.random(shots) >= p_one
        bright &= self.rng.random(shots) >= truth.stuck_fraction
        signal = self.rng.exponential(1e6 / truth.bright_rate_hz, shots)
        signal[~bright] = math.inf
        dark = self.rng.exponential(1e6 / truth.dark_rate_hz, shots)
        first = np.floor(np.minimum(signal, dark))
        first[first >= self.calibration.readout_us.value] = NO_PHOTON
        return first.astype(np.int32)

    def _checks(self, shots: int) -> np.ndarray:
        truth = self.truth
        kind = self.rng.random(shots)
        mean = np.where(kind < truth.bad_fraction, truth.bad_photons, truth.good_photons)
        ionising = kind > 1 - truth.ionising_fraction
        mean = np.where(ionising, self.rng.random(shots) * truth.good_photons, mean)
        return self.rng.poisson(mean).astype(np.int32)


_CACHE: dict[Any, list[float]] = {}


def _ones(program: tuple[Any, ...], calibration: NodeCalibration, truth: Truth) -> list[float]:
    """Probability of |1> at every MSR."""
    key = (program, calibration, truth)
    if key not in _CACHE:
        _CACHE[key] = _evolve(program, calibration, truth)
    return _CACHE[key]


def _evolve(program: tuple[Any, ...], calibration: NodeCalibration, truth: Truth) -> list[float]:
    detuning = truth.resonance_hz - calibration.mw_frequency_hz.value
    lines = lines_hz(detuning, truth.hyperfine_hz)
    rho = np.zeros((3, 2, 2), dtype=complex)
    result: list[float] = []
    wait_ms = 0.0
    played = False
    for item in program:
        if isinstance(item, Wait):
            wait_ms += item.ticks * TICK_US * 1e-3
        elif item.opcode == Opcode.INI:
            e = truth.initialisation_error
            rho[:] = np.diag([e, 1 - e]) if calibration.ini_state else np.diag([1 - e, e])
            played = False
        elif item.opcode == Opcode.MSR:
            result.append(float(rho[:, 1, 1].real.mean()))
        else:
            if played:
                # A word comes 1.5 ticks later, and is seen 2.5 ticks before a block ends.
                blocks = math.ceil((wait_ms + 4 * TICK_US * 1e-3) / BLOCK_MS)
                # Every line turns with the slip of its own sign.
                phase = 2 * math.pi * truth.slip_hz * blocks * BLOCK_MS / 1e3
                keep = math.exp(-blocks * BLOCK_MS / truth.t_coh_ms)
                keep_line = keep * np.exp(1j * phase * np.array([-1, 0, 1]))
                rho[:, 0, 1] *= keep_line
                rho[:, 1, 0] *= keep_line.conj()
            unitary = _unitary(item, calibration, truth, lines)
            rho = unitary @ rho @ np.conj(np.swapaxes(unitary, 1, 2))
            played, wait_ms = True, 0.0
    return result


def _unitary(
    item: PhysicalInstruction, calibration: NodeCalibration, truth: Truth, lines: np.ndarray
) -> np.ndarray:
    channel = Channel.X if item.axis == Axis.X else Channel.Y
    pulse = rotation_by_steps(item.steps, channel, calibration.to_table_settings().calibration)
    area = envelope_area_s(pulse.n_samples, pulse.coefficient) * pulse.amplitude
    angle = 2 * math.pi * truth.full_scale_rabi_hz * area
    made = turns([angle], pulse.n_samples, pulse.coefficient, lines)
    turn: Turns = refocused(made, pulse.n_samples, lines)
    phase = 1j if channel == Channel.Y else 1.0
    a, b = turn.a[0], turn.b[0] * phase
    return np.stack([np.stack([a, -b.conj()], -1), np.stack([b, a.conj()], -1)], -2)


# --- pairs --------------------------------------------------------------------------------


@dataclass
class FakePair:
    """Equal nodes under the single-photon protocol, heralding both Psi states.

    With ``phi`` the server's qubit is flipped and Phi states are heralded, whose XX and YY
    differ in sign.
    """

    seed: int = 1
    detection: float = 4e-4
    dark: float = 3e-7
    contrast: float = 0.84
    f0: float = 0.95
    f1: float = 0.995
    phi: bool = False
    client_delay_ns: float = 120.0
    server_delay_ns: float = 97.5

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)
        self.client = FakeNode(name="alice")
        self.server = FakeNode(name="bob")

    def density(self, alpha: float) -> tuple[np.ndarray, float]:
        """State heralded as Psi+, and success probability."""
        one = alpha * (1 - alpha) * (self.detection + self.dark)
        both = alpha**2 * (2 * self.detection + self.dark)
        none = (1 - alpha) ** 2 * self.dark
        rho = np.diag([both, one, one, none]).astype(complex)
        rho[1, 2] = rho[2, 1] = alpha * (1 - alpha) * self.detection * self.contrast
        success = both + 2 * one + none
        return rho / success, success

    def fidelity(self, alpha: float) -> float:
        rho, _ = self.density(alpha)
        return float((rho[1, 1] + rho[2, 2]).real / 2 + rho[1, 2].real)

    def pairs(
        self,
        basis_client: Sequence[PhysicalInstruction],
        basis_server: Sequence[PhysicalInstruction],
        pairs: int,
    ) -> PairShots:
        rho, success = self.density(self.client.calibration.alpha.value)
        states = [BellState.PSI_PLUS, BellState.PSI_MINUS]
        if self.phi:
            states = [BellState.PHI_PLUS, BellState.PHI_MINUS]
            rho = rho[np.ix_([1, 0, 3, 2], [1, 0, 3, 2])]
        heralds = self.rng.choice(states, pairs)
        bits = np.zeros((pairs, 2), dtype=np.int8)
        for herald in BellState:
            mine = heralds == herald
            sign = np.diag([1.0, 1.0, -1.0, -1.0]) if herald == states[1] else np.eye(4)
            both = np.kron(ideal(basis_client), ideal(basis_server)) @ sign
            p = (both @ rho @ both.conj().T).diagonal().real.clip(0)
            drawn = self.rng.choice(4, int(mine.sum()), p=p / p.sum())
            bits[mine] = np.stack([drawn // 2, drawn % 2], axis=1)
        wrong = self.rng.random(bits.shape) >= np.where(bits == 0, self.f0, self.f1)
        attempts = self.rng.geometric(success, pairs)
        return PairShots(heralds.astype(np.int8), bits ^ wrong, attempts, 5500.0)

    def arrival_histogram(self, side: Side, attempts: int) -> ArrivalHistogram:
        delay = self.client_delay_ns if side == "client" else self.server_delay_ns
        n = self.rng.poisson(attempts * self.detection)
        times = 2500 + delay + self.rng.exponential(12, n) + self.rng.normal(0, 0.5, n)
        background = self.rng.uniform(2400, 2800, self.rng.poisson(200))
        counts, _ = np.histogram(np.concatenate([times, background]), 400, (2400, 2800))
        return ArrivalHistogram(2400.0, 1.0, counts.astype(np.int64), 2500.0)


def ideal(basis: Sequence[PhysicalInstruction]) -> np.ndarray:
    """The unitary of ideal rotations, from the generators."""
    unitary = np.eye(2, dtype=complex)
    for item in basis:
        half = item.steps * math.pi / 32
        generator = np.array([[0, 1], [1, 0]]) if item.axis == Axis.X else [[0, -1j], [1j, 0]]
        unitary = (np.cos(half) * np.eye(2) - 1j * np.sin(half) * np.asarray(generator)) @ unitary
    return unitary
