"""How long the instructions of a simulated NV centre take."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field

MAX_TICKS: Final = 1_000_000
Duration = Annotated[int, Field(ge=1, le=MAX_TICKS)]


class NVTiming(BaseModel):
    """Durations in ticks; an outcome is visible that many ticks after the start.

    Source of the tick and of the decoupling: Delle Donne et al., Nature 639, 321 (2025),
    doi:10.1038/s41586-025-08704-w ("published").
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    tick_ns: int = Field(
        10_000, ge=1, le=1_000_000_000, description="time between two frames (published)"
    )
    initialise_ticks: Duration = Field(2, description="charge check and reset to |0> (assumed)")
    gate_ticks: Duration = Field(
        1, description="a pulse; the decoupling block behind it runs on by itself (assumed)"
    )
    dd_block_ticks: Duration = Field(
        8,
        description=(
            "one XY8 block: eight pulses about 10 us apart (derived from 1,300 pulses in 13 ms). "
            "Gates and measurements start between two blocks; 1 switches that off"
        ),
    )
    measure_ticks: Duration = Field(
        24,
        description=(
            "readout (assumed). With the blocks it sets how long two gates and a measurement "
            "take, 0.653 ms in the published traces with the time of the QNPU"
        ),
    )
    repump_ticks: Duration = Field(
        30, description="bringing an ionised centre back, 300 us (assumed)"
    )

    def block_start(self, tick: int, origin: int) -> int:
        """First boundary between decoupling blocks at or after a tick.

        Args:
            tick: when the instruction is there.
            origin: when the decoupling of the qubit began.
        """
        return origin + -(-(tick - origin) // self.dd_block_ticks) * self.dd_block_ticks
