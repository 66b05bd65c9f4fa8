"""One DQC circuit as a sequence diagram: boxes on six lanes and arrows between them, from traces.

A circuit is the client's subroutine C1, a classical message, and the server's subroutines S1 and
S2. Traces may come from recorders or from CSV files; those have lost which process an event
belongs to, so each node must have run one program.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from statistics import median
from typing import Final

from qnodeos.errors import IncompleteTraceError
from qnodeos.trace.host_spans import HostSubroutine, Message, add_host
from qnodeos.trace.matching import match_subroutines
from qnodeos.trace.node_traces import NodeTraces
from qnodeos.trace.process_spans import RUNNING
from qnodeos.trace.qnpu_spans import DeliveredPair, QnpuSubroutine, add_qnpu
from qnodeos.trace.spans import Part, Span, Timeline

BOXES_MAX: Final = 1 << 16
"""Most boxes in a diagram: a circuit of several hundred times the mean length has fewer."""


class Lane(IntEnum):
    """The lanes, from top to bottom: mirrored, so that what exchanges things is close."""

    CLIENT_CNPU = 0
    CLIENT_QNPU = 1
    CLIENT_QDEVICE = 2
    SERVER_QDEVICE = 3
    SERVER_QNPU = 4
    SERVER_CNPU = 5


class BoxKind(StrEnum):
    """What a box stands for."""

    COMPUTE = "classical program"
    SEND = "sending a subroutine"
    SUBROUTINE = "subroutine at the QNPU"
    RUNNING = "its process runs"
    ENTANGLE = "entanglement attempts"
    GATE = "gate, initialisation"
    MEASURE = "measurement"


class ArrowKind(StrEnum):
    """What an arrow stands for."""

    SEND = "subroutine sent"
    RESULT = "result"
    MESSAGE = "classical message"
    ENTANGLEMENT = "entangled pair"


@dataclass(frozen=True, slots=True)
class Box:
    """Something that lasted, on a lane."""

    lane: Lane
    start_ns: int
    stop_ns: int
    kind: BoxKind
    text: str = ""


@dataclass(frozen=True, slots=True)
class Arrow:
    """Something that went from one lane to another."""

    kind: ArrowKind
    source: Lane
    source_ns: int
    target: Lane
    target_ns: int


@dataclass(frozen=True)
class SequenceDiagram:
    """One circuit.

    Attributes:
        circuit: its number in the traces, from 0.
        circuits: how many the traces show.
        start_ns: when its first subroutine began to be sent.
        live_ns: when the server's qubit became live (the herald), and when it was measured.
        stop_ns: when the last result arrived.
        boxes: on the lanes.
        arrows: between them.
    """

    circuit: int
    circuits: int
    start_ns: int
    live_ns: tuple[int, int]
    stop_ns: int
    boxes: tuple[Box, ...]
    arrows: tuple[Arrow, ...]


def sequence_diagram(nodes: Sequence[NodeTraces], circuit: int | None = None) -> SequenceDiagram:
    """The diagram of one circuit.

    Args:
        nodes: the traces of client and server, in any order: who sends messages is the client.
        circuit: its number from 0; that whose live time and entanglement generation are closest
            to the medians if not given.

    Raises:
        IncompleteTraceError: these are not the traces of two nodes with one DQC program each, or
            do not show this circuit.
    """
    if len(nodes) != 2:
        raise IncompleteTraceError(
            f"a DQC circuit needs the traces of two nodes, not of {len(nodes)}"
        )
    client, server = sorted((_Side.of(node) for node in nodes), key=lambda side: not side.sent)
    circuits = _circuits(client, server)
    if circuit is None:
        circuit = _typical(circuits)
    if not 0 <= circuit < len(circuits):
        raise IncompleteTraceError(
            f"the traces show {len(circuits)} circuits, numbered from 0: there is no {circuit}"
        )
    previous = circuits[circuit - 1] if circuit else None
    return _diagram(client, server, circuits[circuit], previous, circuit, len(circuits))


@dataclass(frozen=True)
class _Subroutine:
    """A subroutine as program and QNPU see it; times in ns."""

    attempt_ns: int
    sent_ns: int
    added_ns: int
    done_ns: int
    result_ns: int


@dataclass(frozen=True)
class _Side:
    """What the traces of one node show."""

    name: str
    runs: list[Span]
    instructions: list[Span]
    subroutines: list[_Subroutine]
    pairs: list[DeliveredPair]
    sent: list[Message]
    received: list[Message]

    @classmethod
    def of(cls, traces: NodeTraces) -> _Side:
        node = traces.with_processes()
        if len(node.processes()) != 1:
            raise IncompleteTraceError(
                f"the trace of {node.name} shows {len(node.processes())} programs with "
                "subroutines; the diagram of a circuit needs one: use traces of "
                "`qnodeos experiment dqc`"
            )
        timeline = Timeline()
        host, qnpu = add_host(timeline, node), add_qnpu(timeline, node)
        matched = match_subroutines(
            host.subroutines, qnpu.subroutines, node.tick_ns, by_serial=node.has_details
        )
        (pid,) = node.processes()
        own = [timeline.spans[number] for number in qnpu.states[pid]]
        return cls(
            node.name,
            [span for span in own if span.name == RUNNING],
            [span for span in timeline.spans if timeline.tracks[span.track].part == Part.QDEVICE],
            _complete(matched),
            [pair for pair in qnpu.pairs if pair.delivered_ns is not None],
            [message for message in host.messages if message.is_sent],
            [message for message in host.messages if not message.is_sent],
        )


def _complete(matched: Iterable[tuple[HostSubroutine, QnpuSubroutine]]) -> list[_Subroutine]:
    """Those that were done, up to the first that was not."""
    found = []
    for sent, added in matched:
        if sent.result_ns is None or added.done_ns is None:
            break
        # Sending that takes no time leaves no span.
        attempt_ns = sent.sent_ns if sent.send is None else sent.send.time_ns
        found.append(
            _Subroutine(attempt_ns, sent.sent_ns, added.added_ns, added.done_ns, sent.result_ns)
        )
    return found


@dataclass(frozen=True)
class _Circuit:
    c1: _Subroutine
    s1: _Subroutine
    s2: _Subroutine
    herald_ns: tuple[int, int]
    message_ns: tuple[int, int]

    @property
    def live_ns(self) -> int:
        return self.s2.done_ns - self.herald_ns[1]

    @property
    def entanglement_ns(self) -> int:
        return self.herald_ns[1] - self.c1.added_ns


def _circuits(client: _Side, server: _Side) -> list[_Circuit]:
    count = min(
        len(client.subroutines),
        len(server.subroutines) // 2,
        len(client.pairs),
        len(server.pairs),
        len(client.sent),
        len(server.received),
    )
    found = [
        _Circuit(
            client.subroutines[i],
            server.subroutines[2 * i],
            server.subroutines[2 * i + 1],
            (client.pairs[i].herald_ns, server.pairs[i].herald_ns),
            (client.sent[i].time_ns, server.received[i].time_ns),
        )
        for i in range(count)
    ]
    if not found:
        raise IncompleteTraceError(
            f"the traces of {client.name} and {server.name} show no complete DQC circuit"
        )
    for number, circuit in enumerate(found):
        c1, s1, s2 = circuit.c1, circuit.s1, circuit.s2
        sent_ns, received_ns = circuit.message_ns
        if not (
            c1.added_ns <= circuit.herald_ns[0] <= c1.done_ns <= sent_ns <= received_ns
            and circuit.herald_ns[1] <= s1.done_ns <= s2.attempt_ns
            and received_ns <= s2.attempt_ns
        ):
            raise IncompleteTraceError(
                f"the traces of {client.name} and {server.name} are no DQC: in circuit {number} "
                "pair, subroutines and message do not follow one another"
            )
    return found


def _typical(circuits: Sequence[_Circuit]) -> int:
    live = median(circuit.live_ns for circuit in circuits)
    entanglement = median(circuit.entanglement_ns for circuit in circuits)

    def distance(number: int) -> float:
        circuit = circuits[number]
        return abs(circuit.live_ns / live - 1) + abs(circuit.entanglement_ns / entanglement - 1)

    return min(range(len(circuits)), key=distance)


def _diagram(
    client: _Side,
    server: _Side,
    circuit: _Circuit,
    previous: _Circuit | None,
    number: int,
    circuits: int,
) -> SequenceDiagram:
    c1, s1, s2 = circuit.c1, circuit.s1, circuit.s2
    sent_ns, received_ns = circuit.message_ns
    since_ns = previous.s2.done_ns if previous is not None else 0
    boxes = [
        *_box(Lane.CLIENT_CNPU, c1.attempt_ns, c1.sent_ns, BoxKind.SEND),
        *_box(Lane.CLIENT_CNPU, c1.result_ns, sent_ns, BoxKind.COMPUTE),
        Box(Lane.CLIENT_QNPU, c1.added_ns, c1.done_ns, BoxKind.SUBROUTINE, "C1"),
        *_running_boxes(client, Lane.CLIENT_QNPU, [c1]),
        *_device_boxes(client, Lane.CLIENT_QDEVICE, c1.added_ns, c1.done_ns),
        *_device_boxes(server, Lane.SERVER_QDEVICE, max(since_ns, c1.added_ns), s2.done_ns),
        Box(Lane.SERVER_QNPU, s1.added_ns, s1.done_ns, BoxKind.SUBROUTINE, "S1"),
        Box(Lane.SERVER_QNPU, s2.added_ns, s2.done_ns, BoxKind.SUBROUTINE, "S2"),
        *_running_boxes(server, Lane.SERVER_QNPU, [s1, s2]),
        *_box(Lane.SERVER_CNPU, s1.attempt_ns, s1.sent_ns, BoxKind.SEND),
        *_box(
            Lane.SERVER_CNPU,
            max(s1.result_ns, received_ns),
            s2.attempt_ns,
            BoxKind.COMPUTE,
        ),
        *_box(Lane.SERVER_CNPU, s2.attempt_ns, s2.sent_ns, BoxKind.SEND),
    ]
    if len(boxes) > BOXES_MAX:
        raise IncompleteTraceError(
            f"circuit {number} has more than BOXES_MAX = {BOXES_MAX} boxes; choose another"
        )
    arrows = [
        *_calls(c1, Lane.CLIENT_CNPU, Lane.CLIENT_QNPU),
        *_calls(s1, Lane.SERVER_CNPU, Lane.SERVER_QNPU),
        *_calls(s2, Lane.SERVER_CNPU, Lane.SERVER_QNPU),
        Arrow(ArrowKind.MESSAGE, Lane.CLIENT_CNPU, sent_ns, Lane.SERVER_CNPU, received_ns),
        Arrow(
            ArrowKind.ENTANGLEMENT,
            Lane.CLIENT_QDEVICE,
            circuit.herald_ns[0],
            Lane.SERVER_QDEVICE,
            circuit.herald_ns[1],
        ),
    ]
    return SequenceDiagram(
        number,
        circuits,
        min(c1.attempt_ns, s1.attempt_ns),
        (circuit.herald_ns[1], s2.done_ns),
        s2.result_ns,
        tuple(boxes),
        tuple(arrows),
    )


def _calls(subroutine: _Subroutine, cnpu: Lane, qnpu: Lane) -> list[Arrow]:
    return [
        Arrow(ArrowKind.SEND, cnpu, subroutine.attempt_ns, qnpu, subroutine.added_ns),
        Arrow(ArrowKind.RESULT, qnpu, subroutine.done_ns, cnpu, subroutine.result_ns),
    ]


def _box(lane: Lane, start_ns: int, stop_ns: int, kind: BoxKind) -> list[Box]:
    """A box, unless it would last no time."""
    return [Box(lane, start_ns, stop_ns, kind)] if stop_ns > start_ns else []


def _running_boxes(side: _Side, lane: Lane, subroutines: Sequence[_Subroutine]) -> list[Box]:
    return [
        Box(lane, span.start_ns, span.stop_ns, BoxKind.RUNNING)
        for span in side.runs
        if any(
            each.added_ns <= span.start_ns and span.stop_ns <= each.done_ns for each in subroutines
        )
    ]


def _device_boxes(side: _Side, lane: Lane, start_ns: int, stop_ns: int) -> list[Box]:
    return [
        Box(lane, span.start_ns, span.stop_ns, _device_kind(span.name), span.name)
        for span in side.instructions
        if start_ns <= span.start_ns and span.stop_ns <= stop_ns
    ]


def _device_kind(name: str) -> BoxKind:
    code = name.partition(" ")[0]
    if code in {"ENT", "ENM"}:
        return BoxKind.ENTANGLE
    return BoxKind.MEASURE if code == "MSR" else BoxKind.GATE
