"""The same programs here and on SimulaQron, in turn; the ratios of their speeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any, Final, NamedTuple

from benchmarks.measure import Effort, Figure, Outcome, Timing
from benchmarks.peers import ours, theirs
from benchmarks.peers.environment import ensure
from benchmarks.peers.ours import PROGRAMS
from qnodeos.errors import ChildProcessFailedError

ROUNDS_MAX: Final = 5
OUR_CIRCUITS: Final = 200
SHIPPED_CIRCUITS: Final = 20
TUNED_CIRCUITS: Final = 40
GC: Final = "on"
TITLES: Final = {
    "dqc": "delegated computation",
    "pair": "pair, measured",
    "teleport": "teleportation",
}
_S_IN_NS: Final = 1_000_000_000


class System(NamedTuple):
    """One of the systems compared.

    Attributes:
        name: of it.
        circuits: that a round times.
        run: runs a program with so many circuits in a round of a number; returns what alice
            returned, and how often it failed before.
    """

    name: str
    circuits: int
    run: Callable[[str, int, int], tuple[dict[str, Any], int]]


def run(effort: Effort) -> Outcome:
    """Compare on all programs."""
    python = ensure()
    systems = [
        System("qnodeos", effort.of(OUR_CIRCUITS), lambda *what: (ours.run(*what), 0)),
        System("SimulaQron", effort.of(SHIPPED_CIRCUITS), _there(python, is_tuned=False)),
        System("SimulaQron, tuned", effort.of(TUNED_CIRCUITS), _there(python, is_tuned=True)),
    ]
    return compare(systems, min(effort.rounds, ROUNDS_MAX))


def _there(
    python: Path, *, is_tuned: bool
) -> Callable[[str, int, int], tuple[dict[str, Any], int]]:
    return lambda program, circuits, _number: theirs.run(
        python, program, circuits, is_tuned=is_tuned
    )


def compare(systems: Sequence[System], rounds: int) -> Outcome:
    """Run all programs on all systems in turn.

    Args:
        systems: the first is ours, the others are references.
        rounds: how often.

    Raises:
        ChildProcessFailedError: outcomes are not what the program must give.
    """
    figures, notes, failed = [], [], dict.fromkeys((system.name for system in systems), 0)
    for program in PROGRAMS:
        times_ns: dict[str, list[float]] = {system.name: [] for system in systems}
        for number in range(rounds):
            for system in systems:
                result, failures = system.run(program, system.circuits, number)
                check(program, result["outcomes"], system)
                failed[system.name] += failures
                times_ns[system.name].append(result["seconds"] / system.circuits * _S_IN_NS)
        figures += figures_of(program, times_ns)
        notes.append(speeds_of(program, times_ns))
    notes += [
        f"{name} hung or failed {count} times and was started again"
        for name, count in failed.items()
        if count
    ]
    return Outcome(figures, GC, notes=notes)


def check(program: str, outcomes: Sequence[Sequence[int]], system: System) -> None:
    """Look at the outcomes of all circuits.

    Raises:
        ChildProcessFailedError: there are too few, or one cannot be.
    """
    if len(outcomes) != system.circuits:
        raise ChildProcessFailedError(
            f"{system.name}: {len(outcomes)} circuits of {program}, not {system.circuits}"
        )
    for number, (of_alice, of_bob) in enumerate(outcomes, start=1):
        if not PROGRAMS[program].is_right(number, of_alice, of_bob):
            raise ChildProcessFailedError(
                f"{system.name}: circuit {number} of {program} gave {of_alice} and {of_bob}, which "
                "cannot be without noise"
            )


def figures_of(program: str, times_ns: dict[str, list[float]]) -> list[Figure]:
    """Ratios of the first system to each of the others.

    Args:
        program: its name.
        times_ns: per circuit, by system and round.
    """
    (our_name, our_times), *others = times_ns.items()
    return [
        Figure(
            f"{TITLES[program]}, {name}",
            "times as fast as",
            Timing(our_name, "circuit", median(our_times)),
            Timing(name, "circuit", median(times)),
            tuple(other / our for our, other in zip(our_times, times, strict=True)),
        )
        for name, times in others
    ]


def speeds_of(program: str, times_ns: dict[str, list[float]]) -> str:
    """Circuits per second of all systems, as a line of text."""
    speeds = (f"{name} {_S_IN_NS / median(times):.3g}" for name, times in times_ns.items())
    return f"{TITLES[program]}, circuits per second on this machine: {', '.join(speeds)}"
