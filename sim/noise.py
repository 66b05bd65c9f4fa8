"""The noise of a simulated NV centre, as numbers with their sources.

The model: rotations are followed by depolarising noise, coherences decay while the qubit
waits under dynamical decoupling, readouts err with different probabilities for the bright
(|0>) and the dark state (|1>), and a readout may ionise the centre, which then reads dark
and fails the next charge-resonance (CR) check.
"""

from __future__ import annotations

import math
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field

Probability = Annotated[float, Field(ge=0, le=1)]
NS_PER_MS: Final = 1_000_000


class NVNoise(BaseModel):
    """Noise of one NV node.

    Sources: "published" is Delle Donne et al., Nature 639, 321 (2025),
    doi:10.1038/s41586-025-08704-w, with its supplement and data.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    readout_fidelity_0: Probability = Field(
        0.95, description="P(report 0) of the bright state |0> (published)"
    )
    readout_fidelity_1: Probability = Field(
        0.995, description="P(report 1) of the dark state |1> (published)"
    )
    initialisation_error: Probability = Field(
        0.01, description="probability of |1> after initialisation (published)"
    )
    gate_depolarising: Probability = Field(
        0.0028,
        description=(
            "depolarising probability p of a rotation, rho -> (1-p) rho + p I/2. Assumed: "
            "2 (1-F) with the infidelity 1.4e-3 computed for a padded instruction waveform. "
            "A value of 0.01 would not allow ~1,300 decoupling pulses in one coherence time"
        ),
    )
    coherence_time_ms: float = Field(
        13.0, ge=1e-6, description="1/e time under decoupling (published); may be infinite"
    )
    coherence_exponent: float = Field(
        1.0, gt=0, le=4, description="n in exp(-(t/T)**n) (assumed: exponential)"
    )
    ionisation_per_readout: Probability = Field(
        0.015,
        description=(
            "probability that a readout ionises the centre. Assumed: 1 - (1 - 0.015)**2 = 3 % "
            "of the iterations with one readout at each of two nodes then fail the CR check"
        ),
    )

    @classmethod
    def noiseless(cls) -> NVNoise:
        """A perfect centre: nothing errs, nothing decays."""
        return cls(
            readout_fidelity_0=1,
            readout_fidelity_1=1,
            initialisation_error=0,
            gate_depolarising=0,
            coherence_time_ms=math.inf,
            ionisation_per_readout=0,
        )

    def coherence_factor(self, start_ns: int, stop_ns: int) -> float:
        """What the coherences keep between two ages of a qubit, counted from its creation.

        Args:
            start_ns: age at the start of the wait.
            stop_ns: age at its end, not before ``start_ns``.

        Returns:
            exp(-[(stop/T)**n - (start/T)**n]), in 0..1.
        """
        scale = self.coherence_time_ms * NS_PER_MS
        exponent = self.coherence_exponent
        return math.exp((start_ns / scale) ** exponent - (stop_ns / scale) ** exponent)
