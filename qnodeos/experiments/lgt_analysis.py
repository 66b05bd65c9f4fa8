"""Analysis of local gate tomography (LGT): the fidelity of every input state.

A state is measured in six bases, along and against each axis. Its fidelity comes from the two
bases of its own axis, corrected for the readout (SSRO) as in Delle Donne et al., Nature 639,
321 (2025); the state of maximum likelihood, which uses all six bases, stands beside it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2

from calibration.fidelity import mean_estimate, two_orientation_fidelity
from calibration.readout import Estimate, ReadoutFidelity
from calibration.tomography import most_likely
from qnodeos.errors import InsufficientDataError

STATES: Final = ("+Z", "-Z", "+X", "-X", "+Y", "-Y")
"""The input states, as the program numbers them."""

BASES: Final = ("+X", "-X", "+Y", "-Y", "+Z", "-Z")
"""The bases, in the order of the program's outcomes: the states that ideally read 0."""

MODES: Final = ("alone", "multitasked")
"""LGT by itself, and while DQC runs."""

RESULTS_PER_SUBROUTINE: Final = len(BASES)
_OPPOSITE: Final = {"+": "-", "-": "+"}


@dataclass(frozen=True)
class LgtData:
    """What a number of LGT subroutines measured.

    Attributes:
        state: number of the input state of every subroutine, shape (n,).
        outcome: 0 or 1 in every basis, shape (n, 6).
        charge_ok: whether the node passed the check after each readout, shape (n, 6).
        qnpu_ms: how long each subroutine had the QNPU, shape (n,).
        elapsed_ms: virtual time from the first subroutine's arrival at the QNPU to the end
            of the last.
        dqc_circuits: circuits that DQC did in that time.

    Raises:
        InsufficientDataError: there are no subroutines, or shapes or values are impossible.
    """

    state: NDArray[Any]
    outcome: NDArray[Any]
    charge_ok: NDArray[np.bool_]
    qnpu_ms: NDArray[Any]
    elapsed_ms: float
    dqc_circuits: int = 0

    def __post_init__(self) -> None:
        n = self.state.size
        if n == 0:
            raise InsufficientDataError("no LGT subroutines to analyse")
        shapes = {"state": (n,), "outcome": (n, 6), "charge_ok": (n, 6), "qnpu_ms": (n,)}
        for name, shape in shapes.items():
            if getattr(self, name).shape != shape:
                raise InsufficientDataError(
                    f"'{name}' of {n} LGT subroutines has shape {getattr(self, name).shape}, "
                    f"not {shape}"
                )
        if not np.isin(self.state, range(len(STATES))).all():
            raise InsufficientDataError(f"'state' must hold numbers below {len(STATES)} only")
        if not np.isin(self.outcome, (0, 1)).all():
            raise InsufficientDataError("'outcome' must hold 0 and 1 only")

    def counts(
        self, state: str, *, charge_checked: bool = False
    ) -> tuple[dict[str, int], dict[str, int]]:
        """Outcomes 0 and shots of a state, each by basis.

        Args:
            state: one of `STATES`.
            charge_checked: leave out readouts after which the charge check failed.
        """
        chosen = self.state == STATES.index(state)
        kept = self.charge_ok[chosen] if charge_checked else np.ones((chosen.sum(), 6), dtype=bool)
        zeros = ((self.outcome[chosen] == 0) & kept).sum(axis=0)
        shots = kept.sum(axis=0)
        return (
            dict(zip(BASES, zeros.tolist(), strict=True)),
            dict(zip(BASES, shots.tolist(), strict=True)),
        )


def merge(parts: Sequence[LgtData]) -> LgtData:
    """The blocks of one mode as one."""
    return LgtData(
        np.concatenate([part.state for part in parts]),
        np.concatenate([part.outcome for part in parts]),
        np.concatenate([part.charge_ok for part in parts]),
        np.concatenate([part.qnpu_ms for part in parts]),
        sum(part.elapsed_ms for part in parts),
        sum(part.dqc_circuits for part in parts),
    )


def state_fidelity(
    zeros: Mapping[str, int], shots: Mapping[str, int], state: str, readout: ReadoutFidelity
) -> Estimate:
    """Fidelity of a state from the two bases of its axis.

    Raises:
        InsufficientDataError: one of the two has no shots or impossible counts.
    """
    against = _OPPOSITE[state[0]] + state[1]
    return two_orientation_fidelity(
        zeros[state], shots[state], zeros[against], shots[against], readout
    )


