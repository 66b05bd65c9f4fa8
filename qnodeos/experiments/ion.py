"""The demonstration on a trapped ion: seven sequences, through QNodeOS and without it.

The repetitions are run in blocks, each on freshly built nodes with seeds of their own, so that
the result depends on the seed alone and not on the number of processes that share the work.
The run without QNodeOS has a device and a random stream of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np

from qnodeos.assembly.common import load_profile
from qnodeos.assembly.ion import (
    NODE,
    IonNodeConfig,
    IonSystem,
    build_ion_device,
    build_ion_node,
)
from qnodeos.cnpu.external import install
from qnodeos.errors import ConfigurationError
from qnodeos.experiments.ion_analysis import IonData, Outcomes, merge
from qnodeos.experiments.ion_circuits import SEQUENCES, physical_programs
from qnodeos.experiments.ion_direct import DirectLine, Exchanges, ObservedDevice
from qnodeos.experiments.pool import freeze_imports, run_jobs
from qnodeos.experiments.run_traces import DEFAULT_FORMATS, write_run_traces
from qnodeos.qdevice.outcomes import Outcome
from qnodeos.trace.node_traces import NodeTraces
from sequences.ion import OPERATION_OF_INSTRUCTION
from sim.ion.physics import predicted_p_dark
from sim.network import ProgramSpec

BLOCK_REPETITIONS: Final = 100
"""Repetitions run on one node; bounds the size of their traces, and what is lost and waited for
when a run is interrupted."""

REPETITIONS_MAX: Final = 1_000_000
_EVENTS_PER_CIRCUIT: Final = 64
_NS_PER_S: Final = 1e9


@dataclass(frozen=True)
class IonSettings:
    """What to run.

    Attributes:
        repetitions: of each sequence, through QNodeOS and again without.
        seed: of all randomness.
        profile: name of the latency profile.
        node: the ion and its timing.
        backend: depth of the simulation, see `qnodeos.assembly.BACKENDS`.
        trace_directory: where to write the traces of the first block, None for nowhere.
        trace_formats: of `qnodeos.trace.export.FORMATS`.

    Raises:
        ConfigurationError: not so many repetitions can be run.
    """

    repetitions: int
    seed: int
    profile: str = "paper"
    node: IonNodeConfig = field(default_factory=IonNodeConfig)
    backend: str = "behavioural"
    trace_directory: Path | None = None
    trace_formats: Sequence[str] = DEFAULT_FORMATS

    def __post_init__(self) -> None:
        if not 1 <= self.repetitions <= REPETITIONS_MAX:
            raise ConfigurationError(
                f"{self.repetitions} repetitions cannot be run: give 1 to {REPETITIONS_MAX:,}"
            )

    @property
    def circuits(self) -> int:
        """How many there are in all."""
        return 2 * len(SEQUENCES) * self.repetitions

    def expected(self) -> list[float]:
        """Probability that each sequence ends dark, in closed form."""
        timing = self.node.timing
        return [
            predicted_p_dark(
                [OPERATION_OF_INSTRUCTION[each.opcode, each.argument] for each in program[1:]],
                self.node.physics,
                timing.detection_us,
                timing.threshold,
                spacing_ns=timing.tick_ns,
            )
            for program in physical_programs()
        ]


@dataclass(frozen=True)
class IonBlock:
    """A part of the run: some repetitions of all sequences."""

    number: int
    repetitions: int


def blocks_of(settings: IonSettings) -> list[IonBlock]:
    """All blocks, in the order in which they are run."""
    sizes = [BLOCK_REPETITIONS] * (settings.repetitions // BLOCK_REPETITIONS)
    if rest := settings.repetitions % BLOCK_REPETITIONS:
        sizes.append(rest)
    return [IonBlock(number, size) for number, size in enumerate(sizes)]


def run_blocks(
    settings: IonSettings,
    workers: int,
    on_progress: Callable[[int], None],
    on_interrupt: Callable[[], None] = lambda: None,
) -> Iterator[tuple[IonBlock, IonData]]:
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


def run_block(
    settings: IonSettings, block: IonBlock, on_circuit: Callable[[], None] = lambda: None
) -> IonData:
    """Run one block.

    Args:
        settings: the experiment.
        block: which part of it.
        on_circuit: called after every circuit.
    """
    qnodeos, exchanges, elapsed_ns = _run_qnodeos(settings, block, on_circuit)
    direct, further, further_ns = _run_direct(settings, block, on_circuit)
    return IonData(
        qnodeos, direct, exchanges.joined(further), (elapsed_ns + further_ns) / _NS_PER_S
    )


def merged(blocks: Mapping[IonBlock, IonData], settings: IonSettings) -> IonData:
    """The blocks as one, whatever the order they were done in.

    Raises:
        InsufficientDataError: there is none.
    """
    return merge(blocks[block] for block in blocks_of(settings) if block in blocks)


def _run_qnodeos(
    settings: IonSettings, block: IonBlock, on_circuit: Callable[[], None]
) -> tuple[Outcomes, Exchanges, int]:
    install()
    from qnodeos.experiments.programs import ion_sequences

    freeze_imports()
    outcomes: list[int] = []

    def on_result(_: int, outcome: int) -> None:
        outcomes.append(outcome)
        on_circuit()

    program = ProgramSpec(
        NODE,
        "ion_sequences",
        ion_sequences.main,
        {"node": NODE, "repetitions": block.repetitions, "on_result": on_result},
    )
    with build_ion_node(
        settings.node,
        load_profile(settings.profile),
        _seed(settings, block),
        block.repetitions * len(SEQUENCES) * _EVENTS_PER_CIRCUIT,
        settings.backend,
        observe=ObservedDevice,
    ) as system:
        system.network.run([program])
        assert isinstance(system.device, ObservedDevice)
        exchanges = system.device.exchanges
        elapsed_ns = system.network.clock.now_ns
        if settings.trace_directory is not None and block.number == 0:
            _write_traces(settings.trace_directory, settings.trace_formats, system)
    return _table(outcomes), exchanges, elapsed_ns


def _run_direct(
    settings: IonSettings, block: IonBlock, on_circuit: Callable[[], None]
) -> tuple[Outcomes, Exchanges, int]:
    programs = physical_programs()
    outcomes: list[int] = []
    with ExitStack() as cleanup:
        seed = f"{_seed(settings, block)}/direct"
        device = ObservedDevice(build_ion_device(settings.node, seed, cleanup, settings.backend))
        line = DirectLine(device)
        for _ in range(block.repetitions):
            for program in programs:
                outcomes.append(int(line.run(program) is Outcome.SUCCESS_ONE))
                on_circuit()
    return _table(outcomes), device.exchanges, line.tick * device.capabilities.tick_ns


def _seed(settings: IonSettings, block: IonBlock) -> str:
    return f"{settings.seed}/ion/block {block.number}"


def _table(outcomes: list[int]) -> Outcomes:
    return np.array(outcomes, dtype=np.int8).reshape(-1, len(SEQUENCES))


def _write_traces(directory: Path, formats: Sequence[str], system: IonSystem) -> None:
    recorded = NodeTraces.from_recorders(NODE, system.host_trace, system.qnpu_trace)
    named = replace(recorded, programs=dict.fromkeys(recorded.processes(), "ion_sequences"))
    write_run_traces(
        directory, [named], formats, "simulated trapped-ion demonstration, first block"
    )
