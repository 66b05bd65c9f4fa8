"""Nodes and a network for the tests of the kernel; everything is deterministic."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Final, NamedTuple

from qnodeos.api.host import ArrayResult, ErrorReport, HostReply, RegisterResult
from qnodeos.api.netqasm import Flavour
from qnodeos.api.peer import PeerMessage
from qnodeos.limits import Limits
from qnodeos.qdevice.capabilities import Capabilities
from qnodeos.qnpu.execution import WAIT
from qnodeos.qnpu.kernel import Kernel
from qnodeos.qnpu.kernel_config import KernelConfig
from qnodeos.qnpu.process import NETWORK_PID, ProcessState
from qnodeos.qnpu.schedule import NetworkSchedule
from qnodeos.qnpu.scheduler import PriorityFcfs, SchedulingPolicy
from qnodeos.trace.events import PRODUCE_EVENT, Event
from tests.unit.kernel_device import CAPABILITIES, FAILED, FakeDevice, FakeDriver, Link, Verdict


class Record(NamedTuple):
    """One event of a trace."""

    tick: int
    event: Event
    pid: int
    detail: int


class WatchingTrace:
    """Keeps every event, and checks at each that the scheduler is non-pre-emptive."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.kernel: Kernel | None = None
        self._active: int | None = None

    def record(self, time: int, event: int, process: int = 0, detail: int = 0) -> None:
        record = Record(time, Event(event), process, detail)
        self.records.append(record)
        if self._active == NETWORK_PID and self._has_network_left(record):
            self._active = None
        if record.event in _STARTS:
            assert self._active is None, f"{record} while process {self._active} is running"
            self._active = process
        elif record.event in _PRODUCES:
            assert self._active == process, f"{record} while process {self._active} is running"
        elif record.event in _ENDS and self._active == process and not self._still_runs(record):
            self._active = None

    def _still_runs(self, record: Record) -> bool:
        # A subroutine that waited behind the one being run may be cancelled.
        if record.event is not Event.PROCMGR_SUBROUTINE_ABORTED:
            return False
        assert self.kernel is not None
        process = self.kernel.processes.get(record.pid)
        return process is not None and process.state is ProcessState.RUNNING

    def _has_network_left(self, record: Record) -> bool:
        # The real system has no event for a network process that starts to wait.
        assert self.kernel is not None
        waits = self.kernel.network.state is ProcessState.WAITING
        return waits or record.event is Event.SCHEDULER_ARRIVE_NET_PROCESS

    def events(self, *which: Event) -> list[Record]:
        """The records of some kinds of event."""
        return [record for record in self.records if record.event in which]


_STARTS: Final = {Event.PROCESSOR_START_USER_PROCESS, Event.PROCESSOR_START_NET_PROCESS}
_PRODUCES: Final = set(PRODUCE_EVENT.values())
_ENDS: Final = {
    Event.PROCESSOR_WAIT_USER_PROCESS,
    Event.PROCESSOR_FINISH_USER_PROCESS,
    Event.PROCESSOR_FINISH_NET_PROCESS,
    Event.PROCMGR_SUBROUTINE_ABORTED,
}


