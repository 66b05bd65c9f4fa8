"""Running DQC and LGT programs at once, and one after another: the paper's Fig. 5.

N pairs of endless DQC programs and N LGT programs at the client share two nodes for a fixed
virtual time. Without multitasking the same nodes do the same work, the circuits and
subroutines that the multitasked run achieved, one program after another.

A run is cut into blocks, each on freshly built nodes with a seed of its own, so that the
result does not depend on the number of processes that share the work.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import reduce
from itertools import count
from operator import add
from pathlib import Path
from typing import Final

from qnodeos.assembly import NetworkConfig, TwoNodeSystem, build_two_nodes, load_profile
from qnodeos.cnpu.external import install
from qnodeos.cnpu.latency import LatencyProfile
from qnodeos.errors import ConfigurationError
from qnodeos.experiments.dqc import SETS
from qnodeos.experiments.multitasking_analysis import (
    Observed,
    Roles,
    observe,
    refuse_incomplete,
)
from qnodeos.experiments.pool import freeze_imports
from qnodeos.experiments.run_traces import DEFAULT_FORMATS, node_traces, write_run_traces
from qnodeos.experiments.schedulers import SCHEDULERS
from qnodeos.limits import Limits
from qnodeos.qnpu.process import NETWORK_PID
from qnodeos.trace.recorder import CAPACITY_MAX
from sim.network import ProgramSpec

PAIRS_MAX: Final = 100
"""Most pairs of DQC programs (and LGT programs) at once."""

BLOCK_S: Final = 10.0
"""Most virtual seconds of a block; bounds its traces, and what an interruption loses."""

BLOCK_STEPS: Final = 20
"""Steps of progress in a block: half of them multitasked, half not."""

SECONDS_MIN: Final = 1.0
SECONDS_MAX: Final = 100_000.0
"""Fewest and most virtual seconds of a run."""

TRACE_S: Final = 1.0
"""Virtual seconds of the traces that are written; more is too much for a viewer."""

_EVENTS_PER_S: Final = 40_000
"""Room in a recorder: a QNPU busy all the time with LGT records about 23,000 per second."""

SUBROUTINES_PER_REPETITION: Final = 6
"""Subroutines in a repetition of LGT, one per input state."""

_S_IN_NS: Final = 1_000_000_000


@dataclass(frozen=True)
class MultitaskingSettings:
    """What to run.

    Attributes:
        pairs: numbers of pairs of DQC programs, and of LGT programs.
        schedulers: names of `SCHEDULERS`.
        seconds: virtual time of each multitasked run.
        seed: of all randomness.
        profile: name of the latency profile.
        network: nodes, link and schedule.
        backend: depth of the simulation, see `qnodeos.assembly.BACKENDS`.
        latency: instead of the named latency profile.
        trace_directory: where to write traces of each multitasked run's first `TRACE_S`, in a
            directory for each run; None for nowhere.
        trace_formats: of `qnodeos.trace.export.FORMATS`.

    Raises:
        ConfigurationError: a number, a name or the time is not one that can be run.
    """

    pairs: Sequence[int]
    schedulers: Sequence[str]
    seconds: float
    seed: int
    profile: str = "paper"
    network: NetworkConfig = field(default_factory=lambda: NetworkConfig.preset("prompt"))
    backend: str = "behavioural"
    latency: LatencyProfile | None = None
    trace_directory: Path | None = None
    trace_formats: Sequence[str] = DEFAULT_FORMATS

    def __post_init__(self) -> None:
        if not SECONDS_MIN <= self.seconds <= SECONDS_MAX:
            raise ConfigurationError(
                f"{self.seconds:g} s of virtual time cannot be run: give from {SECONDS_MIN:g} s to "
                f"{SECONDS_MAX:g} s"
            )
        for what, values in (("number of pairs", self.pairs), ("scheduler", self.schedulers)):
            if not values:
                raise ConfigurationError(f"give at least one {what}")
            for value in values:
                if values.count(value) > 1:
                    raise ConfigurationError(f"{what} {value} is given more than once")
        for n in self.pairs:
            if not 1 <= n <= PAIRS_MAX:
                raise ConfigurationError(
                    f"{n} pairs of programs cannot be run: give numbers from 1 to {PAIRS_MAX}"
                )
        for name in self.schedulers:
            if name not in SCHEDULERS:
                raise ConfigurationError(
                    f"there is no scheduler '{name}'; choose from: {', '.join(SCHEDULERS)}"
                )


@dataclass(frozen=True)
class Block:
    """A part of one run, multitasked and not.

    Attributes:
        n: pairs of DQC programs, and LGT programs.
        scheduler: a name of `SCHEDULERS`.
        number: which block of the run.
        seconds: its virtual time.
    """

    n: int
    scheduler: str
    number: int
    seconds: float


@dataclass(frozen=True)
class BlockResult:
    """What was observed in a block with multitasking and without."""

    multitasked: Observed
    alone: Observed


def blocks_of(settings: MultitaskingSettings) -> list[Block]:
    """All blocks, in the order in which they are run: all runs advance together."""
    blocks = math.ceil(settings.seconds / BLOCK_S)
    return [
        Block(n, scheduler, number, settings.seconds / blocks)
        for number in range(blocks)
        for scheduler in settings.schedulers
        for n in settings.pairs
    ]


def run_block(
    settings: MultitaskingSettings, block: Block, on_step: Callable[[], None]
) -> BlockResult:
    """Run one block, multitasked and then one program after another.

    Args:
        settings: the experiment.
        block: which.
        on_step: called `BLOCK_STEPS` times in all.
    """
    install()
    freeze_imports()
    steps = _Steps(on_step, BLOCK_STEPS // 2)
    outcomes, multitasked = _run_multitasked(settings, block, steps)
    steps.finish()
    steps = _Steps(on_step, BLOCK_STEPS - BLOCK_STEPS // 2)
    circuits = [len(each) for each in outcomes]
    alone = _run_alone(settings, block, circuits, multitasked.lgt_subroutines, steps)
    steps.finish()
    return BlockResult(multitasked, alone)


class _Steps:
    """Reports progress in a fixed number of steps."""

    def __init__(self, on_step: Callable[[], None], steps: int) -> None:
        self._on_step = on_step
        self._steps = steps
        self._reported = 0

    def advance(self, share: float) -> None:
        """So much of the whole is done."""
        while self._reported < min(int(share * self._steps), self._steps):
            self._reported += 1
            self._on_step()

    def finish(self) -> None:
        """All is done."""
        self.advance(1.0)


class _Nodes:
    """Client and server, and the programs that are started on them."""

    def __init__(self, system: TwoNodeSystem, block: Block) -> None:
        self.system = system
        self._block = block
        self._client_pids = count(NETWORK_PID + 1)
        self._server_pids = count(NETWORK_PID + 1)
        self._handles = ("client", system.client), ("server", system.server)
        self.tick_ns = system.client.qnpu_trace.unit_ns
        self._bins = [0] * 6

    def dqc(
        self, pair: int, circuits: int | None, outcomes: list[int], on_circuit: Callable[[], None]
    ) -> tuple[list[ProgramSpec], Roles]:
        """A pair of DQC programs, and their processes once they have been started."""
        from qnodeos.experiments.programs import dqc_client, dqc_server

        def take(outcome: int) -> None:
            outcomes.append(outcome)
            on_circuit()

        alpha, theta = SETS[pair % len(SETS)]
        common = {"alpha_steps": alpha, "circuits": circuits, "socket_id": pair}
        programs = [
            ProgramSpec(
                "client", f"dqc_client {pair}", dqc_client.main, {**common, "theta_steps": theta}
            ),
            ProgramSpec(
                "server", f"dqc_server {pair}", dqc_server.main, {**common, "on_circuit": take}
            ),
        ]
        return programs, Roles(dqc=[next(self._client_pids)], servers=[next(self._server_pids)])

    def lgt(
        self, number: int, repetitions: int | None, on_subroutine: Callable[[], None]
    ) -> tuple[list[ProgramSpec], Roles]:
        """An LGT program, and its process once it has been started."""
        from qnodeos.experiments.programs import lgt

        inputs = {
            "node": "client",
            "repetitions": repetitions,
            "queue_ahead": SCHEDULERS[self._block.scheduler].queue_ahead,
            "on_result": lambda state, outcomes: on_subroutine(),
        }
        programs = [ProgramSpec("client", f"lgt {number}", lgt.main, inputs)]
        return programs, Roles(lgt=[next(self._client_pids)])

    def write_traces(
        self, directory: Path, formats: Sequence[str], programs: Sequence[ProgramSpec]
    ) -> None:
        """Write the traces of programs that were the first on these nodes."""
        names = {
            node: [program.name for program in programs if program.node == node]
            for node, _ in self._handles
        }
        traces = node_traces(self.system, lambda node, pid: names[node][pid - NETWORK_PID - 1])
        write_run_traces(
            directory / f"{self._block.scheduler}_n{self._block.n}",
            [node.until(round(TRACE_S * _S_IN_NS)) for node in traces],
            formats,
            f"simulated multitasking, scheduler {self._block.scheduler}, n = {self._block.n}, "
            f"first {TRACE_S:g} s",
        )

    def observe(
        self, start: int, stop: int, roles: Roles, outcomes: Sequence[Sequence[int]]
    ) -> Observed:
        """What happened between two ticks, taken out of the recorders."""
        bins = []
        for name, handles in self._handles:
            refuse_incomplete(f"the QNPU of the {name}", handles.qnpu_trace.dropped)
            statistics = handles.node.kernel.statistics()
            bins += [statistics.bins_used, statistics.bins_missed, statistics.bins_blocked]
        client, server = (handles.qnpu_trace.columns() for _, handles in self._handles)
        observed = observe(
            client,
            server,
            tick_ns=self.tick_ns,
            start=start,
            stop=stop,
            roles=roles,
            outcomes=outcomes,
            bins=[now - before for now, before in zip(bins, self._bins, strict=True)],
        )
        self._bins = bins
        for _, handles in self._handles:
            handles.qnpu_trace.clear()
            handles.host_trace.clear()
        return observed

    def run_alone(
        self, programs: Sequence[ProgramSpec], roles: Roles, outcomes: Sequence[Sequence[int]]
    ) -> Observed:
        """Run programs to their end; returns what happened until then.

        Args:
            programs: what to run.
            roles: which process is which of them.
            outcomes: filled while they run.
        """
        network = self.system.network
        start = network.clock.now_ns // self.tick_ns
        network.run(programs)
        # After the last program's end the QNPUs have nothing to do but to forget.
        return self.observe(start, self._last_host_tick(), roles, outcomes)

    def _last_host_tick(self) -> int:
        """The tick after the last thing a program did since the last `observe`."""
        last_ns = 0
        for name, handles in self._handles:
            trace = handles.host_trace
            refuse_incomplete(f"the CNPU of the {name}", trace.dropped)
            last_ns = max(last_ns, int(trace.columns()["time"].max(initial=0)) * trace.unit_ns)
        return last_ns // self.tick_ns + 1


@contextmanager
def _built_nodes(settings: MultitaskingSettings, block: Block, kind: str) -> Iterator[_Nodes]:
    with build_two_nodes(
        settings.network,
        settings.latency or load_profile(settings.profile),
        f"{settings.seed}/{block.n} pairs/block {block.number}/{kind}",
        _trace_capacity(block),
        settings.backend,
        SCHEDULERS[block.scheduler].policy,
        Limits(
            processes=2 * block.n + 1,
            entanglement_requests=max(Limits.entanglement_requests, block.n + 1),
        ),
    ) as system:
        yield _Nodes(system, block)


def _trace_capacity(block: Block) -> int:
    return min(int((block.seconds + 1) * _EVENTS_PER_S), CAPACITY_MAX)


def _run_multitasked(
    settings: MultitaskingSettings, block: Block, steps: _Steps
) -> tuple[list[list[int]], Observed]:
    duration_ns = round(block.seconds * _S_IN_NS)
    outcomes: list[list[int]] = [[] for _ in range(block.n)]
    with _built_nodes(settings, block, "multitasked") as nodes:
        clock = nodes.system.network.clock

        def step() -> None:
            steps.advance(clock.now_ns / duration_ns)

        started = []
        for pair in range(block.n):
            started.append(nodes.dqc(pair, None, outcomes[pair], step))
            started.append(nodes.lgt(pair, None, step))
        programs = [program for programs, _ in started for program in programs]
        nodes.system.network.run_for(programs, duration_ns)
        if settings.trace_directory is not None and not block.number:
            nodes.write_traces(settings.trace_directory, settings.trace_formats, programs)
        stop = duration_ns // nodes.tick_ns
        return outcomes, nodes.observe(
            0, stop, Roles.together(roles for _, roles in started), outcomes
        )


def _run_alone(
    settings: MultitaskingSettings,
    block: Block,
    circuits: Sequence[int],
    subroutines: int,
    steps: _Steps,
) -> Observed:
    """The work of a multitasked block, one program after another."""
    repetitions = _shares(round(subroutines / SUBROUTINES_PER_REPETITION), block.n)
    work = sum(circuits) + sum(repetitions) * SUBROUTINES_PER_REPETITION
    done = 0

    def step() -> None:
        nonlocal done
        done += 1
        steps.advance(done / work)

    parts = []
    with _built_nodes(settings, block, "alone") as nodes:
        for pair in range(block.n):
            if circuits[pair]:
                outcomes: list[int] = []
                programs, roles = nodes.dqc(pair, circuits[pair], outcomes, step)
                parts.append(nodes.run_alone(programs, roles, [outcomes]))
            if repetitions[pair]:
                parts.append(nodes.run_alone(*nodes.lgt(pair, repetitions[pair], step), []))
    return reduce(add, parts)


def _shares(whole: int, n: int) -> list[int]:
    """A number in n parts that are equal within 1."""
    return [whole // n + (part < whole % n) for part in range(n)]
