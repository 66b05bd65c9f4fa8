"""How long the instructions of a simulated trapped-ion node take.

The defaults are what the instrument-level simulation takes with its default sequences
(`sim.ion.durations`); a test compares.
"""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field

MAX_TICKS: Final = 1_000_000
Duration = Annotated[int, Field(ge=1, le=MAX_TICKS)]


class IonTiming(BaseModel):
    """Durations, in ticks from the frame of an instruction to the one with its outcome.

    Source of the tick: Delle Donne et al., Nature 639, 321 (2025),
    doi:10.1038/s41586-025-08704-w ("published"). "Measured" is at the instrument level of the
    simulation, with the durations of `sequences.ion.IonSequenceSettings`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    tick_ns: int = Field(
        20_000, ge=1, le=1_000_000_000, description="time between two frames (published)"
    )
    initialise_ticks: Duration = Field(
        503, description="Doppler cooling, sideband cooling, optical pumping (measured)"
    )
    pi_ticks: Duration = Field(1, description="a pulse of pi (measured)")
    half_pi_ticks: Duration = Field(1, description="a pulse of pi/2 or -pi/2 (measured)")
    measure_ticks: Duration = Field(76, description="fluorescence detection (measured)")
    detection_us: int = Field(
        1_500, ge=1, le=100_000, description="time in which photons are counted (published)"
    )
    threshold: int = Field(
        33, ge=0, le=65_534, description="most photons that count as dark (derived)"
    )
