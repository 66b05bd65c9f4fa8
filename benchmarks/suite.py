"""The benchmarks by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from benchmarks import (
    circuit,
    classical,
    decode,
    engine,
    experiment,
    frames,
    hdawg,
    ion,
    lab,
    network,
    physics,
    prepare,
    rehearsal,
    scaling,
    service,
)
from benchmarks.measure import Effort, Outcome

BENCHMARKS: Final[dict[str, Callable[[Effort], Outcome]]] = {
    "classical": classical.run,
    "decode": decode.run,
    "dqc-circuit": circuit.run_cost,
    "dqc-flat": circuit.run_flat,
    "physics": physics.run,
    "prepare": prepare.run,
    "frames": frames.run,
    "engine": engine.run,
    "hdawg": hdawg.run,
    "ion": ion.run,
    "lab": lab.run,
    "network": network.run,
    "rehearsal": rehearsal.run,
    "scaling": scaling.run,
    "service": service.run,
    "experiment": experiment.run,
}

LONG: Final = frozenset({"experiment"})
"""Only run when asked for with --long."""


def _peers(effort: Effort) -> Outcome:
    # Imported late: it makes NetQASM's names mean this system.
    from benchmarks.peers.comparison import run

    return run(effort)


ON_REQUEST: Final[dict[str, Callable[[Effort], Outcome]]] = {"peers": _peers}
"""Only run when named: what they compare with is not part of our environment."""
