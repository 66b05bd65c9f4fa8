"""Latency profiles: how long the software of a node takes, as data.

A profile says how long a CNPU computes between two things it does, how long messages to
and from its QNPU take, and how long messages between nodes take. `paper` has the published
experiment's distributions; `zero` has none of it. Profiles are YAML files in
`qnodeos/config/profiles`.
"""

from __future__ import annotations

from random import Random
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

_MS_IN_NS = 1_000_000
Milliseconds = Annotated[float, Field(ge=0, le=10_000)]


class Delay(BaseModel):
    """A random delay: gamma-distributed with this mean and standard deviation."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mean_ms: Milliseconds = Field(0.0, description="mean")
    sd_ms: Milliseconds = Field(0.0, description="standard deviation; 0 makes the delay constant")

    def sample_ns(self, rng: Random) -> int:
        """Draw a delay."""
        if self.mean_ms == 0.0:
            return 0
        if self.sd_ms == 0.0:
            return round(self.mean_ms * _MS_IN_NS)
        shape = (self.mean_ms / self.sd_ms) ** 2
        return round(rng.gammavariate(shape, self.mean_ms / shape) * _MS_IN_NS)


_NONE = Delay()


class Spikes(BaseModel):
    """Rare stalls of the CNPU (its operating system is no real-time one)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    probability: float = Field(
        0.0,
        ge=0,
        le=1,
        description=(
            "of a stall, each time a program goes from a classical message it received to its "
            "next subroutine"
        ),
    )
    at_least_ms: Milliseconds = Field(0.0, description="shortest stall")
    excess_ms: Milliseconds = Field(0.0, description="mean of the exponentially distributed rest")

    def sample_ns(self, rng: Random) -> int:
        """Draw a stall: almost always 0."""
        if self.probability == 0.0 or rng.random() >= self.probability:
            return 0
        excess = rng.expovariate(1.0 / self.excess_ms) if self.excess_ms else 0.0
        return round((self.at_least_ms + excess) * _MS_IN_NS)


class LatencyProfile(BaseModel):
    """All delays of a node's software."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1, max_length=64, description="name of the profile")
    start_to_submit: Delay = Field(
        _NONE, description="from the start of a program to its first subroutine"
    )
    result_to_submit: Delay = Field(_NONE, description="from a result to the next subroutine")
    result_to_local_submit: Delay | None = Field(
        None,
        description=(
            "the same for a subroutine without entanglement, as those of LGT; `result_to_submit` "
            "if not given"
        ),
    )
    local_interpreter: Delay = Field(
        _NONE,
        description=(
            "added to result_to_local_submit; time in which only one program of a node gets on, as "
            "programs in threads of one interpreter do"
        ),
    )
    result_to_message: Delay = Field(_NONE, description="from a result to a classical message sent")
    message_to_submit: Delay = Field(
        _NONE,
        description="from a classical message, sent or received, to the next subroutine",
    )
    message_to_message: Delay = Field(_NONE, description="between two classical messages")
    spikes: Spikes = Field(
        Spikes(), description="stalls, added to message_to_submit after a message was received"
    )
    send_create: Delay = Field(
        _NONE,
        description=(
            "from the attempt to send a subroutine that creates entanglement until it is in the "
            "QNPU's hands"
        ),
    )
    send_receive: Delay = Field(
        _NONE, description="the same for a subroutine that receives entanglement"
    )
    send_local: Delay = Field(_NONE, description="the same for all other subroutines")
    result: Delay = Field(
        _NONE, description="from the end of a subroutine at the QNPU to its result at the CNPU"
    )
    classical: Delay = Field(_NONE, description="from a classical message sent to its arrival")
    peer: Delay = Field(_NONE, description="of a message between QNPUs")
    dispatch_us: int = Field(
        0,
        ge=0,
        le=1_000_000,
        description="at the QNPU, from choosing a process to its first instruction",
    )
