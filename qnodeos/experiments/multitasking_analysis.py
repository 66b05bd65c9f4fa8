"""Analysis of multitasking (Fig. 5 of the paper): from the traces of blocks to a run's numbers.

`observe` turns what two nodes recorded during some time into sums, which add up over the
blocks of a run and, without multitasking, over its programs; `summarise` divides them.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import reduce
from operator import add
from typing import Any, Final, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calibration.fidelity import two_orientation_fidelity
from calibration.readout import ReadoutFidelity
from qnodeos.errors import IncompleteTraceError, InsufficientDataError
from qnodeos.experiments.multitasking_traces import (
    RUN_DEFINITIONS,
    Columns,
    count,
    idle_intervals,
    live_times,
    network_lateness,
    runs_between,
    waits_with_others,
    within,
)
from qnodeos.trace.events import Event
from qnodeos.trace.utilisation import Utilisation, device_utilisation

PUBLISHED: Final[Mapping[str, Mapping[int, float]]] = {
    "other_process_scheduled": {1: 0.56, 2: 0.81, 3: 0.99, 4: 0.99, 5: 0.99},
    "consecutive_lgt": {1: 0.83, 5: 1.65},
    "cnpu_wait_max_ms": {1: 150.0, 2: 8.0, 3: 8.0, 4: 8.0, 5: 8.0},
}
"""What is published of the multitasking experiment in numbers, by the number of pairs (Delle
Donne et al., Nature 639, 321 (2025)): 0.99 is for N > 2, 8 ms for "more programs"."""


@dataclass(frozen=True)
class Tally:
    """Statistics of some numbers, which add up.

    Attributes:
        count: how many.
        total: their sum.
        squares: the sum of their squares.
        largest: the largest, 0 if there are none.
    """

    count: int = 0
    total: float = 0.0
    squares: float = 0.0
    largest: float = 0.0

    @classmethod
    def of(cls, values: ArrayLike) -> Self:
        """Of some numbers, none of them negative."""
        numbers = np.asarray(values, dtype=float)
        if not numbers.size:
            return cls()
        total, squares = float(numbers.sum()), float((numbers**2).sum())
        return cls(numbers.size, total, squares, float(numbers.max()))

    def __add__(self, other: Tally) -> Tally:
        """Of both together."""
        return Tally(
            self.count + other.count,
            self.total + other.total,
            self.squares + other.squares,
            max(self.largest, other.largest),
        )

    @property
    def mean(self) -> float | None:
        """Their mean, None if there are none."""
        return self.total / self.count if self.count else None

    @property
    def sd(self) -> float | None:
        """Their standard deviation, None if there are fewer than two."""
        if self.count < 2:
            return None
        spread = self.squares - self.total**2 / self.count
        return math.sqrt(max(spread, 0.0) / (self.count - 1))


@dataclass(frozen=True)
class Observed:
    """Sums over some time of two nodes; they add up.

    Attributes:
        time_ns: how long it was.
        client_use: of the client's device: ticks in all, attempting entanglement, busy.
        server_use: the same of the server's.
        waits: waits of DQC processes at the client, and those in which another ran, shape (2,).
        lgt_runs: LGT between two DQC, by `RUN_DEFINITIONS`: subroutines.
        lgt_activations: the same: activations.
        lgt_nonzero: `lgt_runs` without those of length zero.
        cnpu_wait_ms: when the client's QNPU waited for its CNPU.
        late_ms: of the client's network process, from arrival to being scheduled.
        live_time_ms: of the server's qubits.
        circuits: DQC circuits completed.
        lgt_subroutines: LGT subroutines completed.
        counts: of the server's outcomes: zeros along the target and shots, zeros against it
            and shots, shape (4,).
        bins: of the client: used, missed, blocked (see `KernelStatistics`); the same of the server;
            shape (6,).
    """

    time_ns: int
    client_use: NDArray[np.int64]
    server_use: NDArray[np.int64]
    waits: NDArray[np.int64]
    lgt_runs: Tally
    lgt_activations: Tally
    lgt_nonzero: Tally
    cnpu_wait_ms: Tally
    late_ms: Tally
    live_time_ms: Tally
    circuits: int
    lgt_subroutines: int
    counts: NDArray[np.int64]
    bins: NDArray[np.int64]

    def __add__(self, other: Observed) -> Observed:
        """Of both together."""
        return Observed(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


@dataclass(frozen=True)
class Roles:
    """Which processes are which programs.

    Attributes:
        dqc: DQC programs at the client.
        lgt: LGT programs at the client.
        servers: DQC programs at the server.
    """

    dqc: Collection[int] = ()
    lgt: Collection[int] = ()
    servers: Collection[int] = ()

    @classmethod
    def together(cls, roles: Iterable[Roles]) -> Self:
        """Of programs that run at once."""
        every = list(roles)
        return cls(*([pid for each in every for pid in getattr(each, f.name)] for f in fields(cls)))


def observe(
    client: Columns,
    server: Columns,
    *,
    tick_ns: int,
    start: int,
    stop: int,
    roles: Roles,
    outcomes: Sequence[Sequence[int]],
    bins: Sequence[int],
) -> Observed:
    """What happened between two ticks.

    Args:
        client: columns of the client's QNPU trace.
        server: columns of the server's.
        tick_ns: duration of a tick.
        start: first tick that counts.
        stop: first tick that does not count any more.
        roles: which process is which program.
        outcomes: of each server program, one per circuit, verified along and against the
            target in turn.
        bins: of the client: used, missed, blocked; the same of the server.

    Raises:
        IncompleteTraceError: the traces lack something.
    """
    ms = tick_ns / 1e6
    at_client, at_server = within(client, start, stop), within(server, start, stop)
    runs, activations = (
        runs_between(at_client, event, roles.lgt, roles.dqc) for event in RUN_DEFINITIONS.values()
    )
    idle = idle_intervals(at_client, start, stop)
    return Observed(
        time_ns=(stop - start) * tick_ns,
        client_use=_use(device_utilisation(client, start, stop)),
        server_use=_use(device_utilisation(server, start, stop)),
        waits=np.array(waits_with_others(at_client, roles.dqc)),
        lgt_runs=Tally.of(runs),
        lgt_activations=Tally.of(activations),
        lgt_nonzero=Tally.of(runs[runs > 0]),
        cnpu_wait_ms=Tally.of((idle[:, 1] - idle[:, 0]) * ms),
        late_ms=Tally.of(network_lateness(at_client) * ms),
        live_time_ms=Tally.of(live_times(at_server, roles.servers) * ms),
        circuits=sum(len(each) for each in outcomes),
        lgt_subroutines=count(at_client, Event.PROCMGR_SUBROUTINE_DONE, roles.lgt),
        counts=sum((_counts(each) for each in outcomes), np.zeros(4, dtype=np.int64)),
        bins=np.array(bins, dtype=np.int64),
    )


def refuse_incomplete(node: str, dropped: int) -> None:
    """Refuse the trace of a recorder that was too small.

    Raises:
        IncompleteTraceError: it lost events.
    """
    if dropped:
        raise IncompleteTraceError(
            f"trace of {node} lost {dropped} events; run blocks of less virtual time"
        )


def _use(use: Utilisation) -> NDArray[np.int64]:
    return np.array([use.total, use.entanglement, use.busy], dtype=np.int64)


def _counts(outcomes: Sequence[int]) -> NDArray[np.int64]:
    along, against = np.array(outcomes[0::2]), np.array(outcomes[1::2])
    return np.array(
        [np.count_nonzero(along == 0), along.size, np.count_nonzero(against == 0), against.size],
        dtype=np.int64,
    )


def summarise(parts: Sequence[Observed], readout: ReadoutFidelity) -> dict[str, Any]:
    """The numbers of a run, ready for JSON; None where nothing was observed.

    Args:
        parts: its blocks.
        readout: of the server's qubit.

    Raises:
        InsufficientDataError: there are no blocks.
    """
    if not parts:
        raise InsufficientDataError("no blocks of a multitasking run to summarise")
    whole = reduce(add, parts)
    seconds = whole.time_ns / 1e9
    waits, shared = (int(number) for number in whole.waits)
    other = shared / waits if waits else None
    fidelity, fidelity_sigma = _fidelity(whole.counts, readout)
    return {
        "utilisation": _share(whole.client_use),
        "utilisation_sigma": _standard_error([_share(part.client_use) for part in parts]),
        "other_process_scheduled": other,
        "other_process_scheduled_sigma": (
            None if other is None else math.sqrt(other * (1 - other) / waits)
        ),
        "consecutive_lgt": whole.lgt_runs.mean,
        "consecutive_lgt_sigma": _error_of_mean(whole.lgt_runs),
        "consecutive_lgt_activations": whole.lgt_activations.mean,
        "consecutive_lgt_nonzero": whole.lgt_nonzero.mean,
        "dqc_per_s": whole.circuits / seconds,
        "lgt_per_s": whole.lgt_subroutines / seconds,
        "dqc_fidelity": fidelity,
        "dqc_fidelity_sigma": fidelity_sigma,
        "live_time_ms": {"mean": whole.live_time_ms.mean, "sd": whole.live_time_ms.sd},
        **_named_bins(whole.bins[:3]),
        "late_ms": {"mean": whole.late_ms.mean, "max": whole.late_ms.largest},
        "cnpu_wait_ms": {"mean": whole.cnpu_wait_ms.mean, "max": whole.cnpu_wait_ms.largest},
        "server": {
            "utilisation": _share(whole.server_use),
            **_named_bins(whole.bins[3:]),
        },
        "dqc_circuits": whole.circuits,
        "lgt_subroutines": whole.lgt_subroutines,
        "waits": waits,
        "virtual_s": seconds,
    }


def _share(use: NDArray[np.int64]) -> float | None:
    share = Utilisation(*(int(ticks) for ticks in use)).share
    return None if math.isnan(share) else share


def _named_bins(bins: NDArray[np.int64]) -> dict[str, int]:
    names = ("used_bins", "missed_bins", "blocked_bins")
    return {name: int(number) for name, number in zip(names, bins, strict=True)}


def _standard_error(values: Sequence[float | None]) -> float | None:
    return _error_of_mean(Tally.of([value for value in values if value is not None]))


def _error_of_mean(tally: Tally) -> float | None:
    return None if tally.sd is None else tally.sd / math.sqrt(tally.count)


def _fidelity(
    counts: NDArray[np.int64], readout: ReadoutFidelity
) -> tuple[float | None, float | None]:
    zeros_along, shots_along, zeros_against, shots_against = (int(number) for number in counts)
    if not (shots_along and shots_against):
        return None, None
    estimate = two_orientation_fidelity(
        zeros_along, shots_along, zeros_against, shots_against, readout
    )
    return float(estimate.value), float(estimate.sigma)