def likely_fidelity(
    zeros: Mapping[str, int], shots: Mapping[str, int], state: str, readout: ReadoutFidelity
) -> float:
    """Fidelity of the state that is most likely with the counts of all bases.

    It never exceeds 1, so it is biased downwards near 1.

    Raises:
        InsufficientDataError: a basis has no shots or impossible counts.
    """
    bloch = most_likely(
        [bloch_vector(basis) for basis in BASES],
        [zeros[basis] for basis in BASES],
        [shots[basis] for basis in BASES],
        readout,
    )
    return float((1 + bloch @ bloch_vector(state)) / 2)


def bloch_vector(state: str) -> NDArray[np.float64]:
    """Of one of `STATES`, shape (3,)."""
    vector = np.zeros(3)
    vector["XYZ".index(state[1])] = 1 if state[0] == "+" else -1
    return vector


def analyse_lgt(
    modes: Mapping[str, LgtData], readout: ReadoutFidelity, *, seed: int, wall_s: float = 0.0
) -> dict[str, Any]:
    """Everything the experiment reports, ready for JSON.

    Args:
        modes: results by `MODES`; one may be missing.
        readout: of the client's qubit.
        seed: of the run, to be reported.
        wall_s: how long the run took, to be reported.

    Returns:
        Per mode, under its name, a list with an entry per state (``fidelity``, the primary
        value; ``charge_checked``, without readouts after which the charge check failed;
        ``maximum_likelihood``; ``zeros`` and ``shots`` per basis), empty without data; and
        ``mean_fidelity``, ``comparison`` (None unless there are both modes), ``results``
        (readouts alone), ``results_multitasked``, ``subroutine_ms``, ``subroutines_per_s``,
        ``dqc_circuits``, ``seed`` and ``wall_s``.

    Raises:
        InsufficientDataError: a state was not measured in a basis.
    """
    estimates = {
        mode: [state_fidelity(*data.counts(state), state, readout) for state in STATES]
        for mode, data in modes.items()
    }
    result: dict[str, Any] = {"experiment": "lgt", "seed": int(seed)}
    for mode in MODES:
        result[mode] = []
        if mode in modes:
            pairs = zip(STATES, estimates[mode], strict=True)
            result[mode] = [
                _entry(modes[mode], state, estimate, readout) for state, estimate in pairs
            ]
    sizes = {mode: int(data.outcome.size) for mode, data in modes.items()}
    return result | {
        "mean_fidelity": {mode: _as_json(mean_estimate(each)) for mode, each in estimates.items()},
        "comparison": compare(estimates["alone"], estimates["multitasked"])
        if len(estimates) == len(MODES)
        else None,
        "results": sizes.get("alone", 0),
        "results_multitasked": sizes.get("multitasked", 0),
        "subroutine_ms": {
            mode: {"mean": float(data.qnpu_ms.mean()), "p50": float(np.median(data.qnpu_ms))}
            for mode, data in modes.items()
        },
        "subroutines_per_s": {
            mode: data.state.size / (data.elapsed_ms / 1e3) for mode, data in modes.items()
        },
        "dqc_circuits": sum(data.dqc_circuits for data in modes.values()),
        "wall_s": float(wall_s),
    }


def compare(alone: Sequence[Estimate], multitasked: Sequence[Estimate]) -> dict[str, Any]:
    """Whether two lists of fidelities agree within their statistical errors.

    Both share the readout calibration, so its error cancels and is left out.

    Returns:
        ``z`` per state (multitasked less alone, in standard errors of the difference),
        ``chi_square`` (the sum of their squares), ``degrees_of_freedom`` and ``p_value``, the
        probability of a larger sum if the fidelities are equal.
    """
    z = [
        (second.value - first.value) / math.hypot(first.statistical, second.statistical)
        for first, second in zip(alone, multitasked, strict=True)
    ]
    chi_square = sum(each**2 for each in z)
    return {
        "z": z,
        "chi_square": chi_square,
        "degrees_of_freedom": len(z),
        "p_value": float(chi2.sf(chi_square, len(z))),
    }


def _entry(
    data: LgtData, state: str, estimate: Estimate, readout: ReadoutFidelity
) -> dict[str, Any]:
    zeros, shots = data.counts(state)
    try:
        checked = state_fidelity(*data.counts(state, charge_checked=True), state, readout)
    except InsufficientDataError:  # no check was passed: that tells nothing
        checked = None
    return {
        "state": state,
        "fidelity": _as_json(estimate),
        "charge_checked": None if checked is None else _as_json(checked),
        "maximum_likelihood": likely_fidelity(zeros, shots, state, readout),
        "zeros": zeros,
        "shots": shots,
    }


def _as_json(estimate: Estimate) -> dict[str, float]:
    return {"value": float(estimate.value), "sigma": float(estimate.sigma)}
