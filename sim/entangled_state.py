"""What a heralded entanglement attempt leaves in two electron spins.

`SinglePhotonProtocol` is the state of the single-photon protocol, equations 8 and 10 of
Humphreys et al., Nature 558, 268 (2018), doi:10.1038/s41586-018-0200-5. Each node prepares
sqrt(alpha) |0>|1 photon> + sqrt(1 - alpha) |1>|0 photons>, with |0> the bright state; one
click behind a beam splitter heralds Psi+ or Psi-, by the detector that clicked.

`PerfectProtocol` heralds exact Bell states and serves tests and noiseless runs.
`WernerProtocol` heralds Bell states mixed with white noise, the usual model of a pair of which
only the fidelity is known; `BitFlipProtocol` Bell states with a spin flipped now and then.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Final, Literal, NamedTuple, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from scipy.optimize import brentq, minimize_scalar

from qnodeos.errors import CallerError
from qnodeos.qdevice.outcomes import BellState
from sim.pauli import Complex, PauliState, depolarising_pair

BELL_VECTORS: Final[Mapping[BellState, Complex]] = {
    BellState.PHI_PLUS: np.array([1, 0, 0, 1], dtype=np.complex128) / math.sqrt(2),
    BellState.PSI_PLUS: np.array([0, 1, 1, 0], dtype=np.complex128) / math.sqrt(2),
    BellState.PSI_MINUS: np.array([0, 1, -1, 0], dtype=np.complex128) / math.sqrt(2),
    BellState.PHI_MINUS: np.array([1, 0, 0, -1], dtype=np.complex128) / math.sqrt(2),
}
"""Amplitudes of |00>, |01>, |10>, |11>."""

ALPHA_MIN: Final = 1e-6
ALPHA_MAX: Final = 1 - 1e-6
_NS_PER_S: Final = 1e9

BrightFraction = Annotated[float, Field(ge=ALPHA_MIN, le=ALPHA_MAX)]
DetectionProbability = Annotated[float, Field(ge=0, le=0.5)]


class Populations(NamedTuple):
    """Probabilities, per attempt, of one click together with each pair of spin states."""

    both_bright: float
    a_bright: float
    b_bright: float
    both_dark: float


class Correlators(NamedTuple):
    """Two-spin expectation values of the state heralded as Psi+."""

    xx: float
    yy: float
    zz: float


class _Protocol(BaseModel, ABC):
    """What all protocols share."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def state(self, bell: BellState) -> PauliState:
        """A fresh copy of the state of spins A and B after a herald of ``bell``.

        Raises:
            CallerError: this protocol never heralds that state.
        """
        states = self._tensors
        if bell not in states:
            known = ", ".join(state.name for state in states)
            raise CallerError(f"this protocol never heralds {bell.name}, only {known}")
        return states[bell].copy()

    @cached_property
    @abstractmethod
    def _tensors(self) -> Mapping[BellState, PauliState]:
        """The states it heralds."""


