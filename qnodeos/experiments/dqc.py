"""Running delegated quantum computation (DQC) between two nodes: the paper's Fig. 4.

The circuits of a set are run in blocks, each on a freshly built pair of nodes with a seed
of its own, so that the result depends on the seed alone and not on the number of
processes that share the work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from qnodeos.assembly import (
    NetworkConfig,
    TwoNodeSystem,
    build_two_nodes,
    load_profile,
)
from qnodeos.cnpu.external import install
from qnodeos.cnpu.latency import LatencyProfile
from qnodeos.experiments.dqc_analysis import DqcSetData
from qnodeos.experiments.dqc_segments import NodeTrace, circuit_segments_ms
from qnodeos.experiments.pool import freeze_imports, run_jobs
from qnodeos.experiments.run_traces import DEFAULT_FORMATS, node_traces, write_run_traces
from sim.charge import ChargeCheck
from sim.network import ProgramSpec

SETS: Final = ((0, 4), (8, 8), (16, -4), (-8, 8), (4, 16), (-4, 2))
"""(alpha, theta) in units of pi/16. The published experiment has six sets; which ones is
not published in numbers: these are assumed."""

BLOCK_CIRCUITS: Final = 100
"""Circuits run on one pair of nodes; bounds the size of their traces, and what is lost and
waited for when a run is interrupted."""

_CIRCUIT_EVENTS: Final = 200
_BATCH_EVENTS: Final = 8
_SPARE_CIRCUITS: Final = 20
TRACE_CAPACITY_MAX: Final = 1 << 23
"""Most events kept per recorder: a link that needs more has blocks of too many circuits."""


@dataclass(frozen=True)
class DqcSettings:
    """What to run.

    Attributes:
        circuits_per_set: circuits per (alpha, theta), half of them per orientation.
        seed: of all randomness.
        profile: name of the latency profile.
        network: nodes, link and schedule.
        trace_directory: where to write the traces of the first block, None for nowhere.
        trace_formats: of `qnodeos.trace.export.FORMATS`.
        backend: depth of the simulation, see `qnodeos.assembly.BACKENDS`.
        sets: (alpha, theta) in units of pi/16.
        latency: instead of the named latency profile.
        scheduler: scheduling policy of the QNPUs.
    """

    circuits_per_set: int
    seed: int
    profile: str
    network: NetworkConfig
    trace_directory: Path | None = None
    trace_formats: Sequence[str] = DEFAULT_FORMATS
    backend: str = "behavioural"
    sets: Sequence[tuple[int, int]] = SETS
    latency: LatencyProfile | None = None
    scheduler: str = "fcfs"


@dataclass(frozen=True)
class Block:
    """A part of one set."""

    set_index: int
    number: int
    circuits: int


def blocks_of(settings: DqcSettings) -> list[Block]:
    """All blocks, in the order in which they are run: all sets advance together."""
    sizes = [BLOCK_CIRCUITS] * (settings.circuits_per_set // BLOCK_CIRCUITS)
    if rest := settings.circuits_per_set % BLOCK_CIRCUITS:
        sizes.append(rest)
    return [
        Block(set_index, number, size)
        for number, size in enumerate(sizes)
        for set_index in range(len(settings.sets))
    ]


def run_block(
    settings: DqcSettings, block: Block, on_circuit: Callable[[], None] | None = None
) -> DqcSetData:
    """Run one block and take its data and traces in.

    Args:
        settings: the experiment.
        block: which part of it.
        on_circuit: called after every circuit of the client.
    """
    install()
    from qnodeos.experiments.programs import dqc_client, dqc_server

    freeze_imports()
    alpha, theta = settings.sets[block.set_index]
    seed = f"{settings.seed}/set {block.set_index}/block {block.number}"
    capacity = _trace_capacity(settings.network, block.circuits)
    programs = [
        ProgramSpec(
            "client",
            "dqc_client",
            dqc_client.main,
            {
                "alpha_steps": alpha,
                "theta_steps": theta,
                "circuits": block.circuits,
                "on_circuit": None if on_circuit is None else lambda outcome: on_circuit(),
            },
        ),
        ProgramSpec(
            "server",
            "dqc_server",
            dqc_server.main,
            {"alpha_steps": alpha, "circuits": block.circuits},
        ),
    ]
    profile = settings.latency or load_profile(settings.profile)
    with build_two_nodes(
        settings.network, profile, seed, capacity, settings.backend, settings.scheduler
    ) as system:
        client_outcomes, outcomes = system.network.run(programs)
        charge_ok = _charge_ok(system, block.circuits)
    if settings.trace_directory is not None and (block.set_index, block.number) == (0, 0):
        write_run_traces(
            settings.trace_directory,
            node_traces(system, lambda node, _: f"dqc_{node}"),
            settings.trace_formats,
            f"simulated DQC, seed {settings.seed}, profile {settings.profile}, first block",
        )
    client = NodeTrace.from_recorders("client", system.client.host_trace, system.client.qnpu_trace)
    server = NodeTrace.from_recorders("server", system.server.host_trace, system.server.qnpu_trace)
    return DqcSetData(
        alpha_steps=alpha,
        theta_steps=theta,
        orientation=np.arange(block.circuits, dtype=np.int8) % 2,
        outcome=np.array(outcomes, dtype=np.int8),
        client_outcome=np.array(client_outcomes, dtype=np.int8),
        charge_ok=charge_ok,
        segments=circuit_segments_ms(client, server, block.circuits),
    )


def _trace_capacity(network: NetworkConfig, circuits: int) -> int:
    """Events to make room for: those of a circuit, and of the batches it takes to a herald.

    The number of batches is geometrically distributed, so its sum over the circuits stays
    well below four times its mean unless there are very few.
    """
    batches = 1 / network.link.batch_success_probability
    events = (circuits + _SPARE_CIRCUITS) * (_CIRCUIT_EVENTS + 4 * _BATCH_EVENTS * batches)
    return min(round(events), TRACE_CAPACITY_MAX)


def _charge_ok(system: TwoNodeSystem, circuits: int) -> Any:
    """Whether both nodes passed the charge check after each circuit, shape (circuits,)."""
    passed = np.ones(circuits, dtype=bool)
    for handles in (system.client, system.server):
        handles.device.verify_charge(handles.node.tick + 1)
        checks: list[ChargeCheck] = handles.device.charge_checks
        # Each circuit reads each node out once, and each readout logs the check after it.
        passed &= np.array([check.passed for check in checks[-circuits:]])
    return passed


def merge(parts: Sequence[DqcSetData]) -> DqcSetData:
    """The blocks of one set as one."""
    first = parts[0]

    def joined(values: Callable[[DqcSetData], Any]) -> Any:
        return np.concatenate([values(part) for part in parts])

    return DqcSetData(
        first.alpha_steps,
        first.theta_steps,
        joined(lambda part: part.orientation),
        joined(lambda part: part.outcome),
        joined(lambda part: part.client_outcome),
        joined(lambda part: part.charge_ok),
        {name: np.concatenate([p.segments[name] for p in parts]) for name in first.segments},
    )


def run_blocks(
    settings: DqcSettings,
    workers: int,
    on_progress: Callable[[int], None],
    on_interrupt: Callable[[], None] = lambda: None,
) -> Iterator[tuple[Block, DqcSetData]]:
    """Run all blocks, in several processes; yields each as it is done.

    For Ctrl-C see `qnodeos.experiments.pool.run_jobs`.

    Args:
        settings: the experiment.
        workers: processes; 1 runs everything here.
        on_progress: called with the number of circuits done so far, now and then.
        on_interrupt: called when the first Ctrl-C is noticed.
    """
    return run_jobs(
        blocks_of(settings), partial(run_block, settings), workers, on_progress, on_interrupt
    )