@dataclass
class Node:
    """A kernel with a fake device, and the CNPU's view of it."""

    kernel: Kernel
    driver: FakeDriver
    device: FakeDevice
    trace: WatchingTrace
    replies: dict[int, HostReply] = field(default_factory=dict)
    sent: int = 0
    tick: int = 0
    inbox: list[Callable[[int], None]] = field(default_factory=list)
    next_tick: int | None = 0

    def post(self, raw: bytes, client: int = 1) -> int:
        """Send a host message; it arrives at the next tick. Returns its number."""
        request = self.sent
        self.sent += 1
        self.inbox.append(lambda tick: self.kernel.host_message(client, request, raw, tick))
        return request

    def register(self, app_id: int, priority: int, client: int = 1, max_qubits: int = 3) -> int:
        """Register a program with a priority. Returns the request's number."""
        request = self.sent
        self.sent += 1
        self.inbox.append(
            lambda tick: self.kernel.register(client, request, app_id, max_qubits, priority, tick)
        )
        return request

    def cancel(self, target: int, client: int = 1) -> int:
        """Cancel a subroutine. Returns the request's number."""
        request = self.sent
        self.sent += 1
        self.inbox.append(lambda tick: self.kernel.cancel(client, request, target, tick))
        return request

    def close(self, client: int = 1) -> None:
        """Close a client's connection; the kernel hears of it at the next tick."""
        self.inbox.append(lambda tick: self.kernel.client_closed(client, tick))

    def lose_peers(self, heard_ticks_ago: int | None = None) -> None:
        """The connections to all neighbours end."""

        def lose(tick: int) -> None:
            heard_tick = None if heard_ticks_ago is None else tick - heard_ticks_ago
            for peer in self.kernel.link_layer.links:
                self.kernel.peer_lost(peer, tick, heard_tick)

        self.inbox.append(lose)

    def connect_peers(self) -> None:
        """There are connections to all neighbours."""

        def connect(tick: int) -> None:
            for peer in self.kernel.link_layer.links:
                self.kernel.peer_connected(peer, tick)

        self.inbox.append(connect)

    def step(self, tick: int) -> None:
        """Run one tick: outcome, messages, kernel, instruction."""
        self.tick = tick
        answer = self.device.poll(tick)
        arrived, self.inbox = self.inbox, []
        for deliver in arrived:
            deliver(tick)
        instruction = self.kernel.tick(tick) if answer is None else self.kernel.tick(tick, *answer)
        if instruction is not None:
            self.device.send(tick, instruction)
        for reply in self.kernel.host_outbox:
            assert reply.request not in self.replies, f"a second reply: {reply}"
            self.replies[reply.request] = reply
        self.kernel.host_outbox.clear()
        self.next_tick = self.kernel.next_tick(tick)
        assert self.next_tick is None or self.next_tick > tick

    def due(self) -> int | None:
        """The next tick at which this node has something to do."""
        candidates = [self.next_tick, self.device.due_tick]
        if self.inbox:
            candidates.append(self.tick + 1)
        return min((tick for tick in candidates if tick is not None), default=None)

    # --- what came of it --------------------------------------------------------------

    def error(self, request: int) -> ErrorReport:
        """The error a request was answered with."""
        error = self.replies[request].error
        assert error is not None, f"request {request} succeeded: {self.replies[request]}"
        return error

    def results(self, request: int) -> tuple[RegisterResult | ArrayResult, ...]:
        """The results of a subroutine that succeeded."""
        reply = self.replies[request]
        assert reply.error is None, reply.error
        return reply.results

    def values(self, request: int) -> list[int]:
        """The values of the registers a subroutine returned."""
        results = self.results(request)
        return [result.value for result in results if isinstance(result, RegisterResult)]

    def array(self, request: int, number: int = 0) -> tuple[int | None, ...]:
        """One of the arrays a subroutine returned."""
        arrays = [r for r in self.results(request) if isinstance(r, ArrayResult)]
        return arrays[number].values

    # --- invariants -------------------------------------------------------------------

    def check_owners(self) -> None:
        """No physical qubit has two owners, and each is where its owner sees it."""
        kernel = self.kernel
        owned = Counter[int](kernel.qmmu.owned(NETWORK_PID))
        for pid in kernel.processes:
            mine = kernel.qmmu.owned(pid)
            owned.update(mine)
            mapped = [kernel.qmmu.physical(pid, virtual) for virtual in range(256)]
            assert sorted(q for q in mapped if q is not None) == sorted(mine)
        free = kernel.qmmu.free_qubits()
        assert sorted([*owned.elements(), *free]) == sorted(self.driver.capabilities.qubits)

    def check_states(self) -> None:
        """The scheduler's list, the states of the processes and their work agree."""
        kernel = self.kernel
        processes = [kernel.network, *kernel.processes.values()]
        ready = [process for process in processes if process.state is ProcessState.READY]
        assert sorted(p.pid for p in kernel.scheduler.ready) == sorted(p.pid for p in ready)
        assert sum(process.state is ProcessState.RUNNING for process in processes) <= 1
        for process in kernel.processes.values():
            assert process.state is not ProcessState.ENDED
            if process.state is ProcessState.IDLE:
                assert process.current is None
                assert not process.pending

    def check_waiters(self) -> None:
        """Nobody waits whose condition holds: call it only when nothing is going on."""
        for process in self.kernel.processes.values():
            assert process.state in (ProcessState.IDLE, ProcessState.WAITING), process.state
            if process.state is ProcessState.WAITING:
                assert process.execution.run() == WAIT, process.execution.waiting_for

    def check_clean(self) -> None:
        """Nothing is left of any program."""
        kernel = self.kernel
        assert not kernel.processes
        assert not kernel.scheduler.ready
        assert kernel.qmmu.free_qubits() == list(self.driver.capabilities.qubits)
        assert kernel.network.state is ProcessState.IDLE
        assert self.device.busy is None
        assert len(self.replies) == self.sent
        # Nothing public shows these; a leak in them would show only after hours.
        assert not kernel._processor.qubit_queue
        assert not kernel.entanglement._sockets
        assert not kernel.entanglement._sockets_of
        assert not kernel.entanglement._keepers
        assert not kernel.entanglement._outstanding
        assert not kernel.link_layer._mine
        assert not kernel.link_layer._deadlines
        for link in kernel.link_layer.links.values():
            assert not link.queue
            assert not link.announced
            assert not link.offers


