"""How long the instructions of a simulated NV centre take.

The defaults are what the instrument-level simulation takes (`sim.lab.durations`): the command
`qnodeos timing` measures them again, and a test compares.
"""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field

MAX_TICKS: Final = 1_000_000
MAX_NS: Final = 10_000_000_000
Duration = Annotated[int, Field(ge=1, le=MAX_TICKS)]
Nanoseconds = Annotated[int, Field(ge=0, le=MAX_NS)]


class NVTiming(BaseModel):
    """Durations; an outcome is visible in the tick after the one in which it is there.

    Source of the tick and of the decoupling: Delle Donne et al., Nature 639, 321 (2025),
    doi:10.1038/s41586-025-08704-w ("published"). "Measured" is at the instrument level of the
    simulation, whose own durations are assumed or fitted.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    tick_ns: int = Field(
        10_000, ge=1, le=1_000_000_000, description="time between two frames (published)"
    )
    initialise_ticks: Duration = Field(2, description="charge check and reset to |0> (measured)")
    gate_ticks: Duration = Field(
        1, description="a pulse; the decoupling behind it runs on by itself (measured)"
    )
    dd_block_ns: Nanoseconds = Field(
        80_340,
        description=(
            "one XY8 block: eight pulses 10.04 us apart (derived from 1,300 pulses in 13 ms). "
            "While the qubit is decoupled, from its first gate or its herald on, instructions "
            "start between two blocks; 0 switches that off"
        ),
    )
    dd_lead_ns: Nanoseconds = Field(
        26_000,
        description=(
            "how long before the end of a block an instruction must have come to be next "
            "(measured; it grows with the unpublished depth of the AWG's queue)"
        ),
    )
    herald_lag_ns: Nanoseconds = Field(
        9_400,
        description=(
            "from the pulse with which the decoupling of a heralded qubit begins to the tick of "
            "its outcome (measured; on average)"
        ),
    )
    measure_ns: Nanoseconds = Field(
        191_000,
        description=(
            "readout (measured; the 190 us in it are fitted). With the blocks it sets how long "
            "two gates and a measurement take, 0.653 ms in the published traces with the time of "
            "the QNPU"
        ),
    )
    repump_ticks: Duration = Field(
        32, description="bringing an ionised centre back, and another charge check (measured)"
    )

    def start_ns(self, time_ns: int, origin_ns: int | None) -> int:
        """When an instruction starts.

        Args:
            time_ns: when it has come.
            origin_ns: when the decoupling of the qubit began; None if it is not decoupled.
        """
        block_ns = self.dd_block_ns
        if origin_ns is None or not block_ns:
            return time_ns
        blocks = -(-(time_ns + self.dd_lead_ns - origin_ns) // block_ns)
        return origin_ns + max(1, blocks) * block_ns

    def tick_after(self, time_ns: int) -> int:
        """The first tick at which can be known what is there at a time."""
        return time_ns // self.tick_ns + 1
