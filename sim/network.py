"""A whole quantum network in virtual time: nodes, links, CNPUs and the programs on them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random
from typing import Any, Final

from qnodeos.api.peer import PeerMessage
from qnodeos.cnpu.latency import LatencyProfile
from qnodeos.cnpu.virtual import VirtualCnpu, VirtualProgram
from qnodeos.errors import ConfigurationError, ProgramError, StalledProgramsError
from qnodeos.qnpu.er_sockets import UserRequest
from sim.clock import VirtualClock
from sim.node import VirtualNode

_WAITS_SHOWN: Final = 8
"""Programs that a message names."""
_S_IN_NS: Final = 1_000_000_000

Wire = tuple[int, int]
"""Node ids of the sender and the receiver."""


@dataclass(frozen=True)
class ProgramSpec:
    """A program to run.

    Attributes:
        node: name of the node.
        name: name of the program, for messages.
        entry: its function.
        inputs: keyword arguments of the function.
    """

    node: str
    name: str
    entry: Callable[..., Any]
    inputs: Mapping[str, Any]


@dataclass(frozen=True)
class RunLimits:
    """How far programs may run; whatever is first ends them.

    Attributes:
        duration_s: virtual time, in seconds.
        steps: events of the simulation; each takes 5 to 100 us of computing.
    """

    duration_s: float = 1_000.0
    steps: int = 5_000_000


@dataclass(frozen=True)
class ProgramOutcome:
    """What became of a program.

    Attributes:
        name: of the program.
        result: what it returned.
        error: what it raised; if it was stopped, a `StalledProgramsError` that says at what.
    """

    name: str
    result: Any
    error: Exception | None


@dataclass(frozen=True)
class RunOutcome:
    """What became of programs that were run together.

    Attributes:
        programs: in the order in which they were given.
        problem: None if all have returned, else what a caller should raise: of the first program
            that raised, or why the programs that are left were stopped.
        ended_ns: when the last of them ended, or they were stopped.
    """

    programs: Sequence[ProgramOutcome]
    problem: ProgramError | StalledProgramsError | None
    ended_ns: int


class PeerNetwork:
    """Carries messages between QNPUs, in order per pair of nodes that are connected."""

    def __init__(self, clock: VirtualClock, latency: LatencyProfile, rng: Random) -> None:
        self._clock = clock
        self._latency = latency
        self._rng = rng
        self._nodes: dict[int, VirtualNode] = {}
        self._last_arrival_ns: dict[Wire, int] = {}
        self._cuts: dict[Wire, int] = {}  # how often each was made or cut: odd while it is cut

    def add(self, node_id: int, node: VirtualNode) -> None:
        """Make a node reachable."""
        self._nodes[node_id] = node

    def sender(self, source: int) -> Callable[[int, PeerMessage], None]:
        """What a node calls to send a message to another."""

        def send(destination: int, message: PeerMessage) -> None:
            wire = source, destination
            cuts = self._cuts.get(wire, 0)
            if cuts % 2:
                return
            arrival_ns = self._clock.now_ns + self._latency.peer.sample_ns(self._rng)
            arrival_ns = max(arrival_ns, self._last_arrival_ns.get(wire, 0))
            self._last_arrival_ns[wire] = arrival_ns
            self._clock.call_at(arrival_ns, self._deliver, wire, cuts, message)

        return send

    def _deliver(self, wire: Wire, cuts: int, message: PeerMessage) -> None:
        if self._cuts.get(wire, 0) == cuts:
            source, destination = wire
            self._nodes[destination].peer_message(source, message)

    def disconnect(self, first: int, second: int) -> None:
        """Two nodes lose their connection, with all that is on the way; both notice now."""
        self._change(first, second, is_cut=True)

    def connect(self, first: int, second: int) -> None:
        """Two nodes are connected again; both notice now."""
        self._change(first, second, is_cut=False)

    def _change(self, first: int, second: int, *, is_cut: bool) -> None:
        for wire in ((first, second), (second, first)):
            cuts = self._cuts.get(wire, 0)
            if cuts % 2 != is_cut:
                self._cuts[wire] = cuts + 1
                source, destination = wire
                node = self._nodes[source]
                (node.peer_lost if is_cut else node.peer_connected)(destination)


class VirtualNetwork:
    """Nodes and their CNPUs on one clock."""

    def __init__(
        self,
        clock: VirtualClock,
        nodes: Mapping[str, VirtualNode],
        cnpus: Mapping[str, VirtualCnpu],
    ) -> None:
        self.clock = clock
        self.nodes = nodes
        self.cnpus = cnpus

    def run(
        self,
        programs: Sequence[ProgramSpec],
        on_progress: Callable[[], None] | None = None,
        background: Sequence[ProgramSpec] = (),
    ) -> list[Any]:
        """Run programs until all have ended.

        Args:
            programs: what to run, and where. All start now.
            on_progress: called now and then.
            background: programs to run beside them, stopped when they have all ended.

        Returns:
            What each program, but those in the background, returned, in order.

        Raises:
            ConfigurationError: a program is to run on a node that is not there.
            ProgramError: a program raised; the first one's exception is the cause.
            StalledProgramsError: the programs that are left wait for each other.
        """
        outcome = self.attempt(programs, on_progress, background)
        if outcome.problem is not None:
            error = outcome.problem
            raise error from error.__cause__
        return [program.result for program in outcome.programs]

    def attempt(
        self,
        programs: Sequence[ProgramSpec],
        on_progress: Callable[[], None] | None = None,
        background: Sequence[ProgramSpec] = (),
        limits: RunLimits | None = None,
    ) -> RunOutcome:
        """Run programs until all have ended, or nothing more comes of it.

        Args:
            programs: what to run, and where. All start now.
            on_progress: called now and then.
            background: programs to run beside them, stopped when they have all ended.
            limits: stop them then at the latest; without, only when nothing more can happen.

        Returns:
            What became of each, but those in the background.

        Raises:
            ConfigurationError: a program is to run on a node that is not there.
        """
        failed: list[VirtualProgram] = []
        started = self._start([*programs, *background], failed)
        running = started[: len(programs)]
        with self._stopped_afterwards(started, limits):
            reason = self._advance(running, on_progress, limits)
            # What they wait for is not known any more when they have been stopped.
            waits = {program: self._wait_of(program) for program in running}
            first_failed = failed[:1]
            ended_ns = self.clock.now_ns
        waiting = {program: wait for program, wait in waits.items() if wait}
        stalled: StalledProgramsError | None = None
        if waiting:
            ended = ", ".join(program.name for program in running if program not in waiting)
            stalled = StalledProgramsError(
                f"{reason}, but programs wait: {_listed(waiting)}"
                + (f"; ended have: {ended}" if ended else "")
            )
        problem: ProgramError | StalledProgramsError | None = stalled
        if first_failed:
            problem = _failure(first_failed[0], waiting)
        return RunOutcome(
            [
                ProgramOutcome(
                    program.name, program.result, stalled if program in waiting else program.error
                )
                for program in running
            ],
            problem,
            ended_ns,
        )

    def _wait_of(self, program: VirtualProgram) -> str:
        """What a program waits for, in words; empty if it has ended."""
        if program.is_finished:
            return ""
        kernel = self.nodes[program.node_name].kernel
        within = []
        for process in kernel.list_processes():
            if process.client in program.clients and process.waiting_for:
                requests = kernel.entanglement.requests_of(process.pid)
                within += [self._words_for(request) for request in requests] or [
                    process.waiting_for
                ]
        return f"{program.waiting_for} ({'; '.join(within)})" if within else program.waiting_for

    def _words_for(self, request: UserRequest) -> str:
        socket = request.socket
        what = "receives" if request.arguments is None else "creates"
        pairs = "1 pair" if request.pairs == 1 else f"{request.pairs} pairs"
        node = list(self.nodes)[socket.remote_node]
        return (
            f"it {what} {pairs} with node {node} on ER socket {socket.socket_id}, of which "
            f"{request.delivered} came"
        )

    def run_for(self, programs: Sequence[ProgramSpec], duration_ns: int) -> None:
        """Run programs for a time and stop those that have not ended by then.

        Args:
            programs: what to run, and where. All start now.
            duration_ns: how long, in virtual time.

        Raises:
            ConfigurationError: a program is to run on a node that is not there.
            ProgramError: a program raised; the first one's exception is the cause.
        """
        clock = self.clock
        end_ns = clock.now_ns + duration_ns
        failed: list[VirtualProgram] = []
        started = self._start(programs, failed)
        with self._stopped_afterwards(started):
            clock.call_at(end_ns, lambda: None)  # so that time gets there at all
            clock.run_while(lambda: clock.now_ns < end_ns and not failed)
        if failed:
            error = _failure(failed[0], {})
            raise error from error.__cause__

    def _start(
        self, programs: Sequence[ProgramSpec], failed: list[VirtualProgram]
    ) -> list[VirtualProgram]:
        for spec in programs:
            if spec.node not in self.cnpus:
                raise ConfigurationError(
                    f"program {spec.name}: there is no node {spec.node!r}; "
                    f"the nodes are: {', '.join(self.cnpus)}"
                )
        return [
            self.cnpus[spec.node].start(spec.name, spec.entry, spec.inputs, failed.append)
            for spec in programs
        ]

    @contextmanager
    def _stopped_afterwards(
        self, programs: Sequence[VirtualProgram], limits: RunLimits | None = None
    ) -> Iterator[None]:
        """Stop programs at the end, and let what is under way come to its end."""
        try:
            yield
        finally:
            for program in programs:
                program.kill()
            for cnpu in self.cnpus.values():
                cnpu.board.clear()
        self.settle(limits)

    def settle(self, limits: RunLimits | None = None) -> None:
        """Let what is under way come to its end, or the limits."""
        if limits is None:
            self.clock.run_while(lambda: True)
        else:
            steps = iter(range(limits.steps))
            self.clock.run_while(lambda: next(steps, None) is not None)

    def _advance(
        self,
        running: Sequence[VirtualProgram],
        on_progress: Callable[[], None] | None,
        limits: RunLimits | None,
    ) -> str:
        """Let time pass until the programs have ended; if they have not, why it stopped."""
        left = list(running)

        def unfinished() -> bool:
            while left and left[-1].is_finished:
                left.pop()
            return bool(left)

        if on_progress is None and limits is None:
            self.clock.run_while(unfinished)
            return _NOTHING_MORE
        clock = self.clock
        steps, most_steps, end_ns = 0, sys.maxsize, sys.maxsize
        if limits is not None:
            most_steps = limits.steps
            end_ns = clock.now_ns + round(limits.duration_s * _S_IN_NS)

        def watched() -> bool:
            nonlocal steps
            steps += 1
            if on_progress is not None and steps % 1000 == 0:
                on_progress()
            return unfinished() and steps <= most_steps and clock.now_ns <= end_ns

        clock.run_while(watched)
        if limits is None or (steps <= most_steps and clock.now_ns <= end_ns):
            return _NOTHING_MORE
        if steps > most_steps:
            return f"{most_steps} steps of the simulation are done, the limit (--max-steps)"
        return f"{limits.duration_s:g} s of virtual time are over, the limit (--timeout)"


_NOTHING_MORE: Final = "nothing more can happen"


def _listed(waits: Mapping[VirtualProgram, str]) -> str:
    shown = [f"{program.name} for {wait}" for program, wait in waits.items()]
    if len(shown) > _WAITS_SHOWN:
        shown[_WAITS_SHOWN:] = [f"and {len(shown) - _WAITS_SHOWN} more"]
    return "; ".join(shown)


def _failure(first: VirtualProgram, waits: Mapping[VirtualProgram, str]) -> ProgramError:
    """The error for a program that raised, while others waited."""
    others = f" (then programs waited: {_listed(waits)})" if waits else ""
    problem = ProgramError(
        f"program {first.name} failed: {type(first.error).__name__}: {first.error}{others}"
    )
    problem.__cause__ = first.error
    return problem