BIN_TICKS: Final = 100


def make_node(
    node_id: int = 1,
    peers: dict[int, int] | None = None,
    *,
    flavour: Flavour = Flavour.VANILLA,
    capabilities: Capabilities = CAPABILITIES,
    limits: Limits | None = None,
    device_ticks: int = 1,
    random_choice: Callable[[int], int] = lambda below: 0,
    policy: SchedulingPolicy | None = None,
    dispatch_ticks: int = 0,
    schedule: NetworkSchedule | None = None,
    link_fidelity: dict[int, float] | None = None,
) -> Node:
    """A node; its neighbour is node 2 (or 1, if it is node 2), over link 0."""
    peers = {3 - node_id: 0} if peers is None else peers
    driver, trace = FakeDriver(capabilities), WatchingTrace()
    config = KernelConfig(
        node_id,
        flavour,
        peers,
        dispatch_ticks,
        limits if limits is not None else Limits(),
        link_fidelity or {},
    )
    kernel = Kernel(config, driver, trace, random_choice, policy)
    trace.kernel = kernel
    kernel.install_schedule(
        schedule
        if schedule is not None
        else NetworkSchedule(
            bin_ticks=BIN_TICKS, guard_ticks=5, batch_ticks=15, pattern=tuple(peers)
        )
    )
    return Node(kernel, driver, FakeDevice(device_ticks), trace)


