"""Running points, and what has come out of them so far."""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from importlib.metadata import version
from math import isfinite
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qnodeos import __version__
from qnodeos.experiments.sweep_experiments import number_at, sweep_experiment
from qnodeos.experiments.sweep_spec import PointTask, SweepPlan

MESSAGE_MAX: Final = 1_000
"""Most characters kept of why a point failed."""


class Status(IntEnum):
    """Of a point."""

    MISSING = 0
    DONE = 1
    FAILED = 2


@dataclass(frozen=True)
class PointResult:
    """What came out of a point.

    Attributes:
        number: of the point.
        values: the outputs in their order, None where there is no such statistic; empty if
            the point failed.
        error: why it failed.
    """

    number: int
    values: tuple[float | None, ...] = ()
    error: str | None = None


def run_point(task: PointTask) -> PointResult:
    """Run a point here. Nothing but the task determines the result.

    A point that cannot be run is a result too: it would fail in the same way again.

    Raises:
        OSError: the machine failed, not the point.
        MemoryError: likewise.
    """
    experiment = sweep_experiment(task.experiment)
    try:
        settings = experiment.parameters.settings(task.values, f"point {task.number}")
        result = experiment.run(settings, task.seed)
    except (OSError, MemoryError):
        raise
    except Exception as error:
        return PointResult(task.number, error=f"{type(error).__name__}: {error}"[:MESSAGE_MAX])
    values = (number_at(result, path) for path in task.outputs)
    return PointResult(
        task.number, tuple(v if v is not None and isfinite(v) else None for v in values)
    )


@cache
def versions() -> Mapping[str, str]:
    """What has to be the same wherever points are run for results to be the same."""
    return {
        "qnodeos": __version__,
        "python": ".".join(platform.python_version_tuple()[:2]),
        **{name: version(name) for name in ("netqasm", "numpy", "scipy")},
        "byteorder": sys.byteorder,
    }


class SweepResults:
    """All points of a sweep, as far as they are known.

    Attributes:
        status: a `Status` per point, shape (points,).
        values: outputs, NaN where there is none, shape (points, outputs).
        errors: why points failed, by number.

    Args:
        plan: the sweep.
    """

    def __init__(self, plan: SweepPlan) -> None:
        self.status: NDArray[np.int8] = np.zeros(plan.points, dtype=np.int8)
        self.values: NDArray[np.float64] = np.full((plan.points, len(plan.outputs)), np.nan)
        self.errors: dict[int, str] = {}

    def take(self, result: PointResult) -> None:
        """Note a result; the last one of a point counts."""
        number = result.number
        self.errors.pop(number, None)
        if result.error is not None:
            self.errors[number] = result.error
            self.status[number] = Status.FAILED
            self.values[number] = np.nan
            return
        self.status[number] = Status.DONE
        self.values[number] = [np.nan if value is None else value for value in result.values]

    def count(self, status: Status) -> int:
        """How many points there are of a status."""
        return int(np.count_nonzero(self.status == status))

    def numbers(self, *wanted: Status) -> NDArray[Any]:
        """The points of some statuses, in order."""
        return np.flatnonzero(np.isin(self.status, wanted))

    @property
    def complete(self) -> bool:
        """Whether every point is done or has failed."""
        return self.count(Status.MISSING) == 0
