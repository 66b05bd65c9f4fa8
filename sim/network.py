"""A whole quantum network in virtual time: nodes, links, CNPUs and the programs on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random
from typing import Any, Final

from qnodeos.api.peer import PeerMessage
from qnodeos.cnpu.latency import LatencyProfile
from qnodeos.cnpu.virtual import VirtualCnpu, VirtualProgram
from qnodeos.errors import ConfigurationError, ProgramError, StalledProgramsError
from sim.clock import VirtualClock
from sim.node import VirtualNode

_WAITS_SHOWN: Final = 8
"""Programs that a message names."""

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
        failed: list[VirtualProgram] = []
        started = self._start([*programs, *background], failed)
        running = started[: len(programs)]
        with self._stopped_afterwards(started):
            self._advance(running, on_progress)
            stalled = [program for program in running if not program.is_finished]
            ended_by_error = failed[:1]
        _raise_first(ended_by_error)
        if stalled:
            waits = [f"{program.name} for {program.waiting_for}" for program in stalled]
            if len(waits) > _WAITS_SHOWN:
                waits[_WAITS_SHOWN:] = [f"and {len(waits) - _WAITS_SHOWN} more"]
            raise StalledProgramsError(
                f"nothing more can happen, but programs wait: {'; '.join(waits)}"
            )
        return [program.result for program in running]

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
        _raise_first(failed)

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
    def _stopped_afterwards(self, programs: Sequence[VirtualProgram]) -> Iterator[None]:
        """Stop programs at the end, and let what is under way come to its end."""
        try:
            yield
        finally:
            for program in programs:
                program.kill()
            for cnpu in self.cnpus.values():
                cnpu.board.clear()
        self.settle()

    def settle(self) -> None:
        """Let what is under way come to its end."""
        self.clock.run_while(lambda: True)

    def _advance(
        self, running: Sequence[VirtualProgram], on_progress: Callable[[], None] | None
    ) -> None:
        left = list(running)

        def unfinished() -> bool:
            while left and left[-1].is_finished:
                left.pop()
            return bool(left)

        if on_progress is None:
            self.clock.run_while(unfinished)
            return
        steps = 0

        def watched() -> bool:
            nonlocal steps
            steps += 1
            if steps % 1000 == 0:
                on_progress()
            return unfinished()

        self.clock.run_while(watched)


def _raise_first(failed: Sequence[VirtualProgram]) -> None:
    if failed:
        first = failed[0]
        raise ProgramError(
            f"program {first.name} failed: {type(first.error).__name__}: {first.error}"
        ) from first.error
