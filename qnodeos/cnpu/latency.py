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


class Delay(BaseModel):
    """A random delay: gamma-distributed with this mean and standard deviation.

    Attributes:
        mean_ms: mean.
        sd_ms: standard deviation; 0 makes the delay constant.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    mean_ms: Annotated[float, Field(ge=0, le=10_000)] = 0.0
    sd_ms: Annotated[float, Field(ge=0, le=10_000)] = 0.0

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
    """Rare stalls of the CNPU (its operating system is no real-time one).

    Attributes:
        probability: of a stall, each time a program goes from a classical message it
            received to its next subroutine.
        at_least_ms: shortest stall.
        excess_ms: mean of the exponentially distributed rest.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    probability: Annotated[float, Field(ge=0, le=1)] = 0.0
    at_least_ms: Annotated[float, Field(ge=0, le=10_000)] = 0.0
    excess_ms: Annotated[float, Field(ge=0, le=10_000)] = 0.0

    def sample_ns(self, rng: Random) -> int:
        """Draw a stall: almost always 0."""
        if self.probability == 0.0 or rng.random() >= self.probability:
            return 0
        excess = rng.expovariate(1.0 / self.excess_ms) if self.excess_ms else 0.0
        return round((self.at_least_ms + excess) * _MS_IN_NS)


class LatencyProfile(BaseModel):
    """All delays of a node's software.

    Attributes:
        name: of the profile.
        start_to_submit: from the start of a program to its first subroutine.
        result_to_submit: from a result to the next subroutine.
        result_to_message: from a result to a classical message sent.
        message_to_submit: from a classical message, sent or received, to the next subroutine.
        message_to_message: between two classical messages.
        spikes: stalls, added to ``message_to_submit`` after a message was received.
        send_create: from the attempt to send a subroutine that creates entanglement until
            it is in the QNPU's hands.
        send_receive: the same for one that receives entanglement.
        send_local: the same for all others.
        result: from the end of a subroutine at the QNPU to its result at the CNPU.
        classical: from a classical message sent to its arrival.
        peer: of a message between QNPUs.
        dispatch_us: at the QNPU, from choosing a process to its first instruction.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(min_length=1, max_length=64)]
    start_to_submit: Delay = _NONE
    result_to_submit: Delay = _NONE
    result_to_message: Delay = _NONE
    message_to_submit: Delay = _NONE
    message_to_message: Delay = _NONE
    spikes: Spikes = Spikes()
    send_create: Delay = _NONE
    send_receive: Delay = _NONE
    send_local: Delay = _NONE
    result: Delay = _NONE
    classical: Delay = _NONE
    peer: Delay = _NONE
    dispatch_us: Annotated[int, Field(ge=0, le=1_000_000)] = 0