class Lab:
    """Nodes 1, 2, ... and the classical network between them, in virtual time.

    Args:
        delay: ticks the next peer message takes; those between two nodes stay in order.
        every_tick: run every tick; otherwise only those at which something is due.
    """

    def __init__(
        self,
        *nodes: Node,
        delay: Callable[[], int] = lambda: 3,
        every_tick: bool = False,
    ) -> None:
        self.nodes = dict(enumerate(nodes, start=1))
        self.tick = -1
        self.messages: list[tuple[int, int, int, PeerMessage]] = []
        self.sent: list[tuple[int, int, PeerMessage]] = []
        self._delay = delay
        self._every_tick = every_tick
        self._arrivals: dict[tuple[int, int], int] = {}
        self._actions: list[tuple[int, Callable[[], None]]] = []
        self._is_cut = False

    def at(self, tick: int, action: Callable[[], object]) -> None:
        """Do something just before a tick."""
        self._actions.append((tick, lambda: (action(), None)[1]))
        self._actions.sort(key=lambda entry: entry[0])

    def run(self, ticks: int = 1_000) -> None:
        """Run until ``ticks`` from now, or until nothing is left to do."""
        end = self.tick + ticks
        while True:
            following = self._following()
            if following is None or following > end:
                break
            self.step(following)
        self.tick = end

    def settle(self, ticks: int = 50_000) -> None:
        """Run until nothing is left to do."""
        end = self.tick + ticks
        while (following := self._following(idle=True)) is not None:
            assert following <= end, "the nodes do not come to rest"
            self.step(following)

    def step(self, tick: int) -> None:
        """Run one tick at all nodes that have something to do."""
        self.tick = tick
        while self._actions and self._actions[0][0] <= tick:
            self._actions.pop(0)[1]()
        arrived = [m for m in self.messages if m[0] <= tick]
        self.messages = [m for m in self.messages if m[0] > tick]
        for _, source, destination, message in arrived:
            self._deliver(source, destination, message)
        for node_id, node in self.nodes.items():
            due = node.due()
            if not (self._every_tick or node.inbox or (due is not None and due <= tick)):
                continue
            node.step(tick)
            node.check_states()
            for peer, message in node.kernel.peer_outbox:
                self._send(node_id, peer, message)
            node.kernel.peer_outbox.clear()

    def _deliver(self, source: int, destination: int, message: PeerMessage) -> None:
        kernel = self.nodes[destination].kernel
        self.nodes[destination].inbox.append(
            lambda tick: kernel.peer_message(source, message, tick)
        )

    def _send(self, source: int, destination: int, message: PeerMessage) -> None:
        self.sent.append((source, destination, message))
        if destination not in self.nodes or self._is_cut:
            return
        way = source, destination
        arrival = max(self.tick + self._delay(), self._arrivals.get(way, 0))
        self._arrivals[way] = arrival
        self.messages.append((arrival, source, destination, message))

    def cut(self, heard_ticks_ago: int | None = None) -> None:
        """The connections between all nodes end, and the messages on their way with them."""
        self._is_cut = True
        self.messages.clear()
        for node in self.nodes.values():
            node.lose_peers(heard_ticks_ago)

    def mend(self) -> None:
        """The nodes are connected again."""
        self._is_cut = False
        for node in self.nodes.values():
            node.connect_peers()

    def _following(self, *, idle: bool = False) -> int | None:
        candidates = [message[0] for message in self.messages]
        candidates += [tick for tick, _ in self._actions]
        for node in self.nodes.values():
            due = node.due()
            if due is not None:
                candidates.append(due)
        if not candidates:
            return None if idle or not self._every_tick else self.tick + 1
        return self.tick + 1 if self._every_tick else max(min(candidates), self.tick + 1)

    def check_clean(self) -> None:
        """Close every connection, let things settle, and find nothing left."""
        for node in self.nodes.values():
            for client in {process.owner[0] for process in node.kernel.processes.values()}:
                node.close(client)
        self.settle()
        for node in self.nodes.values():
            node.check_owners()
            node.check_clean()


def solo(node: Node) -> Lab:
    """A node alone."""
    return Lab(node)


def pair(
    decide: Callable[[], Verdict] = Verdict,
    *,
    seed: int = 1,
    delay: Callable[[], int] = lambda: 3,
    every_tick: bool = False,
    batch_ticks: int = 3,
    policy: Callable[[], SchedulingPolicy] = PriorityFcfs,
    **options: object,
) -> tuple[Lab, Node, Node, Link]:
    """Two neighbours, nodes 1 and 2, whose devices are linked."""
    rng = Random(seed)
    first, second = (
        make_node(number, random_choice=rng.randrange, policy=policy(), **options)  # type: ignore[arg-type]
        for number in (1, 2)
    )
    link = Link(first.device, second.device, decide, rng, batch_ticks)
    return Lab(first, second, delay=delay, every_tick=every_tick), first, second, link


def verdicts(*given: Verdict, then: Verdict = FAILED) -> Callable[[], Verdict]:
    """Verdicts in turn, and what comes after them."""
    turns: Iterator[Verdict] = iter(given)
    return lambda: next(turns, then)
