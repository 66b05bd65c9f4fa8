"""Finding delegated-computation (DQC) circuits in traces of which nothing else is known."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Final

from qnodeos.errors import IncompleteTraceError
from qnodeos.experiments.dqc_segments import Floats, NodeTrace, circuit_segments_ms
from qnodeos.trace import Event
from qnodeos.trace.host_spans import add_host
from qnodeos.trace.matching import match_subroutines
from qnodeos.trace.node_traces import NodeTraces
from qnodeos.trace.qnpu_spans import QnpuSubroutine, find_subroutines
from qnodeos.trace.spans import Timeline

PROGRAMS_MAX: Final = 64
"""Most programs of a node that are tried with each of the other's."""


@dataclass(frozen=True)
class DqcCircuits:
    """A pair of programs that did DQC circuits.

    Attributes:
        client: traces of the node that delegated.
        server: traces of the node that computed.
        circuits: how many were completed.
        segments: of `circuit_segments_ms`.
    """

    client: NodeTrace
    server: NodeTrace
    circuits: int
    segments: dict[str, Floats]


@dataclass(frozen=True)
class _Program:
    """A program on one node, and how often it did what a DQC program does.

    Attributes:
        done: subroutines that were done, with the result back at the CNPU.
        sent: messages.
        received: messages.
    """

    node: NodeTraces
    number: int | None
    pid: int | None
    done: int
    sent: int
    received: int

    def trace(self) -> NodeTrace:
        return NodeTrace.from_traces(self.node, app_id=self.number, process=self.pid, is_cut=True)


def find_circuits(nodes: Sequence[NodeTraces]) -> list[DqcCircuits]:
    """All pairs of programs that did DQC circuits, by what they did and when.

    A client sends a message after every subroutine; its server does two subroutines for
    every message. The last circuit may be unfinished.

    Args:
        nodes: traces of the nodes.
    """
    programs = {node.name: list(_programs(node))[:PROGRAMS_MAX] for node in nodes}
    found: list[DqcCircuits] = []
    for first, second in permutations(programs, 2):
        servers = [each for each in programs[second] if _is_server(each)]
        for client in filter(_is_client, programs[first]):
            for server in servers:
                circuits = min(client.sent, server.done // 2)
                pair = _circuits(client, server, circuits)
                if pair is not None:
                    found.append(pair)
                    servers.remove(server)
                    break
    return found


def _is_client(program: _Program) -> bool:
    return not program.received and 0 < program.sent <= program.done <= program.sent + 1


def _is_server(program: _Program) -> bool:
    return (
        not program.sent
        and program.done > 1
        and 2 * program.received - 1 <= program.done <= 2 * program.received + 1
    )


def _circuits(client: _Program, server: _Program, circuits: int) -> DqcCircuits | None:
    """The circuits of two programs, None if the two have nothing to do with each other."""
    traces = client.trace(), server.trace()
    try:
        segments = circuit_segments_ms(*traces, circuits)
    except IncompleteTraceError:
        return None
    # A message cannot come before it is sent, and does not stay away for long.
    communication = segments["classical_communication"]
    live = segments["live_time"]
    if (communication < 0).any() or (communication > live).any() or (live < 0).any():
        return None
    return DqcCircuits(*traces, circuits, segments)


def _programs(node: NodeTraces) -> Iterator[_Program]:
    added = find_subroutines(node)
    if not node.has_details:
        if len(node.processes()) == 1:
            yield _program(node, None, None, added)
        return
    sent = add_host(Timeline(), node).subroutines
    processes: dict[tuple[int, int], list[QnpuSubroutine]] = defaultdict(list)
    for subroutine, each in match_subroutines(sent, added, node.tick_ns, by_serial=True):
        processes[subroutine.program, each.pid].append(each)
    for (number, pid), mine in sorted(processes.items()):
        yield _program(node, number, pid, mine)


def _program(
    node: NodeTraces, number: int | None, pid: int | None, subroutines: Sequence[QnpuSubroutine]
) -> _Program:
    events = node.host["event"]
    mine = number is None or node.host["process"] == number
    results, sent, received = (
        int(((events == event) & mine).sum())
        for event in (Event.RESULT_RCVD, Event.CLAS_MSG_SENT, Event.CLAS_MSG_RCVD)
    )
    done = sum(each.done_ns is not None and not each.is_aborted for each in subroutines)
    return _Program(node, number, pid, min(done, results), sent, received)
