"""Programs as greenlets in virtual time.

A program runs until it has to wait for its QNPU or for a message, then gives control back
to whoever advances the clock. Its computing takes no time of its own; the latency profile
says how long it would have. So a program's local time may run ahead of the clock: what it
does is scheduled at its local time, and when it waits the two meet again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextvars import copy_context
from random import Random
from typing import Any, Protocol

from greenlet import GreenletExit, greenlet

from qnodeos.api.host import HostReply
from qnodeos.api.netqasm import (
    CREATE_EPR_OPCODE,
    INSTRUCTION_BYTES,
    RECV_EPR_OPCODE,
    Flavour,
)
from qnodeos.cnpu.host import NetworkDirectory, current_host
from qnodeos.cnpu.latency import Delay, LatencyProfile
from qnodeos.cnpu.message_board import MessageBoard
from qnodeos.errors import ProgramError, UnknownProcessError
from qnodeos.qdevice.capabilities import Capabilities
from qnodeos.trace.events import Event

_SUBROUTINE_TYPE = 2
_BODY_OFFSET = 5
_S_IN_NS = 1_000_000_000
_US_IN_NS = 1_000
_POLL_NS = 10_000
"""Time to find that no message is there (assumed: a system call)."""


class Clock(Protocol):
    """Virtual time."""

    @property
    def now_ns(self) -> int:
        """The current time."""
        ...

    def call_at(self, time_ns: int, action: Callable[..., None], *arguments: Any) -> None:
        """Do something at a time not before now."""
        ...


class QnpuPort(Protocol):
    """The QNPU of this node, as its CNPU reaches it."""

    def open_client(self) -> int:
        """A new connection; returns its number."""
        ...

    def close_client(self, client: int) -> None:
        """The connection ends."""
        ...

    def host_message(
        self, client: int, request: int, raw: bytes, on_reply: Callable[[HostReply], None]
    ) -> None:
        """A message arrives at the QNPU; the reply goes to ``on_reply``."""
        ...


class Recorder(Protocol):
    """Where host events go; times in microseconds."""

    def record(self, time: int, event: int, process: int = 0, detail: int = 0) -> None:
        """Keep one event."""
        ...


class VirtualCnpu:
    """The CNPU of one node: starts programs and gives each its host."""

    def __init__(
        self,
        *,
        node_name: str,
        directory: NetworkDirectory,
        flavour: Flavour,
        capabilities: Capabilities,
        clock: Clock,
        qnpu: QnpuPort,
        board: MessageBoard,
        latency: LatencyProfile,
        rng: Random,
        trace: Recorder,
    ) -> None:
        self.node_name = node_name
        self.directory = directory
        self.flavour = flavour
        self.capabilities = capabilities
        self.clock = clock
        self.qnpu = qnpu
        self.board = board
        self.latency = latency
        self.rng = rng
        self.trace = trace
        self._programs = 0
        self._interpreter_free_ns = 0

    def start(
        self,
        name: str,
        entry: Callable[..., Any],
        inputs: Mapping[str, Any],
        on_error: Callable[[VirtualProgram], None] = lambda program: None,
    ) -> VirtualProgram:
        """Start a program now; it runs when the clock next advances.

        Args:
            name: for messages.
            entry: the program.
            inputs: keyword arguments of the program.
            on_error: called with the program if it ends with an exception.
        """
        program = VirtualProgram(self, self._programs, name, entry, inputs, on_error)
        self._programs += 1
        self.clock.call_at(self.clock.now_ns, program.resume, program.wait_number)
        return program

    def interpret(self, duration_ns: int) -> int:
        """Time a program needs for something that only one program of the node does at a time.

        Args:
            duration_ns: how long it takes if no other program is in between.

        Returns:
            From now until it is done.
        """
        now_ns = self.clock.now_ns
        self._interpreter_free_ns = max(now_ns, self._interpreter_free_ns) + duration_ns
        return self._interpreter_free_ns - now_ns


class VirtualProgram:
    """A running program, and the `ProgramHost` it sees.

    Attributes:
        name: of the program.
        is_finished: whether it has returned or raised.
        result: what it returned.
        error: what it raised.
        waiting_for: in words, while it waits.
        wait_number: counts its waits, so that a wake-up meant for an earlier one is void.
    """

    def __init__(
        self,
        cnpu: VirtualCnpu,
        number: int,
        name: str,
        entry: Callable[..., Any],
        inputs: Mapping[str, Any],
        on_error: Callable[[VirtualProgram], None],
    ) -> None:
        self._cnpu = cnpu
        self._on_error = on_error
        self._number = number
        self.name = name
        self.is_finished = False
        self.result: Any = None
        self.error: Exception | None = None
        self.waiting_for = "its start"
        self.wait_number = 0
        self._is_killed = False
        self._local_ns = cnpu.clock.now_ns
        self._last_event: Event | None = None
        self._next_request = 0
        self._replies: dict[int, tuple[int, HostReply]] = {}
        self._awaited: int | None = None
        self._subroutines: dict[int, int] = {}
        self._serials: dict[int, int] = {}
        self._clients: set[int] = set()
        context = copy_context()
        context.run(current_host.set, self)
        self._greenlet = greenlet(lambda: self._run(entry, inputs))
        self._greenlet.gr_context = context

    # --- as seen by whoever advances the clock ----------------------------------------

    @property
    def clients(self) -> Collection[int]:
        """Numbers of its open connections to the QNPU."""
        return self._clients

    def resume(self, wait_number: int) -> None:
        """Let the program run until it waits again, if it is still in that wait."""
        if not self.is_finished and wait_number == self.wait_number:
            self._greenlet.switch()

    def kill(self) -> None:
        """End a program that waits, closing its connections."""
        if not self.is_finished:
            self._is_killed = True
            self._greenlet.throw()

    def _run(self, entry: Callable[..., Any], inputs: Mapping[str, Any]) -> None:
        try:
            self.result = entry(**inputs)
        except Exception as error:
            self.error = error
            self._on_error(self)
        finally:
            self.is_finished = True
            self._close_clients()

    def _close_clients(self) -> None:
        for client in sorted(self._clients):
            self._cnpu.qnpu.close_client(client)
        self._clients.clear()

    def _suspend(self, reason: str) -> None:
        if self._is_killed:  # code that runs while a killed program unwinds must not wait
            raise GreenletExit
        self.waiting_for = reason
        parent = self._greenlet.parent
        assert parent is not None
        try:
            parent.switch()
        finally:  # a killed program too may have things to do yet, and not in the past
            self.wait_number += 1
            self._local_ns = max(self._local_ns, self._cnpu.clock.now_ns)

    # --- ProgramHost ------------------------------------------------------------------

    @property
    def node_name(self) -> str:
        """See `ProgramHost`."""
        return self._cnpu.node_name

    @property
    def directory(self) -> NetworkDirectory:
        """See `ProgramHost`."""
        return self._cnpu.directory

    @property
    def flavour(self) -> Flavour:
        """See `ProgramHost`."""
        return self._cnpu.flavour

    @property
    def capabilities(self) -> Capabilities:
        """See `ProgramHost`."""
        return self._cnpu.capabilities

    def open_client(self) -> int:
        """See `ProgramHost`."""
        client = self._cnpu.qnpu.open_client()
        self._clients.add(client)
        return client

    def close_client(self, client: int) -> None:
        """See `ProgramHost`."""
        self._clients.discard(client)
        self._cnpu.qnpu.close_client(client)

    def register(self, client: int, app_id: int, max_qubits: int, priority: int) -> int:
        """See `ProgramHost`."""
        raise ProgramError(
            f"priority={priority} of a connection needs a QNPU service (`qnodeos run`); programs "
            "in virtual time take their turns"
        )

    def submit(self, client: int, raw: bytes) -> int:
        """See `ProgramHost`."""
        cnpu = self._cnpu
        request = self._next_request
        self._next_request += 1
        sent_ns = self._local_ns
        if raw and raw[0] == _SUBROUTINE_TYPE:
            attempt_ns = self._local_ns + self._compute(
                Event.SUBROUTINE_SEND_ATTEMPT, is_local=_is_local(raw)
            )
            sent_ns = attempt_ns + self._send_delay(raw).sample_ns(cnpu.rng)
            serial = self._serials.get(client, 0)
            self._serials[client] = serial + 1
            self._subroutines[request] = serial
            self._record(attempt_ns, Event.SUBROUTINE_SEND_ATTEMPT, serial)
            self._record(sent_ns, Event.SUBROUTINE_SENT, serial)
            self._local_ns = sent_ns
        cnpu.clock.call_at(sent_ns, self._deliver, client, request, raw)
        return request

    def _deliver(self, client: int, request: int, raw: bytes) -> None:
        # A program may end while a message of its is on the way: its QNPU process has ended
        # too then, and must not be made anew.
        if client in self._clients:
            self._cnpu.qnpu.host_message(client, request, raw, self._on_reply)

    def _send_delay(self, raw: bytes) -> Delay:
        opcodes = raw[_BODY_OFFSET::INSTRUCTION_BYTES]
        if CREATE_EPR_OPCODE in opcodes:
            return self._cnpu.latency.send_create
        if RECV_EPR_OPCODE in opcodes:
            return self._cnpu.latency.send_receive
        return self._cnpu.latency.send_local

    def _on_reply(self, reply: HostReply) -> None:
        delay_ns = 0
        if reply.request in self._subroutines:
            delay_ns = self._cnpu.latency.result.sample_ns(self._cnpu.rng)
        arrival_ns = self._cnpu.clock.now_ns + delay_ns
        self._replies[reply.request] = arrival_ns, reply
        if reply.request == self._awaited:
            self._awaited = None
            self._cnpu.clock.call_at(max(arrival_ns, self._local_ns), self.resume, self.wait_number)

    def await_reply(self, request: int) -> HostReply:
        """See `ProgramHost`."""
        if request not in self._replies:
            self._awaited = request
            serial = self._subroutines.get(request)
            self._suspend(
                "the QNPU's reply" if serial is None else f"the result of subroutine {serial}"
            )
        if request not in self._replies:
            raise UnknownProcessError(f"request {request} was never answered")
        arrival_ns, reply = self._replies.pop(request)
        self._local_ns = max(self._local_ns, arrival_ns)
        serial = self._subroutines.pop(request, None)
        if serial is not None:
            self._record(self._local_ns, Event.RESULT_RCVD, serial)
            self._last_event = Event.RESULT_RCVD
        return reply

    def open_socket(self, source: str, destination: str, socket_id: int) -> None:
        """See `ProgramHost`."""
        self._cnpu.directory.get_node_name_for_app(destination)

    def send(self, source: str, destination: str, socket_id: int, message: Any) -> None:
        """See `ProgramHost`."""
        self._local_ns += self._compute(Event.CLAS_MSG_SENT)
        self._record(self._local_ns, Event.CLAS_MSG_SENT, socket_id)
        self._last_event = Event.CLAS_MSG_SENT
        delay_ns = self._cnpu.latency.classical.sample_ns(self._cnpu.rng)
        self._cnpu.board.post((source, destination, socket_id), self._local_ns + delay_ns, message)

    def receive(
        self,
        source: str,
        destination: str,
        socket_id: int,
        *,
        block: bool = True,
        timeout_s: float | None = None,
    ) -> Any:
        """See `ProgramHost`."""
        board, clock = self._cnpu.board, self._cnpu.clock
        key = source, destination, socket_id
        arrival_ns = board.peek(key)
        if not block and (arrival_ns is None or arrival_ns > self._local_ns):
            # Looking takes time: a program that polls would otherwise never let others run.
            clock.call_at(self._local_ns + _POLL_NS, self.resume, self.wait_number)
            self._suspend(f"a look for messages from {source}")
            arrival_ns = board.peek(key)
            if arrival_ns is None or arrival_ns > self._local_ns:
                raise RuntimeError(f"no message from {source} has arrived")
        deadline_ns = None
        if timeout_s is not None:
            deadline_ns = self._local_ns + round(timeout_s * _S_IN_NS)
        if arrival_ns is None:
            self._await_message([key], deadline_ns, f"a message from {source}")
            arrival_ns = board.peek(key)
        if arrival_ns is None or (deadline_ns is not None and arrival_ns > deadline_ns):
            self._local_ns = max(self._local_ns, deadline_ns or 0)
            raise RuntimeError(f"no message from {source} came within {timeout_s} s")
        return self._take(key, arrival_ns)

    def receive_any(
        self,
        sources: Sequence[str],
        destination: str,
        socket_id: int,
        *,
        timeout_s: float | None = None,
    ) -> tuple[str, Any]:
        """Take the message that arrives first of those of several applications.

        Args:
            sources: the applications.
            destination: the program's own.
            socket_id: of the sockets, the same for all.
            timeout_s: how long to wait; None for ever.

        Returns:
            Who sent it, and the message.

        Raises:
            TimeoutError: none came in time.
        """
        board = self._cnpu.board
        keys = [(source, destination, socket_id) for source in sources]
        deadline_ns = None
        if timeout_s is not None:
            deadline_ns = self._local_ns + round(timeout_s * _S_IN_NS)

        clock = self._cnpu.clock
        reason = f"a message from {' or '.join(sources)}"
        while True:
            sent = [(board.peek(key), place) for place, key in enumerate(keys)]
            first = sorted((time_ns, place) for time_ns, place in sent if time_ns is not None)[:1]
            until_ns = min((time_ns for time_ns, _ in first), default=deadline_ns)
            if deadline_ns is not None and until_ns is not None:
                until_ns = min(until_ns, deadline_ns)
            if until_ns is not None and until_ns <= clock.now_ns:
                break
            # What was sent is still on the way, and another may overtake it.
            self._await_message(keys, until_ns, reason)
        if not first or (deadline_ns is not None and first[0][0] > deadline_ns):
            self._local_ns = max(self._local_ns, deadline_ns or 0)
            raise TimeoutError(f"no message from {' or '.join(sources)} came within {timeout_s} s")
        arrival_ns, place = first[0]
        return sources[place], self._take(keys[place], arrival_ns)

    def _await_message(
        self, keys: Sequence[tuple[str, str, int]], deadline_ns: int | None, reason: str
    ) -> None:
        """Wait until a message of one of several kinds arrives, or a time."""
        board, clock = self._cnpu.board, self._cnpu.clock
        wait_number = self.wait_number

        def wake(time_ns: int) -> None:
            clock.call_at(max(time_ns, clock.now_ns), self.resume, wait_number)

        waiting = []
        try:
            for key in keys:
                board.wait(key, wake)
                waiting.append(key)
            if deadline_ns is not None:
                clock.call_at(deadline_ns, self.resume, wait_number)
            self._suspend(f"{reason} (socket {keys[0][2]})")
        finally:
            for key in waiting:
                board.stop_waiting(key)

    def _take(self, key: tuple[str, str, int], arrival_ns: int) -> Any:
        """The next message, which arrives at that time."""
        socket_id = key[2]
        self._local_ns = max(self._local_ns, arrival_ns)
        self._record(self._local_ns, Event.CLAS_MSG_RCVD, socket_id)
        self._last_event = Event.CLAS_MSG_RCVD
        return self._cnpu.board.take(key)

    # --- latency and trace ------------------------------------------------------------

    def _compute(self, coming: Event, *, is_local: bool = False) -> int:
        """How long the program computes between its last event and the coming one.

        Args:
            coming: what it will do.
            is_local: whether that is to send a subroutine without entanglement.
        """
        latency, rng = self._cnpu.latency, self._cnpu.rng
        if coming is Event.CLAS_MSG_SENT:
            if self._last_event is Event.RESULT_RCVD:
                return latency.result_to_message.sample_ns(rng)
            return latency.message_to_message.sample_ns(rng)
        if self._last_event is None:
            return latency.start_to_submit.sample_ns(rng)
        if self._last_event is Event.RESULT_RCVD:
            if is_local and latency.result_to_local_submit is not None:
                delay_ns = latency.result_to_local_submit.sample_ns(rng)
                return delay_ns + self._interpret(delay_ns)
            return latency.result_to_submit.sample_ns(rng)
        delay_ns = latency.message_to_submit.sample_ns(rng)
        if self._last_event is Event.CLAS_MSG_RCVD:
            delay_ns += latency.spikes.sample_ns(rng)
        return delay_ns

    def _interpret(self, after_ns: int) -> int:
        """How long the program then computes with the interpreter to itself, queueing included."""
        cnpu = self._cnpu
        duration_ns = cnpu.latency.local_interpreter.sample_ns(cnpu.rng)
        if not duration_ns:
            return 0
        # Whose turn it is cannot be told ahead of time.
        cnpu.clock.call_at(self._local_ns + after_ns, self.resume, self.wait_number)
        begun_ns = self._local_ns + after_ns
        self._suspend("its turn to compute")
        self._local_ns = begun_ns - after_ns
        return cnpu.interpret(duration_ns)

    def _record(self, time_ns: int, event: Event, serial_or_socket: int) -> None:
        self._cnpu.trace.record(time_ns // _US_IN_NS, event, self._number, serial_or_socket)


def _is_local(raw: bytes) -> bool:
    """Whether a subroutine neither creates nor receives entanglement."""
    opcodes = raw[_BODY_OFFSET::INSTRUCTION_BYTES]
    return CREATE_EPR_OPCODE not in opcodes and RECV_EPR_OPCODE not in opcodes
