"""What is seen of one run of an application, and what is made of many runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

Matrix: TypeAlias = NDArray[np.complex128]
"""A density matrix or a unitary, shape (2**n, 2**n)."""


@dataclass(frozen=True, slots=True)
class Observation:
    """One run of an application, by role.

    Attributes:
        inputs: what each program was given.
        results: what each program returned.
        output: what each program printed and logged.
        received: classical messages each program took, as text, in order.
    """

    inputs: Mapping[str, Mapping[str, Any]]
    results: Mapping[str, Any] = field(default_factory=dict)
    output: Mapping[str, str] = field(default_factory=dict)
    received: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a criterion says of the runs of an application.

    Attributes:
        passed: whether they are as they have to be.
        detail: the numbers, in words.
    """

    passed: bool
    detail: str


Judge: TypeAlias = Callable[[Sequence[Observation]], Verdict]
"""A criterion: looks at all runs of an application."""


HEADLINES: Final = 2
"""Details that are told of what has passed."""


def all_hold(verdicts: Sequence[Verdict]) -> Verdict:
    """One verdict of several: passed if all are.

    Its details are those of the verdicts that are not or, if there are none, of the first ones.
    """
    failed = [verdict for verdict in verdicts if not verdict.passed]
    told = failed or verdicts[:HEADLINES]
    return Verdict(not failed, "; ".join(verdict.detail for verdict in told))
