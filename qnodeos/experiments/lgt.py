"""Running local gate tomography (LGT) at the client: alone, and while DQC runs (Fig. 5).

The repetitions are run in blocks, each on a freshly built pair of nodes with a seed of its
own, so that the result depends on the seed alone and not on the number of processes that
share the work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qnodeos.assembly import ExperimentNode, NetworkConfig, build_two_nodes, load_profile
from qnodeos.cnpu.external import install
from qnodeos.cnpu.latency import LatencyProfile
from qnodeos.errors import ConfigurationError, IncompleteTraceError
from qnodeos.experiments.dqc import SETS
from qnodeos.experiments.lgt_analysis import MODES, RESULTS_PER_SUBROUTINE, STATES, LgtData, merge
from qnodeos.experiments.pool import freeze_imports, run_jobs
from qnodeos.experiments.run_traces import DEFAULT_FORMATS, node_traces, write_run_traces
from qnodeos.experiments.schedulers import SCHEDULERS
from qnodeos.trace.events import Event
from qnodeos.trace.recorder import TraceRecorder
from sim.network import ProgramSpec

BLOCK_REPETITIONS: Final = 50
"""Repetitions run on one pair of nodes; bounds the size of their traces, and what is lost and
waited for when a run is interrupted."""

REPETITIONS_MAX: Final = 1_000_000
_NODE: Final = "client"
_SUBROUTINE_EVENTS: Final = 200
_BATCH_EVENTS: Final = 8
_BINS_PER_SUBROUTINE: Final = 5
_SPARE_SUBROUTINES: Final = 50
TRACE_CAPACITY_MAX: Final = 1 << 23
_MS_IN_NS: Final = 1e6


@dataclass(frozen=True)
class LgtSettings:
    """What to run.

    Attributes:
        repetitions: of the six bases for each of the six states, alone and again multitasked.
        seed: of all randomness.
        profile: name of the latency profile.
        network: nodes, link and schedule.
        scheduler: a name of `SCHEDULERS`.
        backend: depth of the simulation, see `qnodeos.assembly.BACKENDS`.
        trace_directory: where to write the traces of the first block beside DQC, None for
            nowhere.
        trace_formats: of `qnodeos.trace.export.FORMATS`.
        latency: instead of the named latency profile.

    Raises:
        ConfigurationError: there is no such scheduler, or not so many repetitions can be run.
    """

    repetitions: int
    seed: int
    profile: str
    network: NetworkConfig
    scheduler: str = "fcfs"
    backend: str = "behavioural"
    trace_directory: Path | None = None
    trace_formats: Sequence[str] = DEFAULT_FORMATS
    latency: LatencyProfile | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.repetitions <= REPETITIONS_MAX:
            raise ConfigurationError(
                f"{self.repetitions} repetitions cannot be run: give 1 to {REPETITIONS_MAX:,}"
            )
        if self.scheduler not in SCHEDULERS:
            raise ConfigurationError(
                f"there is no scheduler {self.scheduler!r}; choose one of: {', '.join(SCHEDULERS)}"
            )

    @property
    def subroutines(self) -> int:
        """How many there are in all."""
        return len(MODES) * len(STATES) * self.repetitions


@dataclass(frozen=True)
class LgtBlock:
    """A part of the run: some repetitions in one of `MODES`."""

    mode: str
    number: int
    repetitions: int


def blocks_of(settings: LgtSettings) -> list[LgtBlock]:
    """All blocks, in the order in which they are run: both modes advance together."""
    sizes = [BLOCK_REPETITIONS] * (settings.repetitions // BLOCK_REPETITIONS)
    if rest := settings.repetitions % BLOCK_REPETITIONS:
        sizes.append(rest)
    return [LgtBlock(mode, number, size) for number, size in enumerate(sizes) for mode in MODES]


def run_blocks(
    settings: LgtSettings,
    workers: int,
    on_progress: Callable[[int], None],
    on_interrupt: Callable[[], None] = lambda: None,
) -> Iterator[tuple[LgtBlock, LgtData]]:
    """Run all blocks, in several processes; yields each as it is done.

    For Ctrl-C see `qnodeos.experiments.pool.run_jobs`.

    Args:
        settings: the experiment.
        workers: processes; 1 runs everything here.
        on_progress: called with the number of subroutines done so far, now and then.
        on_interrupt: called when the first Ctrl-C is noticed.
    """
    return run_jobs(
        blocks_of(settings), partial(run_block, settings), workers, on_progress, on_interrupt
    )


def run_block(
    settings: LgtSettings, block: LgtBlock, on_subroutine: Callable[[], None] | None = None
) -> LgtData:
    """Run one block.

    Args:
        settings: the experiment.
        block: which part of it.
        on_subroutine: called after every LGT subroutine.

    Raises:
        IncompleteTraceError: the trace does not hold the whole block.
    """
    install()
    from qnodeos.experiments.programs import lgt

    freeze_imports()
    choice = SCHEDULERS[settings.scheduler]
    states: list[int] = []
    outcomes: list[list[int]] = []
    circuits = 0

    def on_result(state: int, bits: list[int]) -> None:
        states.append(state)
        outcomes.append(bits)
        if on_subroutine is not None:
            on_subroutine()

    def on_circuit(_: int) -> None:
        nonlocal circuits
        circuits += 1

    program = ProgramSpec(
        _NODE,
        "lgt",
        lgt.main,
        {
            "node": _NODE,
            "repetitions": block.repetitions,
            "queue_ahead": choice.queue_ahead,
            "on_result": on_result,
        },
    )
    background = _dqc(on_circuit) if block.mode == "multitasked" else []
    with build_two_nodes(
        settings.network,
        settings.latency or load_profile(settings.profile),
        f"{settings.seed}/lgt {block.mode}/block {block.number}",
        _trace_capacity(settings.network, block.repetitions),
        settings.backend,
        choice.policy,
    ) as system:
        system.network.run([program], background=background)
        charge_ok = charge_checks(system.client)
    if settings.trace_directory is not None and (block.mode, block.number) == ("multitasked", 0):
        process = lgt_process(system.client.qnpu_trace.columns())
        write_run_traces(
            settings.trace_directory,
            node_traces(
                system,
                lambda node, pid: "lgt" if (node, pid) == (_NODE, process) else f"dqc_{node}",
            ),
            settings.trace_formats,
            "simulated LGT beside DQC, first block",
        )
    qnpu_ms, elapsed_ms = _times_ms(system.client.qnpu_trace)
    return LgtData(
        state=np.array(states, dtype=np.int8),
        outcome=np.array(outcomes, dtype=np.int8),
        charge_ok=charge_ok.reshape(len(states), RESULTS_PER_SUBROUTINE),
        qnpu_ms=qnpu_ms,
        elapsed_ms=elapsed_ms,
        dqc_circuits=circuits,
    )


def merged(blocks: Mapping[LgtBlock, LgtData], settings: LgtSettings) -> dict[str, LgtData]:
    """The blocks of each mode as one, whatever the order they were done in.

    A mode of which there is no block is left out.
    """
    by_mode: dict[str, list[LgtData]] = {}
    for block in blocks_of(settings):
        if block in blocks:
            by_mode.setdefault(block.mode, []).append(blocks[block])
    return {mode: merge(by_mode[mode]) for mode in MODES if mode in by_mode}


def _dqc(on_circuit: Callable[[int], None]) -> list[ProgramSpec]:
    """DQC between the two nodes, without end."""
    from qnodeos.experiments.programs import dqc_client, dqc_server

    alpha, theta = SETS[0]
    common = {"alpha_steps": alpha, "circuits": None}
    return [
        ProgramSpec(
            "client",
            "dqc_client",
            dqc_client.main,
            {**common, "theta_steps": theta, "on_circuit": on_circuit},
        ),
        ProgramSpec("server", "dqc_server", dqc_server.main, common),
    ]


def _trace_capacity(network: NetworkConfig, repetitions: int) -> int:
    """Events to make room for: those of the subroutines, and of the batches between them."""
    bin_ns = network.schedule.bin_ms * _MS_IN_NS
    batches = _BINS_PER_SUBROUTINE * (1 + bin_ns / network.link.batch_ns)
    subroutines = repetitions * len(STATES) + _SPARE_SUBROUTINES
    events = subroutines * (_SUBROUTINE_EVENTS + _BATCH_EVENTS * batches)
    return min(round(events), TRACE_CAPACITY_MAX)


# --- what the trace tells ---------------------------------------------------------------


def charge_checks(client: ExperimentNode) -> NDArray[np.bool_]:
    """Whether the node passed the charge check after each readout of LGT, shape (n,).

    Raises:
        IncompleteTraceError: the trace lost events.
    """
    client.device.verify_charge(client.node.tick + 1)
    columns = _whole(client.qnpu_trace)
    readers = columns["process"][columns["event"] == Event.QDEVICE_PRODUCE_MSR_CMD]
    passed = np.array([check.passed for check in client.device.charge_checks], dtype=bool)
    if passed.size != readers.size:
        raise IncompleteTraceError(
            f"{readers.size} readouts in the trace of the {_NODE}, and {passed.size} charge checks"
        )
    kept: NDArray[np.bool_] = passed[readers == lgt_process(columns)]
    return kept


def lgt_process(columns: Mapping[str, NDArray[Any]]) -> int:
    """The process of LGT in a QNPU trace: DQC never initialises a qubit.

    Raises:
        IncompleteTraceError: no process does, or several.
    """
    found = np.unique(columns["process"][columns["event"] == Event.QDEVICE_PRODUCE_INI_CMD])
    if found.size != 1:
        raise IncompleteTraceError(
            f"{found.size} processes of the {_NODE} initialise qubits; one LGT program is needed"
        )
    return int(found[0])


def _times_ms(trace: TraceRecorder) -> tuple[NDArray[np.floating[Any]], float]:
    """How long every subroutine had the QNPU, shape (n,), and how long all took together."""
    columns = _whole(trace)
    process = lgt_process(columns)
    unit_ms = trace.unit_ns / _MS_IN_NS
    added = trace.times(Event.PROCMGR_SUBROUTINE_ADDED, process)
    done = trace.times(Event.PROCMGR_SUBROUTINE_DONE, process)
    started = trace.times(Event.PROCESSOR_START_USER_PROCESS, process)
    waits = trace.times(Event.PROCESSOR_WAIT_USER_PROCESS, process)
    ends = trace.times(Event.PROCESSOR_FINISH_USER_PROCESS, process)
    stopped = np.sort(np.concatenate([waits, ends]))
    if stopped.size != started.size:
        raise IncompleteTraceError(
            f"LGT was started {started.size} times at the {_NODE}, and stopped {stopped.size} times"
        )
    # A subroutine that has to wait, or lets others run, is started more than once.
    subroutine = np.searchsorted(done, stopped)
    busy = np.bincount(subroutine, stopped - started, minlength=done.size)[: done.size]
    return busy * unit_ms, float(done[-1] - added[0]) * unit_ms


def _whole(trace: TraceRecorder) -> dict[str, NDArray[Any]]:
    if trace.dropped:
        raise IncompleteTraceError(
            f"the trace of the {_NODE} lost {trace.dropped} events; use a link with longer batches"
        )
    return trace.columns()