class SinglePhotonProtocol(_Protocol):
    """The single-photon protocol between two nodes A and B, and the state it heralds.

    The defaults give F = 0.72 as in the paper (Delle Donne et al., Nature 639, 321 (2025));
    the individual contributions are assumed, in the range of Humphreys et al. (2018).
    """

    kind: Literal["single_photon"] = Field("single_photon", description="which protocol this is")
    alpha_a: BrightFraction = Field(
        0.2256, description="bright-state population at A (assumed: gives F = 0.72)"
    )
    alpha_b: BrightFraction = Field(
        0.2256, description="bright-state population at B (assumed: gives F = 0.72)"
    )
    p_det_a: DetectionProbability = Field(
        4e-4, description="probability that a photon emitted by A is detected (assumed)"
    )
    p_det_b: DetectionProbability = Field(
        4e-4, description="probability that a photon emitted by B is detected (assumed)"
    )
    visibility: float = Field(
        0.9, ge=0, le=1, description="two-photon interference visibility (assumed)"
    )
    phase_sd_deg: float = Field(
        15.0, ge=0, le=180, description="standard deviation of the optical phase (assumed)"
    )
    double_excitation: float = Field(
        0.06, ge=0, le=1, description="probability of a second excitation (assumed)"
    )
    dark_rate_hz: float = Field(
        10.0, ge=0, le=1e6, description="dark counts of each of the two detectors (assumed)"
    )
    window_ns: float = Field(
        15.0, gt=0, le=1e3, description="detection window of an attempt (assumed)"
    )
    phase_offset_rad: float = Field(
        0.0,
        ge=-2 * math.pi,
        le=2 * math.pi,
        description="phase of the element |01><10| that calibration left over (assumed 0)",
    )

    @model_validator(mode="after")
    def _can_succeed(self) -> Self:
        if self.success_probability <= 0:
            raise ValueError("no attempt can succeed: p_det_a, p_det_b and dark_rate_hz are all 0")
        return self

    @property
    def heralds(self) -> tuple[BellState, ...]:
        """The Bell states this protocol heralds, equally often."""
        return (BellState.PSI_PLUS, BellState.PSI_MINUS)

    @property
    def populations(self) -> Populations:
        """Joint probabilities of a click and each pair of spin states (eq. 8)."""
        no_dark, dark = self._dark
        a, b = self.alpha_a, self.alpha_b
        p_a, p_b = self.p_det_a, self.p_det_b
        return Populations(
            both_bright=a * b * (no_dark * (p_a + p_b - p_a * p_b) + dark * (1 - p_a) * (1 - p_b)),
            a_bright=a * (1 - b) * (no_dark * p_a + dark * (1 - p_a)),
            b_bright=(1 - a) * b * (no_dark * p_b + dark * (1 - p_b)),
            both_dark=(1 - a) * (1 - b) * dark,
        )

    @property
    def _dark(self) -> tuple[float, float]:
        """Probabilities of no dark count, and of at least one, in both detectors together."""
        expected_counts = 2 * self.dark_rate_hz * self.window_ns / _NS_PER_S
        return math.exp(-expected_counts), -math.expm1(-expected_counts)

    @property
    def success_probability(self) -> float:
        """Probability that one attempt is heralded, either way."""
        return math.fsum(self.populations)

    @property
    def coherence(self) -> float:
        """Magnitude of the element |01><10| of the heralded state (eq. 10)."""
        no_dark, _ = self._dark
        a, b = self.alpha_a, self.alpha_b
        from_a = a * (1 - b) * no_dark * self.p_det_a
        from_b = (1 - a) * b * no_dark * self.p_det_b
        contrast = (
            math.sqrt(self.visibility)
            * math.exp(-(math.radians(self.phase_sd_deg) ** 2) / 2)
            * (1 - self.double_excitation)
        )
        return math.sqrt(from_a * from_b) * contrast / self.success_probability

    @property
    def correlators(self) -> Correlators:
        """XX, YY and ZZ of the state heralded as Psi+; Psi- has the signs of XX, YY reversed.

        ZZ is negative, as of every Psi state; the X gate that makes it a Phi state turns
        the signs of YY and ZZ.
        """
        tensor = self._tensors[BellState.PSI_PLUS].tensor
        return Correlators(float(tensor[1, 1]), float(tensor[2, 2]), float(tensor[3, 3]))

    @property
    def fidelity(self) -> float:
        """Fidelity of the heralded state to the Bell state announced (the same for both)."""
        return self._tensors[BellState.PSI_PLUS].fidelity(BELL_VECTORS[BellState.PSI_PLUS])

    @cached_property
    def _tensors(self) -> Mapping[BellState, PauliState]:
        populations = self.populations
        total = self.success_probability
        states = {}
        for bell, sign in ((BellState.PSI_PLUS, 1), (BellState.PSI_MINUS, -1)):
            rho = np.diag(np.asarray(populations, dtype=np.complex128) / total)
            rho[1, 2] = sign * self.coherence * np.exp(1j * self.phase_offset_rad)
            rho[2, 1] = rho[1, 2].conj()
            states[bell] = PauliState.from_density_matrix(rho)
        return states

    def with_alpha(self, alpha: float) -> SinglePhotonProtocol:
        """The same protocol with another bright-state population at both nodes."""
        return SinglePhotonProtocol.model_validate(
            {**self.model_dump(), "alpha_a": alpha, "alpha_b": alpha}
        )

    def for_fidelity(self, fidelity: float) -> SinglePhotonProtocol:
        """The same protocol with the alpha (equal at both nodes) that gives a fidelity.

        A small alpha gives a high fidelity and a low rate, until dark counts win: of the
        two alphas that give a fidelity this takes the larger one, which has the higher rate.

        Raises:
            CallerError: no alpha gives that fidelity.
        """

        def fidelity_at(log_alpha: float) -> float:
            return self.with_alpha(math.exp(log_alpha)).fidelity

        smallest, largest = math.log(ALPHA_MIN), math.log(ALPHA_MAX)
        best = float(
            minimize_scalar(
                lambda log_alpha: -fidelity_at(log_alpha),
                bounds=(smallest, largest),
                method="bounded",
                options={"xatol": 1e-6},
            ).x
        )
        reachable = fidelity_at(largest), fidelity_at(best)
        if not reachable[0] <= fidelity <= reachable[1]:
            raise CallerError(
                f"no alpha gives a fidelity of {fidelity}: this protocol reaches "
                f"{reachable[0]:.4f} to {reachable[1]:.4f}; ask for less or reduce its noise"
            )
        log_alpha = brentq(lambda value: fidelity_at(value) - fidelity, best, largest, xtol=1e-12)
        return self.with_alpha(math.exp(log_alpha))


