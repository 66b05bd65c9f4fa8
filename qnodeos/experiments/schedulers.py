"""The ways of scheduling that experiments compare, by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final


@dataclass(frozen=True)
class SchedulerChoice:
    """How a node schedules, and how its programs feed it.

    Attributes:
        policy: the kernel's, one of `qnodeos.qnpu.scheduler.POLICIES`.
        queue_ahead: subroutines that an LGT program sends ahead of the result it waits for.
    """

    policy: str
    queue_ahead: int = 0


SCHEDULERS: Final[Mapping[str, SchedulerChoice]] = MappingProxyType(
    {
        "fcfs": SchedulerChoice("fcfs"),
        "queue-ahead": SchedulerChoice("prepare-ahead", queue_ahead=2),
        "bin-aware": SchedulerChoice("bin-aware"),
        "deadline": SchedulerChoice("deadline"),
        "combined": SchedulerChoice("combined", queue_ahead=2),
    }
)
"""The choices by name: the paper's, each improvement on its own, and all of them together."""
