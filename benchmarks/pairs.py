"""What a subroutine costs when few and when many programs run on two nodes, in virtual time.

Pairs of DQC programs on two nodes that herald quickly, and LGT programs on one, software
latencies zero. Everything takes part: SDK, greenlets, CNPUs, kernels, link layer, devices, traces.
Only a window is timed, from when the programs have done some rounds each (their subroutines are
assembled, prepared and compiled then) to when they come near their last: what it costs to
start a program is not what is asked here. The garbage collector is off, but for one figure: it
looks at the objects of all programs now and then, and more of them cost it more.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Final

from benchmarks.measure import (
    GC_OFF,
    Effort,
    Figure,
    Outcome,
    Work,
    compare,
    gc_frozen,
    gc_off,
)
from benchmarks.system import ALPHA_STEPS, THETA_STEPS
from qnodeos.assembly import NetworkConfig, TwoNodeSystem, build_two_nodes, load_profile
from qnodeos.cnpu.external import install
from qnodeos.limits import Limits
from sim.network import ProgramSpec

MOST: Final = 500
REFERENCE: Final = 10
"""Programs or pairs the others are compared with: one alone leaves the QNPU idle."""
ROUNDS_EACH: Final = 4
"""Circuits, or inputs measured, of every program that are timed, at least."""
ROUNDS_IN_ALL: Final = 1_000
REPETITIONS: Final = 3
WANTED: Final = (0.0, 2.0)
TRACE_CAPACITY: Final = 1 << 16
STATES: Final = 6
"""Inputs of one repetition of LGT, each with a subroutine of its own."""
LAST_ROUNDS: Final = 1
"""Not timed, for some programs have ended then."""

OnRound = Callable[..., None]


@dataclass(frozen=True)
class Kind:
    """A kind of programs.

    Attributes:
        subroutines: in one round, at all nodes.
        first: rounds in which subroutines are new.
        programs: makes the programs of one pair from its number, its rounds, and what is to be
            called after every round.
    """

    name: str
    subroutines: int
    first: int
    programs: Callable[[int, int, OnRound], list[ProgramSpec]]


def _dqc(number: int, rounds: int, on_round: OnRound) -> list[ProgramSpec]:
    from qnodeos.experiments.programs import dqc_client, dqc_server

    both: dict[str, Any] = {"alpha_steps": ALPHA_STEPS, "circuits": rounds, "socket_id": number}
    return [
        ProgramSpec("client", "dqc_client", dqc_client.main, both | {"theta_steps": THETA_STEPS}),
        ProgramSpec("server", "dqc_server", dqc_server.main, both | {"on_circuit": on_round}),
    ]


def _lgt(number: int, rounds: int, on_round: OnRound) -> list[ProgramSpec]:
    from qnodeos.experiments.programs import lgt

    inputs = {"node": "client", "repetitions": -(-rounds // STATES), "on_result": on_round}
    return [ProgramSpec("client", "lgt", lgt.main, inputs)]


DQC: Final = Kind("DQC pairs", 3, 2, _dqc)
LGT: Final = Kind("LGT programs", 1, STATES, _lgt)


def system_for(pairs: int) -> TwoNodeSystem:
    """Nodes for so many pairs."""
    install()  # before the programs are imported, for they import the SDK's connection
    limits = Limits(processes=max(pairs, 64), entanglement_requests=max(pairs, 64))
    return build_two_nodes(
        NetworkConfig.preset("prompt"), load_profile("zero"), 1, TRACE_CAPACITY, limits=limits
    )


class Window:
    """The time of this process between two rounds of all that are done.

    Attributes:
        elapsed_ns: in the windows that have ended.
    """

    def __init__(self) -> None:
        self.elapsed_ns = 0
        self._done = self._first = self._last = self._start_ns = 0

    def clock(self) -> int:
        """A clock that stands still outside of the windows."""
        return self.elapsed_ns

    def expect(self, first: int, last: int) -> None:
        """The next window is from round ``first`` to round ``last``."""
        self._done, self._first, self._last = 0, first, last

    def on_round(self, *_: object) -> None:
        """A round is done."""
        self._done += 1
        if self._done == self._first:
            self._start_ns = time.process_time_ns()
        elif self._done == self._last:
            self.elapsed_ns += time.process_time_ns() - self._start_ns


def compared(
    kind: Kind,
    few: int,
    many: int,
    effort: Effort,
    gc_state: Callable[[], AbstractContextManager[None]] = gc_off,
) -> Figure:
    """The cost of a subroutine among many programs against that among few."""
    window = Window()

    def work(pairs: int) -> Work:
        timed = max(effort.of(ROUNDS_EACH), effort.of(ROUNDS_IN_ALL) // pairs)
        each = kind.first + timed + LAST_ROUNDS
        first, last = pairs * kind.first, pairs * (kind.first + timed)

        def prepare() -> Callable[[], object]:
            system = system_for(pairs)
            programs = [
                program
                for number in range(pairs)
                for program in kind.programs(number, each, window.on_round)
            ]
            window.expect(first, last)
            return lambda: system.network.run(programs)

        name = f"{pairs:,} {kind.name}"
        return Work(name, "subroutine", (last - first) * kind.subroutines, prepare)

    return compare(
        work(many),
        work(few),
        Effort(min(effort.rounds, REPETITIONS), effort.fraction),
        gc_state=gc_state,
        clock=window.clock,
        warm_up=False,
    ).cost(
        f"subroutine, {many:,} {kind.name}" + (", collecting" if gc_state is gc_frozen else ""),
        wanted=WANTED if gc_state is gc_off else None,
    )


def run(effort: Effort) -> Outcome:
    """Measure."""
    few, most = effort.of(REFERENCE), effort.of(MOST)
    figures = [compared(DQC, few, effort.of(size), effort) for size in (1, 100, MOST)]
    figures += [
        compared(LGT, few, most, effort),
        compared(DQC, few, most, effort, gc_frozen),
    ]
    return Outcome(figures, f"{GC_OFF}; on where it says collecting")
