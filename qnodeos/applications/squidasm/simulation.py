"""Running SquidASM-style programs on a simulated network, in virtual time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from qnodeos.applications.simulation import seeded
from qnodeos.applications.squidasm.config import StackNetworkConfig, parse
from qnodeos.applications.squidasm.inspection import Observer
from qnodeos.applications.squidasm.program import run_program
from qnodeos.applications.squidasm.translation import describe, latencies
from qnodeos.assembly import NetworkSystem, build_network
from qnodeos.cnpu import external
from qnodeos.errors import ConfigurationError
from sim.network import ProgramSpec, RunLimits

RUNS_MAX: Final = 1_000_000


@dataclass
class Session:
    """What the calls of one script have in common.

    Attributes:
        seed: of the next simulation; each takes the next one, so that they differ.
        limits: how far each run of the programs may go.
        system: of the simulation that runs, or ran last.
        idle_ns: virtual time that passed there between runs, while nodes became quiet.
    """

    seed: int = 1
    limits: RunLimits = field(default_factory=RunLimits)
    system: NetworkSystem | None = None
    idle_ns: int = 0


session: Final = Session()
"""The one of this process: scripts call functions without saying whose they are."""


def run(
    config: StackNetworkConfig, programs: Mapping[str, Any], num_times: int = 1
) -> list[list[Any]]:
    """Run programs on a network, again and again.

    All programs of a run end before the next one begins.

    Args:
        config: the network.
        programs: what runs on which node, by name.
        num_times: how often.

    Returns:
        What each program returned in each run, by node, in the order of the configuration; an
        empty list for a node without a program.

    Raises:
        ConfigurationError: the network cannot be had, or a program is for a node it lacks.
        ProgramError: a program raised; its exception is the cause.
        StalledProgramsError: programs wait for each other, or run for too long.
    """
    config = parse(StackNetworkConfig, config, "config")
    names = [stack.name for stack in config.stacks]
    for name in programs:
        if name not in names:
            raise ConfigurationError(
                f"there is a program for {name!r}, which is no node; the nodes are: "
                f"{', '.join(names)}"
            )
    if not 0 <= num_times <= RUNS_MAX:
        raise ConfigurationError(f"num_times={num_times} is not from 0 to {RUNS_MAX}")
    seed, session.seed = session.seed, session.seed + 1
    results: dict[str, list[Any]] = {name: [] for name in names}
    with build_network(describe(config), latencies(config), seed=seed) as system, seeded(str(seed)):
        session.system, session.idle_ns = system, 0
        for number in range(num_times):
            of_runs = f" (run {number + 1} of {num_times})" if num_times > 1 else ""
            for name, result in _run_once(system, programs, of_runs).items():
                results[name].append(result)
    return [results[name] for name in names]


def _run_once(system: NetworkSystem, programs: Mapping[str, Any], of_runs: str) -> dict[str, Any]:
    network = system.network
    ended_ns = network.clock.now_ns

    def running(program: Any, name: str) -> Any:
        nonlocal ended_ns
        result = run_program(program, name)
        ended_ns = max(ended_ns, network.clock.now_ns)
        return result

    token = external.simulation.set(Observer(system))
    try:
        outcome = network.attempt(
            [
                ProgramSpec(name, f"{name}{of_runs}", partial(running, program, name), {})
                for name, program in programs.items()
            ],
            limits=session.limits,
        )
    finally:
        external.simulation.reset(token)
    if outcome.problem is not None:
        raise outcome.problem from outcome.problem.__cause__
    session.idle_ns += network.clock.now_ns - ended_ns
    return {name: program.result for name, program in zip(programs, outcome.programs, strict=True)}


def sim_time(magnitude: float = 1) -> float:
    """Virtual time since the beginning of the simulation that runs, or ran last.

    Args:
        magnitude: of the unit, in nanoseconds.
    """
    if session.system is None:
        return 0.0
    return (session.system.network.clock.now_ns - session.idle_ns) / magnitude


def set_seed(seed: int | None = None) -> None:
    """Choose the seed of the next simulation; none leaves it as it is."""
    if seed is not None:
        session.seed = seed