class _AnyHeralds(_Protocol):
    """What the protocols without a model of the photons share."""

    success_probability: float = Field(
        1.8e-4, gt=0, le=1, description="per attempt (assumed: as the single-photon protocol)"
    )
    heralds: tuple[BellState, ...] = Field(
        (BellState.PSI_PLUS, BellState.PSI_MINUS),
        min_length=1,
        max_length=len(BellState),
        description="the Bell states heralded, equally often",
    )

    @field_validator("heralds")
    @classmethod
    def _distinct(cls, heralds: tuple[BellState, ...]) -> tuple[BellState, ...]:
        if len(set(heralds)) != len(heralds):
            raise ValueError(f"the heralded states must be distinct: {heralds}")
        return heralds


class PerfectProtocol(_AnyHeralds):
    """Exact Bell states, heralded with a given probability per attempt."""

    kind: Literal["perfect"] = Field("perfect", description="which protocol this is")

    @property
    def fidelity(self) -> float:
        """Overlap of the heralded state with the Bell state announced."""
        return 1.0

    @cached_property
    def _tensors(self) -> Mapping[BellState, PauliState]:
        return {bell: _PERFECT[bell] for bell in self.heralds}


class WernerProtocol(_AnyHeralds):
    """Bell states with white noise: rho = p |B><B| + (1 - p) I/4, with F = (1 + 3 p)/4."""

    kind: Literal["werner"] = Field("werner", description="which protocol this is")
    fidelity: float = Field(
        0.9,
        ge=0.25,
        le=1,
        description="overlap of the heralded state with the Bell state announced (assumed)",
    )

    @cached_property
    def _tensors(self) -> Mapping[BellState, PauliState]:
        noise = depolarising_pair(4 * (1 - self.fidelity) / 3)
        states = {}
        for bell in self.heralds:
            states[bell] = _PERFECT[bell].copy()
            states[bell].apply_pair(0, 1, noise)
        return states


class BitFlipProtocol(_AnyHeralds):
    """Bell states one of whose spins is flipped now and then: F |B><B| + (1 - F) X |B><B| X."""

    kind: Literal["bit_flip"] = Field("bit_flip", description="which protocol this is")
    fidelity: float = Field(
        0.9,
        ge=0,
        le=1,
        description="overlap of the heralded state with the Bell state announced (assumed)",
    )

    @cached_property
    def _tensors(self) -> Mapping[BellState, PauliState]:
        kept = 2 * self.fidelity - 1  # of Y and Z, which a flip about X inverts
        states = {}
        for bell in self.heralds:
            states[bell] = _PERFECT[bell].copy()
            states[bell].apply(0, np.diag([1.0, 1.0, kept, kept]))
        return states


_PERFECT: Final = {bell: PauliState.from_pure(vector) for bell, vector in BELL_VECTORS.items()}

EntanglementProtocol = Annotated[
    SinglePhotonProtocol | PerfectProtocol | WernerProtocol | BitFlipProtocol,
    Field(discriminator="kind"),
]
