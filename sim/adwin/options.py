"""What is assumed of the language and the processor, as named options."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

Cycles = Annotated[int, Field(ge=0, le=100_000)]
Processor = Literal["T11", "T12"]

LONG_MIN: Final = -0x8000_0000
LONG_MAX: Final = 0x7FFF_FFFF


class _Options(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Semantics(_Options):
    """Meaning of the language where no public document fixes it; every default is assumed."""

    float_to_long: Literal["truncate", "nearest"] = Field(
        "truncate", description="what assigning a FLOAT to a LONG does with its fraction"
    )
    long_division: Literal["truncate", "float"] = Field(
        "truncate", description="LONG / LONG: a LONG rounded towards zero, or a FLOAT"
    )
    float_bits: Literal[32, 64] = Field(
        32, description="width of a FLOAT: 32 bits on a T11, 64 on a T12 (assumed)"
    )
    macro_arguments: Literal["by name", "once"] = Field(
        "by name",
        description=(
            "whether an expression given to a SUB or FUNCTION is evaluated at every use of the "
            "parameter or once before the body; variables and elements always go by name"
        ),
    )


class Costs(_Options):
    """Processor time of a program, in cycles; all assumed.

    A comment in public laboratory programs puts about one operation in a cycle ("at most 300
    operations in one round" of 300 cycles). Modules sit behind a bus, and are slower.
    """

    operation: Cycles = Field(1, description="an operator, a load or a store of a local variable")
    memory: Cycles = Field(2, description="an access to an array, PAR or FPAR")
    branch: Cycles = Field(2, description="a decision, or one turn of a loop")
    division: Cycles = Field(18, description="a division or remainder")
    function: Cycles = Field(40, description="a sine, root or other mathematical function")
    instruction: Cycles = Field(15, description="an instruction to a module")
    event: Cycles = Field(20, description="entering and leaving an event")


class ProcessorModel(_Options):
    """One of the processors of an ADwin-Pro II, and how its programs are run (simulated).

    Clock: 300 MHz for a T11 (a Processdelay of 300 is 1 us in public laboratory programs),
    1 GHz for a T12 (Processdelay = 1,000,000,000 / frequency in the vendor's Python examples).
    """

    name: Processor = "T11"
    clock_hz: int = Field(300_000_000, ge=1_000_000, le=10_000_000_000)
    semantics: Semantics = Semantics()
    costs: Costs = Costs()
    pending_events: Literal[0, 1] = Field(
        1,
        description=(
            "how many timer events that come while the previous event still runs are made up "
            "for (assumed); the others are lost"
        ),
    )
    external_clock_cycles: int | None = Field(
        None,
        ge=1,
        le=LONG_MAX,
        description=(
            "period of a clock at the event input, which then starts the events of processes "
            "with an external event source; None if edges are announced one by one"
        ),
    )
    max_section_ms: float = Field(
        100.0,
        gt=0,
        le=10_000,
        description="processor time after which one pass through a section is called runaway",
    )
    memory_bytes: dict[int, int] = Field(
        default={1: 1 << 18, 2: 3 << 18, 3: 1 << 18, 4: 1 << 28},
        description=(
            "size of each kind of memory by the number Free_Mem takes: 1 PM_LOCAL, 2 EM_LOCAL, "
            "3 DM_LOCAL, 4 DRAM_EXTERN, 5 CACHEABLE (assumed)"
        ),
    )

    @classmethod
    def t11(cls) -> ProcessorModel:
        """A T11 with its assumed defaults."""
        return cls()

    @classmethod
    def t12(cls) -> ProcessorModel:
        """A T12 with its assumed defaults."""
        return cls(
            name="T12",
            clock_hz=1_000_000_000,
            semantics=Semantics(float_bits=64),
            memory_bytes={5: 3 << 28},
        )

    @property
    def max_section_cycles(self) -> int:
        """`max_section_ms` in cycles."""
        return int(self.max_section_ms * self.clock_hz / 1_000)

    def cycles(self, time_ns: float) -> int:
        """Whole cycles in a time."""
        return int(time_ns * self.clock_hz // 1_000_000_000)

    def time_ns(self, cycles: int) -> float:
        """Duration of some cycles."""
        return cycles * 1e9 / self.clock_hz
