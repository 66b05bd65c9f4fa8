"""Delays of the wires and optics of a simulated laboratory. None of them is published."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field

NS_PER_EVENT: Final = 1_000
SAMPLES_PER_EVENT: Final = 2_400
"""One event of the ADwin program, in nanoseconds (cycles of a T12) and in samples of the AWG."""

SAMPLES_PER_NS: Final = 2.4

Delay = Annotated[float, Field(ge=0, le=900)]


class LabTiming(BaseModel):
    """Knobs; every default is assumed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dio_cable_ns: Delay = Field(5.0, description="ADwin output to the DIO lines of the AWG")
    trigger_cable_ns: Delay = Field(5.0, description="AWG trigger and marker to an ADwin input")
    neighbour_cable_ns: Delay = Field(
        150.0,
        description=(
            "ADwin output to the other node's ADwin input (some 30 m). Both nodes must see a line "
            "in the event after the one that set it, so this stays below one event"
        ),
    )
    photon_flight_ns: Annotated[float, Field(ge=0, le=100_000)] = Field(
        170.0, description="from the optical pulse to the detectors (some 35 m of fibre)"
    )
    herald_ns: Annotated[float, Field(ge=0, le=100_000)] = Field(
        300.0,
        description=(
            "from a detector's click to the herald line at both nodes. It has to arrive before "
            "the AWG's decision, less the delay of its DIO lines"
        ),
    )
    arrival_offset_ns: Annotated[float, Field(ge=-1000, le=1000)] = Field(
        0.0, description="how much later the photons of the second node arrive at the detectors"
    )
    lifetime_ns: Annotated[float, Field(gt=0, le=1000)] = Field(
        12.0,
        description=(
            "lifetime of the excited state (Humphreys et al., Nature 558, 268 (2018)); photons "
            "that miss each other by more do not interfere"
        ),
    )


def sample_of_ns(time_ns: float) -> int:
    """The first sample not before a time."""
    return -int(-time_ns * SAMPLES_PER_NS // 1)


def ns_of_sample(sample: float) -> int:
    """The first nanosecond not before a sample."""
    return -int(-sample / SAMPLES_PER_NS // 1)
